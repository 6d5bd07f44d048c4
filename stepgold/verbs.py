"""Verbs: a config and the function that runs it, joined into a method of the workspace."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from stepgold.console import session
from stepgold.results import Result
from traces import Config, defaults_of

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder

P = ParamSpec("P")
C = TypeVar("C", bound=Config)
R = TypeVar("R", bound=Result)


def run_verb(
    workspace: WorkspaceFolder,
    run: Callable[[WorkspaceFolder, C], R],
    config: C,
    given: frozenset[str] | None = None,
) -> R:
    """Run a verb on a workspace; the result carries the notes of the run.

    Args:
        workspace: the workspace; decides whether progress is shown.
        run: the verb.
        config: its options.
        given: the options that the user set; None for those that differ from their default.
    """
    config.refuse_idle(given)
    with session(shown=workspace.progress) as notes:
        result = run(workspace, config)
    return replace(result, notes=tuple(notes))


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb that the command line and `run` find by name."""

    config: type[Config]
    """Its options."""
    run: Callable[[Any, Any], Result]
    """The function that takes a workspace and its options."""

    def is_required(self, field: str) -> bool:
        """Whether a field of its options has no default."""
        return defaults_of(self.config)[field] is MISSING


def verb(
    config: Callable[P, C], run: Callable[[WorkspaceFolder, C], R]
) -> Callable[Concatenate[WorkspaceFolder, P], R]:
    """A method of `WorkspaceFolder` that takes the fields of `config` and calls `run`."""

    @wraps(run)
    def method(self: WorkspaceFolder, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run_verb(self, run, config(*args, **kwargs))

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    fields = inspect.signature(config).parameters.values()
    method.__signature__ = inspect.Signature([own, *fields])  # type: ignore[attr-defined]
    return method
