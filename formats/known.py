"""All file formats, and which of them a row looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from formats.field import (
    big_bench_mistake,
    case,
    math_shepherd,
    medprm,
    mr_ben,
    mr_gsm8k,
    openrlhf,
    prm800k,
    prmbench,
    processbench,
    qwen_prm,
    sharegpt,
    traces_jsonl,
    trl,
    visualprocessbench,
)
from formats.rows import FileFormat
from traces import InputError

# The most telling keys first: a processbench row has all keys of a row of ours.
KNOWN: Mapping[str, FileFormat] = {
    known.FORMAT.name: known.FORMAT
    for known in (
        mr_ben, mr_gsm8k, prmbench, medprm, visualprocessbench, prm800k, big_bench_mistake,
        math_shepherd, openrlhf, qwen_prm, sharegpt, trl, processbench, traces_jsonl,
    )
}  # fmt: skip
FIELD_NAMES = frozenset().union(*(known.required for known in KNOWN.values()))
"""Keys by which rows of any format are known."""
IMPORT_FORMATS = tuple(sorted(KNOWN))
"""Formats that `read_file` takes."""
WRITTEN: Mapping[str, FileFormat] = {
    **{name: known for name, known in KNOWN.items() if known.render is not None},
    "parquet": replace(traces_jsonl.FORMAT, name="parquet"),
    "case": case.FORMAT,
}
EXPORT_FORMATS = tuple(sorted(WRITTEN))
"""Formats that `write_file` takes."""


def format_named(name: str, among: tuple[str, ...]) -> FileFormat:
    """The format of that name; InputError lists the known ones."""
    if name not in among:
        raise InputError(
            f"There is no format '{name}' here.", remedy=f"use one of {', '.join(among)}"
        )
    return KNOWN[name] if name in KNOWN else WRITTEN[name]


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
