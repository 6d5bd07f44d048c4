"""The public Python API: a workspace with one method per verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from stepgold import (
    again,
    agreeing,
    choosing,
    comparing,
    config_run,
    contents,
    continuing,
    corpora,
    databases,
    demo,
    doctor,
    evaluating,
    exchange,
    exporting,
    judging,
    overlap,
    planning,
    removing,
    retrieval,
    review_files,
    sampling,
    scoring_run,
    searching,
    showing,
    standings,
    training,
    trust,
    verifying,
)
from stepgold import report as reporting
from stepgold.verbs import Verb, run_verb, verb, verb_of_several
from stepgold.workspace import WorkspaceFolder, has_defaults
from traces import Config, defaults_of

PIPELINE: dict[tuple[str, ...], Verb] = {
    ("import",): Verb(exchange.ImportOptions, exchange.import_),
    ("corpus", "add"): Verb(corpora.CorpusAddOptions, corpora.corpus_add),
    ("index",): Verb(searching.IndexOptions, searching.index),
    ("retrieve",): Verb(retrieval.RetrieveOptions, retrieval.retrieve),
    ("judge",): Verb(judging.JudgeOptions, judging.judge),
    ("continue",): Verb(continuing.ContinueOptions, continuing.continue_),
    ("consensus",): Verb(agreeing.ConsensusOptions, agreeing.consensus),
    ("export",): Verb(exporting.ExportOptions, exporting.export),
    ("score",): Verb(scoring_run.ScoreOptions, scoring_run.score),
    ("train",): Verb(training.TrainOptions, training.train),
    ("evaluate",): Verb(evaluating.EvaluateOptions, standings.evaluate),
    ("compare",): Verb(comparing.CompareOptions, comparing.compare),
    ("best-of-n",): Verb(choosing.BestOfNOptions, choosing.best_of_n),
    ("report",): Verb(reporting.ReportOptions, reporting.report),
}
"""The verbs of a TOML file, in the order in which `run` takes its tables."""

RunOptions = config_run.RunOptions
run_pipeline = partial(config_run.run, verbs=PIPELINE)
"""`run` with these verbs."""


class Workspace(WorkspaceFolder):
    """A folder with a database, an index, and a method for every command.

    Methods have the names, defaults, and effects of the commands; they return results with
    `as_json()`, text for a person (`str`), and `frame()`. Run again after an interruption, a method
    does only what is missing. Options that a call leaves out are taken from the folder's
    `stepgold.toml`, as by the commands.
    """

    def defaults_of(self, config: type[Config]) -> Mapping[str, Any]:
        """What the folder's stepgold.toml says about the options of a method, by field.

        A value that decides where keys and texts go is a function, which raises InputError if the
        file is not trusted.

        Raises:
            InputError: the file has an unknown table or key.
        """
        table = exchange.ImportOptions if config is exchange.ScoresOptions else config
        words = next((words for words, one in PIPELINE.items() if one.config is table), None)
        if words is None or not has_defaults(self.folder):
            return {}
        found = config_run.command_defaults(self.folder, PIPELINE)
        for word in words:
            found = found.get(word, {})
        return {name: value for name, value in found.items() if name in defaults_of(config)}

    judge = verb(judging.JudgeOptions, judging.judge)
    """Put verdicts on steps with a judge model, grounded in the retrieved evidence."""

    sample = verb(sampling.SampleOptions, sampling.sample)
    """Sample candidate traces for problems from a policy."""

    continue_ = verb(continuing.ContinueOptions, continuing.continue_)
    """Label steps by Monte Carlo continuation of every prefix."""

    consensus = verb(agreeing.ConsensusOptions, agreeing.consensus)
    """Keep the labels on which a judge and a Monte Carlo labeler agree."""

    retry = verb(again.RetryOptions, again.retry)
    """Ask again what failed or could not be read, with the labelers' stored configurations."""

    def plan(
        self,
        stages: Sequence[planning.Stage] = (),
        *,
        dataset: str | None = None,
        judge: str | None = None,
        policy: str | None = None,
        prm: str | None = None,
        **options: Any,
    ) -> planning.Plan:
        """Estimate calls, cost and time; nothing is sent or written.

        Args:
            stages: options of the stages, e.g. `[stepgold.ScoreOptions(...)]`; or, like the
                command, the arguments below.
            dataset: the dataset.
            judge: plans `judge` with this model.
            policy: plans `continue_` with this policy.
            prm: plans `score` with this PRM.
            options: further options of the command by name, e.g. `votes=3`, `k=4`, `mc_name="m"`.

        Raises:
            InputError: there is no stage, or an option has no effect on those given.
            TypeError: no stage has such an option.
        """
        chosen = {"dataset": dataset, "judge": judge, "policy": policy, "prm": prm, **options}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        if chosen:
            stages = [*stages, *planning.stages_of(chosen)]
        return run_verb(self, planning.plan, planning.PlanOptions(stages=stages))

    score = verb(scoring_run.ScoreOptions, scoring_run.score)
    """Score every step with a process reward model."""

    train = verb(training.TrainOptions, training.train)
    """Train a process reward model from the labels of one labeler."""

    evaluate = standings.evaluate_method(evaluating.EvaluateOptions)
    """Measure labelers against gold by one of the field's protocols."""

    compare = verb_of_several(comparing.CompareOptions, comparing.compare)
    """Compare labelers: how far they agree, and where they do not."""

    best_of_n = choosing.best_of_n_method(choosing.BestOfNOptions)
    """Choose among N candidates by score and by majority."""

    report = verb(reporting.ReportOptions, reporting.report)
    """Write a page on the labelers of a dataset."""

    labels = verb(contents.LabelsOptions, contents.labels)
    """The stored labels of one labeler: an iterable of `TraceLabel` with `frame()`."""

    import_ = verb(exchange.ImportOptions, exchange.import_)
    """Import traces with the labels they carry."""
    import_scores = verb(exchange.ScoresOptions, exchange.import_scores)
    """Import a third party's scores, verdicts, or first errors, matched by trace id."""
    export = verb(exporting.ExportOptions, exporting.export)
    """Write the labels of one labeler to a file."""
    corpus_add = verb_of_several(corpora.CorpusAddOptions, corpora.corpus_add)
    """Split documents into passages."""
    corpus_list = verb(corpora.CorpusListOptions, corpora.corpus_list)
    """List the corpora with their size and license."""
    corpus_show = verb(showing.CorpusShowOptions, showing.corpus_show)
    """Show a document as it was indexed, with its passages."""
    corpus_remove = verb(corpora.CorpusRemoveOptions, corpora.corpus_remove)
    """Remove a corpus or one document."""
    db_vacuum = verb(databases.DbVacuumOptions, databases.db_vacuum)
    """Give the free space of the database back to its disk."""
    db_backup = verb(databases.DbBackupOptions, databases.db_backup)
    """Copy the SQLite database to a new file while others go on using it."""
    db_copy = verb(databases.DbCopyOptions, databases.db_copy)
    """Copy a database into an empty one, or finish a copy, and compare all rows."""
    db_check = verb(databases.DbCheckOptions, databases.db_check)
    """Check the database for damage, and count its rows."""
    index = verb(searching.IndexOptions, searching.index)
    """Bring the index over all corpora up to date."""
    search = verb(searching.SearchOptions, searching.search)
    """Find the passages for a text."""
    retrieve = verb(retrieval.RetrieveOptions, retrieval.retrieve)
    """Find evidence for problems that have none yet, or measure how well it is found."""
    overlap = verb_of_several(overlap.OverlapOptions, overlap.overlap)
    """Find problems of a dataset in training sets."""
    verify = verb(verifying.VerifyOptions, verifying.verify_release)
    """Check a release: every byte, no file more or less, and the counts of its card."""
    show = verb(showing.ShowOptions, showing.show)
    """Show a trace with its evidence and what every labeler says of it."""
    review_export = verb(review_files.ReviewExportOptions, review_files.review_export)
    """Write the log of the experts' answers to a file."""
    review_import = verb_of_several(review_files.ReviewImportOptions, review_files.review_import)
    """Read experts' answers from files."""
    status = verb(contents.StatusOptions, contents.status)
    """Show datasets, labelers, failures and spending."""
    doctor = verb(doctor.DoctorOptions, doctor.doctor)
    """Check installation, GPU, keys and workspace."""
    remove_dataset = verb(removing.RemoveDatasetOptions, removing.remove_dataset)
    """Remove a dataset with all its labels."""
    remove_labeler = verb(removing.RemoveLabelerOptions, removing.remove_labeler)
    """Remove the labels of one labeler."""

    trust = verb(trust.TrustOptions, trust.trust)
    """Trust the folder's stepgold.toml as it is now; until then some of its keys are refused."""

    demo = verb(demo.DemoOptions, demo.demo)
    """Run the whole pipeline on the bundled lab, in a folder of its own."""
    run = verb(config_run.RunOptions, run_pipeline)
    """Run every stage that has a table in a TOML file."""
