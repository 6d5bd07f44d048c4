"""Verbs: a config and the function that runs it, joined into a method of the workspace."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, replace
from functools import wraps
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from stepgold.console import session
from stepgold.results import Result
from traces import Config, StrPath, declared_options, defaults_of, is_sequence

if TYPE_CHECKING:
    from stepgold.workspace import WorkspaceFolder

P = ParamSpec("P")
C = TypeVar("C", bound=Config)
R = TypeVar("R", bound=Result)
R_co = TypeVar("R_co", bound=Result, covariant=True)


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


class Several(Protocol[P, R_co]):
    """A method that takes several names or paths as a list, or one after the other."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self, first: StrPath, second: StrPath, /, *more: StrPath, **options: Any
    ) -> R_co: ...


class SeveralMethod(Protocol[P, R_co]):
    """A `Several` as an attribute of a class."""

    def __get__(self, workspace: WorkspaceFolder, owner: type, /) -> Several[P, R_co]: ...


def verb(
    config: Callable[P, C], run: Callable[[WorkspaceFolder, C], R]
) -> Callable[Concatenate[WorkspaceFolder, P], R]:
    """A method of `WorkspaceFolder` that takes the fields of `config` and calls `run`."""

    @wraps(run)
    def method(self: WorkspaceFolder, /, *args: P.args, **kwargs: P.kwargs) -> R:
        kind = cast(type[C], config)
        named: dict[str, Any] = dict(**_named(kind, args), **kwargs)
        defaults = self.defaults_of(kind)
        for name in defaults.keys() - named.keys():
            value = defaults[name]
            named[name] = value() if callable(value) else value
        options = kind(**named)
        given = options.changed(kwargs) if defaults else None
        return run_verb(self, run, options, given)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    fields = inspect.signature(config).parameters.values()
    method.__signature__ = inspect.Signature([own, *fields])  # type: ignore[attr-defined]
    return method


def verb_of_several(
    config: Callable[P, C], run: Callable[[WorkspaceFolder, C], R]
) -> SeveralMethod[P, R]:
    """Like `verb`, for type checkers: a positional field that takes a list also takes its parts."""
    return cast(SeveralMethod[P, R], verb(config, run))


def _named(config: type[Config], args: tuple[Any, ...]) -> dict[str, Any]:
    """Positional arguments by field; what is left over joins a last field that takes several.

    Raises:
        TypeError: there are too many.
    """
    declared = [each for each in declared_options(config) if each[2].style == "argument"]
    count = len(declared)
    if declared and len(args) > count and is_sequence(declared[-1][1]):
        args = (*args[: count - 1], args[count - 1 :])
    if len(args) > count:
        raise TypeError(f"{config.__name__} takes {count} positional arguments, not {len(args)}")
    return {name: value for (name, _, _), value in zip(declared, args, strict=False)}
