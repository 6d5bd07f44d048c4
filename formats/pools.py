"""Files of best-of-N pools and of the step scores for them, matched by problem and candidate, never zipped.

Pool rows: `{"problem_id": "gsm8k_000", "candidate_index": 0, "answer": "18", "is_correct": true,
"ground_truth": "18"}`, with `n_steps` where it is known. Score rows: `{"problem_id", "candidate_index",
"step_scores": [0.98, ..]}`; null for a candidate that could not be scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from formats.files.container import RawRow, read_rows
from formats.rows import RowFault, text_of
from traces import TraceFormatError

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One candidate of a pool file."""

    problem_id: str
    """Its problem."""
    candidate_index: int
    """Its place among the problem's candidates; 0-based in the files we know."""
    answer: str | None
    """Its answer, a raw string; None if it has none."""
    is_correct: bool | None
    """Whether the answer is right; None if the file does not say."""
    n_steps: int | None
    """Number of its steps; None if the file does not say."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One row of a score file."""

    problem_id: str
    """The problem."""
    candidate_index: int
    """The candidate."""
    step_scores: tuple[float, ...] | None
    """In [0, 1], at least one; None if the candidate, or a step of it, has none."""
    line: int
    """1-based line, or position in a JSON list."""


def read_pool(path: Path) -> list[PoolRow]:
    """The candidates of a pool file, in its order.

    Raises:
        TraceFormatError: the file cannot be read, a row is faulty, or a candidate stands twice.
    """
    return _rows(path, _pool_row, lambda row: (row.problem_id, row.candidate_index))


def read_pool_scores(path: Path) -> list[ScoreRow]:
    """The rows of a score file, in its order.

    Raises:
        TraceFormatError: the file cannot be read, a row is faulty, or a candidate stands twice.
    """
    return _rows(path, _score_row, lambda row: (row.problem_id, row.candidate_index))


def _rows(
    path: Path, parse: Callable[[RawRow], Row], key: Callable[[Row], tuple[str, int]]
) -> list[Row]:
    """Every row or none: a figure over part of a pool would look like one over the whole."""
    return list(_checked(path, parse, key))


def _checked(
    path: Path, parse: Callable[[RawRow], Row], key: Callable[[Row], tuple[str, int]]
) -> Iterator[Row]:
    seen: dict[tuple[str, int], int] = {}
    for raw in read_rows(path):
        try:
            if raw.fault is not None:
                raise RowFault(f"the row {raw.fault}")
            row = parse(raw)
            first = seen.setdefault(key(row), raw.line)
            if first != raw.line:
                problem, index = key(row)
                raise RowFault(
                    f"candidate {index} of problem '{problem}' stands in line {first} too"
                )
        except RowFault as fault:
            what = str(fault)
            raise TraceFormatError(
                f"{what[0].upper()}{what[1:]}.",
                where=f"{path}:{raw.line}",
                remedy="correct or remove that row",
            ) from fault
        yield row


def _pool_row(raw: RawRow) -> PoolRow:
    row = raw.value
    right = _required(row, "is_correct")
    if right is not None and not isinstance(right, bool):
        raise RowFault(f"'is_correct' is {right!r}, not true, false or null")
    n_steps = row.get("n_steps")
    if n_steps is not None and not _is_count(n_steps):
        raise RowFault(f"'n_steps' is {n_steps!r}, not a count")
    answer = _required(row, "answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and not isinstance(answer, str):
        raise RowFault("'answer' is not a text, a number or null")
    blank = answer is None or not answer.strip()
    return PoolRow(
        text_of(row, "problem_id"), _index(row), None if blank else answer, right, n_steps
    )


def _score_row(raw: RawRow) -> ScoreRow:
    row = raw.value
    scores = _required(row, "step_scores")
    if scores is not None and not isinstance(scores, list):
        raise RowFault("'step_scores' is no list")
    for position, score in enumerate(scores or ()):
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if score is not None and not (number and 0 <= score <= 1):
            raise RowFault(
                f"'step_scores' holds {score!r} at position {position + 1}, not a number in [0, 1]"
            )
    complete = bool(scores) and None not in (scores or ())
    return ScoreRow(
        text_of(row, "problem_id"),
        _index(row),
        tuple(map(float, scores)) if scores and complete else None,
        raw.line,
    )


def _required(row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        raise RowFault(f"'{key}' is missing")
    return row[key]


def _index(row: Mapping[str, Any]) -> int:
    index = _required(row, "candidate_index")
    if not _is_count(index):
        raise RowFault(f"'candidate_index' is {index!r}, not a number from 0 on")
    return int(index)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
