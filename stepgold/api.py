"""The public Python API: a workspace with one method per verb."""

from __future__ import annotations

from stepgold import (
    again,
    agreeing,
    candidates,
    continuing,
    evaluating,
    judging,
    planning,
    sampling,
    scoring_run,
    stored_labels,
)
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

    sample = verb(sampling.SampleOptions, sampling.sample)
    """Sample candidate traces for problems from a policy."""

    continue_ = verb(continuing.ContinueOptions, continuing.continue_)
    """Label steps by Monte Carlo continuation of every prefix."""

    consensus = verb(agreeing.ConsensusOptions, agreeing.consensus)
    """Keep the labels on which a judge and a Monte Carlo labeler agree."""

    retry = verb(again.RetryOptions, again.retry)
    """Ask again what failed or could not be read, with the labelers' stored configurations."""

    plan = verb(planning.PlanOptions, planning.plan)
    """Estimate calls, cost and time of stages, given their options; nothing is sent or written."""

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
