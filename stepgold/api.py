"""The public Python API: a workspace with one method per verb."""

from __future__ import annotations

from stepgold import again, agreeing, continuing, judging, planning, sampling
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
