"""Commands that are nothing but their verb: options, one call, the result in words."""

from __future__ import annotations

import typer

from commands.build import command
from stepgold import (
    again,
    agreeing,
    candidates,
    contents,
    continuing,
    corpora,
    demo,
    doctor,
    evaluating,
    exchange,
    judging,
    overlap,
    retrieval,
    sampling,
    scoring_run,
    searching,
)
from stepgold import report as reporting
from stepgold.api import RUN

COMMANDS = {
    "demo": command(
        demo.DemoOptions,
        demo.demo,
        help="Run the whole pipeline on the bundled lab. It needs no key, network or GPU.",
    ),
    "run": command(
        RUN.config,
        RUN.run,
        help="Run the stages of a TOML file. Each command has a table; what is already done is"
        " skipped. Repeat a table as [[import]] for several datasets or labelers.",
    ),
    "import": command(
        exchange.ImportOptions,
        exchange.import_,
        help="Import traces, or a third party's scores. Rows that cannot be used are listed.",
    ),
    "export": command(
        exchange.ExportOptions,
        exchange.export,
        help="Write the labels of one labeler to a file. Fields the format lacks are left out.",
    ),
    "index": command(
        searching.IndexOptions,
        searching.index,
        help="Update the index over all corpora. Only new passages are encoded.",
    ),
    "search": command(
        searching.SearchOptions,
        searching.search,
        help="Show the passages that match a text. Matching words are marked; similarity, source"
        " and offsets are shown.",
    ),
    "retrieve": command(
        retrieval.RetrieveOptions,
        retrieval.retrieve,
        help="Find evidence for problems that have none yet.",
    ),
    "sample": command(
        sampling.SampleOptions,
        sampling.sample,
        help="Sample candidate traces for problems. Solutions are split into steps; those with too"
        " few or too many are rejected.",
    ),
    "judge": command(
        judging.JudgeOptions,
        judging.judge,
        help="Judge every step, grounded in the evidence. Quotes are verified.",
    ),
    "continue": command(
        continuing.ContinueOptions,
        continuing.continue_,
        help="Label steps by Monte Carlo continuation. A step's score is the share of"
        " its continuations that reach the gold answer.",
    ),
    "consensus": command(
        agreeing.ConsensusOptions,
        agreeing.consensus,
        help="Keep labels on which judge and MC agree. Disagreement is an abstention, not a"
        " failure.",
    ),
    "score": command(
        scoring_run.ScoreOptions,
        scoring_run.score,
        help="Score steps with a process reward model. Traces that do not fit the model's"
        " window are reported, never truncated.",
    ),
    "evaluate": command(
        evaluating.EvaluateOptions,
        evaluating.evaluate,
        help="Measure a labeler against gold. Follows the published protocols; intervals are"
        " bootstrapped over problems.",
    ),
    "compare": command(
        evaluating.CompareOptions,
        evaluating.compare,
        help="Compare labelers on the same traces. Shows agreement, kappa, alpha, correlation,"
        " first errors, and disputed traces.",
    ),
    "report": command(
        reporting.ReportOptions,
        reporting.report,
        help="Write one page about a dataset's labelers. One file, readable offline, with"
        " figures, curves, agreement, cost and disputed traces.",
    ),
    "best-of-n": command(
        candidates.BestOfNOptions,
        candidates.best_of_n,
        help="Choose among N candidates by step scores. Reports accuracy by min, product,"
        " last and mean score, by majority votes, pass@N and mean accuracy.",
    ),
    "overlap": command(
        overlap.OverlapOptions,
        overlap.overlap,
        help="Find problems of a dataset in training sets. Matches by ID and by word n-grams.",
    ),
    "retry": command(
        again.RetryOptions,
        again.retry,
        help="Ask again what failed or could not be read. A new label replaces the abstention.",
    ),
    "status": command(
        contents.StatusOptions,
        contents.status,
        help="Show datasets, labelers, failures and spending.",
    ),
    "doctor": command(
        doctor.DoctorOptions,
        doctor.doctor,
        help="Check installation, GPU, keys and workspace. Keys are reported as set or not set.",
    ),
}
"""By name, in the order of `--help`."""

corpus = typer.Typer(help="Add, list or remove guideline documents.", no_args_is_help=True)
corpus.command("add")(
    command(
        corpora.CorpusAddOptions,
        corpora.corpus_add,
        help="Split documents into passages. Unchanged files are skipped; documents whose"
        " files are gone are removed.",
    )
)
corpus.command("list")(
    command(
        corpora.CorpusListOptions,
        corpora.corpus_list,
        help="List the corpora with their size and license.",
    )
)
corpus.command("remove")(
    command(
        corpora.CorpusRemoveOptions,
        corpora.corpus_remove,
        help="Remove a corpus or one document. Attached evidence stays readable.",
    )
)

remove = typer.Typer(help="Remove a dataset or a labeler.", no_args_is_help=True)
remove.command("dataset")(
    command(
        contents.RemoveDatasetOptions,
        contents.remove_dataset,
        help="Remove a dataset with all its labels. Recorded model replies stay in the ledger.",
    )
)
remove.command("labeler")(
    command(
        contents.RemoveLabelerOptions,
        contents.remove_labeler,
        help="Remove the labels of one labeler. Recorded model replies stay in the ledger.",
    )
)
