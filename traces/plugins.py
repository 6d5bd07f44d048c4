"""Plug-ins that other installed distributions register through entry points.

A distribution adds a plug-in with a table in its pyproject.toml, for example
`[project.entry-points."stepgold.families"]` followed by `my-family = "my_package:FAMILY"`.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

from traces.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def load_plugins(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, in alphabetical order; imports none of them.

    Raises:
        InputError: two distributions register the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in _registered(group, tuple(sys.path)):
        first = found.setdefault(entry.name, entry)
        if (first.value, distribution_of(first)) != (entry.value, distribution_of(entry)):
            raise InputError(
                f"Two plug-ins of '{group}' are named '{entry.name}'.",
                where=f"distributions '{distribution_of(first)}' and '{distribution_of(entry)}'",
                remedy=f"pip uninstall {distribution_of(entry)}",
            )
    return found


@cache
def _registered(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of all distributions on the path; looking through them takes 6 ms."""
    from importlib.metadata import entry_points  # imports the email package: 20 ms

    found = entry_points(group=group)
    return tuple(sorted(found, key=lambda entry: (entry.name, entry.value)))


def load_plugin(entry: EntryPoint) -> object:
    """Import the object that an entry point names.

    Raises:
        InputError: the import fails for any reason; names the distribution.
    """
    try:
        plugin: object = entry.load()
    except Exception as error:
        raise broken_plugin(entry, f"{type(error).__name__}: {error}") from error
    return plugin


def broken_plugin(entry: EntryPoint, reason: str) -> InputError:
    """Return the error for a plug-in that cannot be used, naming its distribution."""
    name = distribution_of(entry)
    return InputError(
        f"Plug-in '{entry.name}' of distribution '{name}' cannot be used: {reason}",
        where=f"entry point '{entry.name} = {entry.value}' of group '{entry.group}'",
        remedy=f"pip install --upgrade {name}   (or: pip uninstall {name})",
    )


def distribution_of(entry: EntryPoint) -> str:
    """Return the name of the distribution that registers an entry point."""
    return entry.dist.name if entry.dist is not None else "unknown"
