"""The public Python API: a workspace with one method per verb."""

from __future__ import annotations

from stepgold import judging
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
