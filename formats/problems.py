"""Problems without traces, one a line: what `stepgold sample --problems` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from traces import Problem, TraceFormatError

_FIELDS = {"id", "problem", "options", "answer", "images", "meta"}


def read_problems(path: Path) -> list[Problem]:
    """Read `{"id","problem","options"?,"answer"?,"images"?,"meta"?}` rows: our `traces` rows less steps.

    Raises:
        TraceFormatError: the file cannot be read, or a row is no problem; nothing is skipped.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise TraceFormatError(
            f"The problems cannot be read: {fault}.", where=path.name, remedy="give a UTF-8 .jsonl"
        ) from fault
    found: dict[str, Problem] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        problem = _problem(line, where)
        if problem.id in found:
            raise _fault(f"the id {problem.id!r} comes twice", where)
        found[problem.id] = problem
    if not found:
        raise _fault("the file has no problems", path.name)
    return list(found.values())


def _problem(line: str, where: str) -> Problem:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as fault:
        raise _fault(f"no JSON: {fault}", where) from fault
    if not isinstance(row, dict):
        raise _fault("the row is no JSON object", where)
    unknown = sorted(set(row) - _FIELDS)
    if unknown:
        raise _fault(f"unknown field {unknown[0]!r}", where)
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise _fault('"meta" is no object', where)
    return Problem(
        _text(row, "id", where),
        _text(row, "problem", where),
        _texts(row, "options", where),
        None if row.get("answer") is None else _text(row, "answer", where),
        _texts(row, "images", where),
        meta,
    )


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _fault(f'"{name}" is no text', where)
    return value


def _texts(row: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _fault(f'"{name}" is no list of texts', where)
    return tuple(value)


def _fault(what: str, where: str) -> TraceFormatError:
    return TraceFormatError(
        f"A problem cannot be read: {what}.",
        where=where,
        remedy='rows are {"id", "problem", "options"?, "answer"?, "images"?, "meta"?}',
    )
