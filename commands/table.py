"""The commands by name: what each says of itself, and the verb that it is built from when called."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepgold.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is nothing but its verb, built only when it is used: imports take time."""

    help: str
    """What `--help` says; its first sentence is the summary in the list of commands."""
    module: str
    """Module of the verb."""
    config: str
    """Name of its options; empty where `run` is a finished command."""
    run: str
    """Name of the verb."""

    @property
    def summary(self) -> str:
        """The first sentence of the help."""
        return self.help.partition(". ")[0].removesuffix(".") + "."

    def build(self) -> Callable[..., Outcome]:
        """The command as typer takes it."""
        from commands.build import command

        module = importlib.import_module(self.module)
        run: Any = getattr(module, self.run)
        if not self.config:
            finished: Callable[..., Outcome] = run
            return finished
        return command(getattr(module, self.config), run, help=self.help)


COMMANDS: dict[tuple[str, ...], Entry] = {
    ("demo",): Entry(
        "Run the whole pipeline on the bundled lab. It needs no key, network or GPU.",
        "stepgold.demo",
        "DemoOptions",
        "demo",
    ),
    ("run",): Entry(
        "Run every stage that has a table. A stage that is done already is left alone; "
        "a table may be repeated as [[import]], for several datasets or labelers.",
        "stepgold.api",
        "RunOptions",
        "run_pipeline",
    ),
    ("import",): Entry(
        "Import traces, or a third party's scores. Every row that cannot be used is listed.",
        "stepgold.exchange",
        "ImportOptions",
        "import_",
    ),
    ("export",): Entry(
        "Write the labels of one labeler to a file. It holds all that the format can carry.",
        "stepgold.exchange",
        "ExportOptions",
        "export",
    ),
    ("corpus", "add"): Entry(
        "Split documents into passages. An unchanged file costs nothing; one that is "
        "gone is removed.",
        "stepgold.corpora",
        "CorpusAddOptions",
        "corpus_add",
    ),
    ("corpus", "list"): Entry(
        "List the corpora with their size and license.",
        "stepgold.corpora",
        "CorpusListOptions",
        "corpus_list",
    ),
    ("corpus", "remove"): Entry(
        "Remove a corpus or one document. Attached evidence stays readable.",
        "stepgold.corpora",
        "CorpusRemoveOptions",
        "corpus_remove",
    ),
    ("index",): Entry(
        "Update the index over all corpora. Only new passages are encoded.",
        "stepgold.searching",
        "IndexOptions",
        "index",
    ),
    ("search",): Entry(
        "Show the passages for a text. Its words are marked; similarity, source and "
        "offsets are given.",
        "stepgold.searching",
        "SearchOptions",
        "search",
    ),
    ("retrieve",): Entry(
        "Find evidence for problems that have none yet.",
        "stepgold.retrieval",
        "RetrieveOptions",
        "retrieve",
    ),
    ("sample",): Entry(
        "Sample candidate traces for problems. Solutions are split into steps and kept "
        "by a stated rule.",
        "stepgold.sampling",
        "SampleOptions",
        "sample",
    ),
    ("judge",): Entry(
        "Judge every step, grounded in the evidence. Quotes are verified.",
        "stepgold.judging",
        "JudgeOptions",
        "judge",
    ),
    ("continue",): Entry(
        "Label steps by Monte Carlo continuation. A step is as good as the share of its"
        " continuations that reach the gold answer.",
        "stepgold.continuing",
        "ContinueOptions",
        "continue_",
    ),
    ("consensus",): Entry(
        "Keep labels on which judge and MC agree. Disagreement is an abstention, not a failure.",
        "stepgold.agreeing",
        "ConsensusOptions",
        "consensus",
    ),
    ("score",): Entry(
        "Score steps with a process reward model. What does not fit into the model's "
        "window is named, never cut.",
        "stepgold.scoring_run",
        "ScoreOptions",
        "score",
    ),
    ("evaluate",): Entry(
        "Measure a labeler against gold. The published protocols, with bootstrap "
        "intervals by problem.",
        "stepgold.evaluating",
        "EvaluateOptions",
        "evaluate",
    ),
    ("compare",): Entry(
        "Compare labelers on the same traces. Agreement, kappa, alpha, correlation, "
        "first errors, and the steps on which they disagree.",
        "stepgold.evaluating",
        "CompareOptions",
        "compare",
    ),
    ("report",): Entry(
        "Write one page about a dataset's labelers. Headline figures, curves, "
        "agreement, cost and disputed traces in one file that needs no network.",
        "stepgold.report",
        "ReportOptions",
        "report",
    ),
    ("best-of-n",): Entry(
        "Choose among N candidates by step scores. By min, product, last and mean "
        "score, beside majorities, pass@N and mean accuracy.",
        "stepgold.candidates",
        "BestOfNOptions",
        "best_of_n",
    ),
    ("overlap",): Entry(
        "Find problems of a dataset in training sets. They are matched by id and by word n-grams.",
        "stepgold.overlap",
        "OverlapOptions",
        "overlap",
    ),
    ("plan",): Entry(
        "Estimate calls, cost and time before spending. Nothing is sent, nothing is written.",
        "commands.plan",
        "",
        "plan",
    ),
    ("retry",): Entry(
        "Ask again what failed or could not be read. A new label replaces the abstention.",
        "stepgold.again",
        "RetryOptions",
        "retry",
    ),
    ("trust",): Entry(
        "Trust the workspace's stepgold.toml. Until then its keys that decide where keys and "
        "texts go are refused.",
        "stepgold.trust",
        "TrustOptions",
        "trust",
    ),
    ("status",): Entry(
        "Show datasets, labelers, failures and spending.",
        "stepgold.contents",
        "StatusOptions",
        "status",
    ),
    ("doctor",): Entry(
        "Check installation, GPU, keys and workspace. Keys are reported as set or not set.",
        "stepgold.doctor",
        "DoctorOptions",
        "doctor",
    ),
    ("remove", "dataset"): Entry(
        "Remove a dataset with all its labels. Recorded model replies stay in the ledger.",
        "stepgold.contents",
        "RemoveDatasetOptions",
        "remove_dataset",
    ),
    ("remove", "labeler"): Entry(
        "Remove the labels of one labeler. Recorded model replies stay in the ledger.",
        "stepgold.contents",
        "RemoveLabelerOptions",
        "remove_labeler",
    ),
}
"""By their words, in the order of `--help`."""

GROUPS = {
    "corpus": "Add, list or remove guideline documents.",
    "remove": "Remove a dataset or a labeler.",
}
"""What `--help` says of commands that have commands of their own."""
