"""The file formats by name: built-in ones, and those of other installed distributions.

A built-in format is a `FileFormat` in a module of `formats.field`. Another distribution adds one
with an entry point of the group `stepgold.formats` that names a `FileFormat`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from formats import field
from formats.rows import FileFormat
from traces import InputError, meant
from traces.plugins import broken_plugin, load_plugin, load_plugins

GROUP = "stepgold.formats"


@cache
def built_in_formats() -> Mapping[str, FileFormat]:
    """Our formats by name, those with the most required keys first.

    A row that fits several formats belongs to the first one: a processbench row also has all keys
    of `traces`.
    """
    modules = [
        importlib.import_module(f"{field.__name__}.{found.name}")
        for found in pkgutil.iter_modules(field.__path__)
    ]
    found = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, FileFormat)
    ]
    found.sort(key=lambda known: (-len(known.required), known.name))
    return {known.name: known for known in found}


@cache
def field_names() -> frozenset[str]:
    """Keys by which rows of our formats are recognized."""
    return frozenset().union(*(known.required for known in built_in_formats().values()))


def import_formats() -> tuple[str, ...]:
    """Names of the formats that can be read, plug-ins included."""
    readable = {name for name, known in built_in_formats().items() if known.parse is not None}
    return tuple(sorted(readable | load_plugins(GROUP).keys()))


def export_formats() -> tuple[str, ...]:
    """Names of the formats that can be written, plug-ins included."""
    writable = {name for name, known in built_in_formats().items() if known.render is not None}
    return tuple(sorted(writable | load_plugins(GROUP).keys()))


def format_named(name: str, among: tuple[str, ...]) -> FileFormat:
    """The format of that name; a plug-in is imported only here.

    Raises:
        InputError: the name is not in `among`, or the plug-in cannot be used.
    """
    if name not in among:
        remedy = meant(name, among, f"use one of {', '.join(among)}")
        raise InputError(f"Unknown format '{name}'.", remedy=remedy)
    known = built_in_formats().get(name)
    return _plugin(name) if known is None else known


def _plugin(name: str) -> FileFormat:
    entry = load_plugins(GROUP)[name]
    found = load_plugin(entry)
    if not isinstance(found, FileFormat):
        raise broken_plugin(entry, f"its type is {type(found).__name__}, not formats.FileFormat")
    if found.name != name:
        raise broken_plugin(entry, f"its FileFormat is named '{found.name}'")
    return found


def guess_format(
    row: Mapping[str, Any],
    *,
    accepts: Callable[[FileFormat, Mapping[str, Any]], bool] | None = None,
) -> str | None:
    """The name of the built-in format a row looks like; None if it looks like none.

    Args:
        row: from a file of unknown format.
        accepts: whether a format whose keys the row has can read it; None for always.

    >>> guess_format({"id": "a", "problem": "p", "steps": ["s"], "label": -1})
    'processbench'
    >>> guess_format({"id": "a", "scores": [0.5]})
    'scores'
    """
    for name, known in built_in_formats().items():
        fits = known.parse is not None and known.fits(row)
        if fits and (accepts is None or accepts(known, row)):
            return name
    if "id" in row and row.keys() & {"scores", "verdicts", "first_error"}:
        return "scores"
    lists = [value for value in row.values() if isinstance(value, list) and value]
    if lists and len(lists) == len(row) and isinstance(lists[0][0], dict):
        return guess_format(lists[0][0], accepts=accepts)
    return None
