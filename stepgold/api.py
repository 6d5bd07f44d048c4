"""The public Python API: a workspace with one method per verb."""

from __future__ import annotations

from stepgold import candidates, evaluating, judging, scoring_run, stored_labels
from stepgold import report as reporting
from stepgold.verbs import verb
from stepgold.workspace import WorkspaceFolder


class Workspace(WorkspaceFolder):
    """A folder with a database, an index, and a method for every command.

    Methods have the names, defaults, and effects of the commands; they return results with
    `as_json()`, text for a person (`str`), and `frame()`. Run again after an interruption, a method
    does only what is missing.
    """

    judge = verb(judging.JudgeOptions, judging.judge)
    """Put verdicts on steps with a judge model, grounded in the retrieved evidence."""

    score = verb(scoring_run.ScoreOptions, scoring_run.score)
    """Score every step with a process reward model."""

    evaluate = verb(evaluating.EvaluateOptions, evaluating.evaluate)
    """Measure a labeler against gold by one of the field's protocols."""

    compare = verb(evaluating.CompareOptions, evaluating.compare)
    """Compare labelers: how far they agree, and where they do not."""

    best_of_n = verb(candidates.BestOfNOptions, candidates.best_of_n)
    """Choose among N candidates by score and by majority."""

    report = verb(reporting.ReportOptions, reporting.report)
    """Write a page on the labelers of a dataset."""

    labels = verb(stored_labels.LabelsOptions, stored_labels.labels)
    """The stored labels of one labeler: an iterable of `TraceLabel` with `frame()`."""
