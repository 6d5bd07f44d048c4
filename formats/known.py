"""All file formats, and which of them a row looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from formats import math_shepherd, medprm, mr_ben, processbench, traces_jsonl, trl
from formats.file_format import FileFormat
from traces.errors import InputError

# The most telling keys first: a processbench row has all keys of a row of ours.
KNOWN: Mapping[str, FileFormat] = {
    known.FORMAT.name: known.FORMAT
    for known in (mr_ben, medprm, math_shepherd, trl, processbench, traces_jsonl)
}
IMPORT_FORMATS = tuple(sorted(KNOWN))
"""Formats that `read_file` takes."""
EXPORT_FORMATS = tuple(name for name in IMPORT_FORMATS if KNOWN[name].render is not None)
"""Formats that `write_file` takes."""


def format_named(name: str, among: tuple[str, ...]) -> FileFormat:
    """The format of that name; InputError lists the known ones."""
    if name not in among:
        raise InputError(
            f"There is no format '{name}' here.", remedy=f"use one of {', '.join(among)}"
        )
    return KNOWN[name]


def guess_format(row: Mapping[str, Any]) -> str | None:
    """The name of the format a row looks like; None if it looks like none.

    >>> guess_format({"id": "a", "problem": "p", "steps": ["s"], "label": -1})
    'processbench'
    >>> guess_format({"id": "a", "scores": [0.5]})
    'scores'
    """
    for name, known in KNOWN.items():
        if known.fits(row):
            return name
    if "id" in row and row.keys() & {"scores", "verdicts", "first_error"}:
        return "scores"
    lists = [value for value in row.values() if isinstance(value, list) and value]
    if lists and len(lists) == len(row) and isinstance(lists[0][0], dict):
        return guess_format(lists[0][0])
    return None
