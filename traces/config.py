"""Options declared once: a stage's config carries the help, range, and flag of every field.

The Python API takes these dataclasses, the command line is generated from them, and the store
keeps what they say, so that a default or a range exists in one place.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from traces.errors import InputError, meant

Style = Literal["option", "argument", "escaped", "python"]
"""option: `--name VALUE`. argument: positional. escaped: an option in which `\\n` means a line
break. python: for the Python API only."""

StrPath = str | os.PathLike[str]
"""A path as a user gives it; `Config` turns it into a `Path`."""

Paths = StrPath | Sequence[StrPath]
"""One path or several; `paths_of` reads it."""

_METADATA = "stepgold.option"


@dataclass(frozen=True, slots=True)
class Need:
    """What has to be given too for an option to have an effect."""

    option: str
    """How a user writes it, e.g. `--votes N`."""
    met: Callable[[Any], bool]
    """Tells from the config whether it is given."""


@dataclass(frozen=True, slots=True)
class Option:
    """How a field is written on the command line, and what it may be."""

    help: str
    """What it does, its unit and its default."""
    flags: tuple[str, ...]
    """Flags as typed; empty for `--field-name`."""
    metavar: str | None
    """Placeholder of the value in help texts."""
    between: tuple[float | None, float | None]
    """Smallest and largest value; None where there is no limit."""
    choices: tuple[str, ...]
    """The values it may have; empty for any."""
    needs: Need | None
    """What it needs to have an effect."""
    style: Style
    """Where it is written."""


def option(
    *,
    default: Any = MISSING,
    help: str,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
    between: tuple[float | None, float | None] = (None, None),
    choices: Collection[str] = (),
    needs: Need | None = None,
    style: Style = "option",
) -> Any:
    """Declare a field of a config, see `Option`. Without a default it is required."""
    declared = Option(
        help=help,
        flags=flags,
        metavar=metavar,
        between=between,
        choices=tuple(choices),
        needs=needs,
        style=style,
    )
    return field(default=default, metadata={_METADATA: declared})


def argument(*, kw_only: Literal[False], help: str, metavar: str, default: Any = MISSING) -> Any:
    """Declare a positional field of a config; type checkers read `kw_only=False` from the call."""
    declared = Option(
        help=help,
        flags=(),
        metavar=metavar,
        between=(None, None),
        choices=(),
        needs=None,
        style="argument",
    )
    return field(default=default, kw_only=kw_only, metadata={_METADATA: declared})


@typing.dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(option, argument)
)
class Config:
    """Base of all configs: subclasses are frozen, keyword-only dataclasses.

    Their fields are made by `option`. Strings become paths where a field is a `StrPath`,
    and a field that takes a sequence takes a single value too.
    """

    inherited_needs: ClassVar[Mapping[str, Need]] = {}
    """What fields of base classes need in this config, by field name."""
    not_with_json: ClassVar[tuple[str, ...]] = ()
    """Fields that cannot be given beside `--json`, because they print something else."""

    def __init_subclass__(cls) -> None:
        """Make the subclass a dataclass."""
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        """Convert and check every field.

        Raises:
            InputError: a value is outside its range or not one of its choices.
        """
        for name, kind, declared in declared_options(type(self)):
            value: Any = _converted(getattr(self, name), kind)
            object.__setattr__(self, name, value)
            _require_type(flag_of(name, declared), value, kind)
            if value is not None:
                _check(flag_of(name, declared), value, declared)
        self.check()

    def check(self) -> None:
        """Refuse fields that do not fit each other; configs override it.

        Raises:
            InputError: they do not.
        """

    def refuse_idle(self, given: Collection[str] | None = None) -> None:
        """Refuse options that have no effect beside the others.

        Args:
            given: the fields that the user set; None takes those that differ from their default.

        Raises:
            InputError: one of them lacks what it needs.
        """
        idle: dict[str, list[str]] = {}
        for name, _, declared in declared_options(type(self)):
            need = declared.needs or self.inherited_needs.get(name)
            set_here = self._is_set(name) if given is None else name in given
            if need is not None and set_here and not need.met(self):
                idle.setdefault(need.option, []).append(flag_of(name, declared))
        for needed, flags in idle.items():
            it = "it" if len(flags) == 1 else "them"
            raise InputError(
                f"{', '.join(flags)} has no effect without {needed}.",
                where=flags[0],
                remedy=f"add {needed}, or leave {it} out",
            )

    def changed(self, names: Collection[str]) -> frozenset[str]:
        """Those of these fields that differ from their default."""
        return frozenset(name for name in names if self._is_set(name))

    def but(self, **changes: Any) -> Self:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def _is_set(self, name: str) -> bool:
        return bool(getattr(self, name) != defaults_of(type(self))[name])


def declared_options(config: type) -> tuple[tuple[str, Any, Option], ...]:
    """Name, type and declaration of every field that was made by `option`, in order."""
    return _declared(config)


@cache
def _declared(config: Any) -> tuple[tuple[str, Any, Option], ...]:
    hints = typing.get_type_hints(config)
    return tuple(
        (each.name, hints[each.name], each.metadata[_METADATA])
        for each in dataclasses.fields(config)
        if _METADATA in each.metadata
    )


def defaults_of(config: type) -> dict[str, Any]:
    """The default of every field; `dataclasses.MISSING` where one is required."""
    return _defaults(config)


@cache
def _defaults(config: Any) -> dict[str, Any]:
    return {each.name: each.default for each in dataclasses.fields(config)}


def is_path(kind: Any) -> bool:
    """Whether a field's type is a path."""
    return any(typing.get_origin(part) is os.PathLike for part in parts_of(kind))


def flag_of(name: str, declared: Option) -> str:
    """How an option is written first, e.g. `--max-tokens`; a positional argument by its metavar."""
    if declared.style == "argument":
        return declared.metavar or name.upper()
    return declared.flags[0].split("/")[0] if declared.flags else f"--{name.replace('_', '-')}"


def paths_of(paths: Paths) -> tuple[Path, ...]:
    """One path or several as a tuple."""
    each = (paths,) if isinstance(paths, str | os.PathLike) else paths
    return tuple(map(Path, each))


def is_sequence(kind: Any) -> bool:
    """Whether a field takes several values."""
    return any(typing.get_origin(part) is Sequence for part in parts_of(kind))


def parts_of(kind: Any) -> Iterator[Any]:
    """The members of a union type, or the type itself."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        for part in typing.get_args(kind):
            yield from parts_of(part)
    else:
        yield kind


def _converted(value: Any, kind: Any) -> Any:
    parts = tuple(parts_of(kind))
    for part in parts:
        if typing.get_origin(part) is Sequence and value is not None:
            if isinstance(value, Mapping):
                return value
            (inner,) = typing.get_args(part)
            values = (value,) if isinstance(value, str | os.PathLike) else value
            texts = str in parts_of(inner)
            if not isinstance(values, Iterable) or (
                texts and not all(isinstance(each, str | os.PathLike) for each in values)
            ):
                raise InputError(f"The value {value!r} is no list of texts.", remedy='["A", "B"]')
            return tuple(_converted(each, inner) for each in values)
    if isinstance(value, str) and is_path(kind):
        return Path(value)
    return value


_TAKES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _require_type(flag: str, value: Any, kind: Any) -> None:
    """Refuse a value of another type; fields of other types than the simple ones check themselves.

    Raises:
        InputError: it is, e.g. text for a number.
    """
    parts = set(parts_of(kind))
    if any(typing.get_origin(part) is Literal for part in parts):
        parts = {str, *(part for part in parts if typing.get_origin(part) is not Literal)}
    simple = parts & _TAKES.keys()
    if not simple or parts - simple - {type(None)}:
        return
    if value is None and type(None) in parts:
        return
    taken = tuple(simple | {int}) if float in simple else tuple(simple)
    if isinstance(value, taken) and (bool in simple or not isinstance(value, bool)):
        return
    raise InputError(
        f"{flag} takes {' or '.join(sorted(_TAKES[part] for part in simple))}, not {value!r}.",
        where=flag,
        remedy="correct the value",
    )


def _check(flag: str, value: Any, declared: Option) -> None:
    low, high = declared.between
    if declared.choices and value not in declared.choices:
        raise InputError(
            f"{value!r} is not a value of {flag}.",
            where=flag,
            remedy=meant(str(value), declared.choices, f"use one of {', '.join(declared.choices)}"),
        )
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        limits = [f"at least {low}" if low is not None else "", f"at most {high}" if high else ""]
        raise InputError(
            f"{flag} is {value}.",
            where=flag,
            remedy=f"use a value of {' and '.join(each for each in limits if each)}",
        )
