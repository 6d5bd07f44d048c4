"""Relevance judgements: TREC's qrels, or JSONL.

TREC: `PROBLEM ITERATION DOCUMENT GRADE`, separated by white space, as trec_eval reads it; the
iteration is not looked at, a grade below 0 counts as 0.
JSONL: `{"problem_id": "q1", "document": "dosing.md"}`, or `"problem": "<the question>"` for problems
without an id of their own; `"relevance"` (a whole number, 1 if it is not there) is the grade and
`"decisive"` a text that the passage must hold to decide the problem.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from traces import Relevance, TraceFormatError

_TREC_FIELDS = 4


def read_qrels(path: Path) -> list[Relevance]:
    """Read all judgements of a file, plain or gzipped; the same one twice counts once.

    Raises:
        TraceFormatError: the file cannot be read, holds no judgement, a line is none, or two lines judge a
            pair differently; a measure over a part of the judgements would be another measure.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as fault:
        raise TraceFormatError(
            f"The relevance judgements cannot be read ({fault}).",
            where=str(path),
            remedy="give TREC qrels or JSONL, in UTF-8",
        ) from fault
    judged: dict[tuple[str, str, bool], tuple[int, Relevance]] = {}
    # Not splitlines: a question may hold U+2028, which JSON leaves as it is.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = _from_json(json.loads(line)) if line.lstrip()[0] == "{" else _from_trec(line)
            key = found.problem, found.document, found.by_text
            first, before = judged.setdefault(key, (number, found))
            if before != found:
                raise ValueError(f"line {first} judges this pair otherwise")
        except (ValueError, RecursionError) as fault:
            raise TraceFormatError(
                f"The line is no relevance judgement: {fault}.",
                where=f"{path}, line {number}",
                remedy="write 'PROBLEM 0 DOCUMENT GRADE' or"
                ' {"problem_id": ..., "document": ..., "relevance": ...}',
            ) from fault
    if not judged:
        raise TraceFormatError("The file holds no relevance judgement.", where=str(path))
    return [found for _, found in judged.values()]


def _from_trec(line: str) -> Relevance:
    fields = line.split()
    if len(fields) != _TREC_FIELDS:
        raise ValueError(f"it has {len(fields)} fields, not {_TREC_FIELDS}")
    problem, _, document, grade = fields
    return Relevance(problem, document, max(0, int(grade)))


def _from_json(row: Any) -> Relevance:
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    by_text = "problem_id" not in row
    problem = row.get("problem" if by_text else "problem_id")
    document, grade, decisive = row.get("document"), row.get("relevance", 1), row.get("decisive")
    if not isinstance(problem, str) or not isinstance(document, str):
        raise ValueError("'problem_id' (or 'problem') and 'document' must be texts")
    if not isinstance(grade, int) or isinstance(grade, bool):
        raise ValueError("'relevance' must be a whole number")
    if decisive is not None and (not isinstance(decisive, str) or not decisive.strip()):
        raise ValueError("'decisive' must be a text")
    return Relevance(problem, document, max(0, grade), decisive, by_text)
