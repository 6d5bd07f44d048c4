"""Reads the files beside traces: scores, best-of-N pools, problems, relevance judgments, raw
text."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from formats.files.container import RawRow, is_object_of_lists, read_mapped_rows, read_rows
from formats.labels import read_label, text_or_number
from formats.registry import field_names
from formats.rows import (
    FileContext,
    RowFault,
    id_of,
    id_or_none,
    optional_bool_of,
    whole_number,
)
from formats.trace_files import checked_rows, file_stem
from traces import (
    Problem,
    RejectedRow,
    Relevance,
    TraceFormatError,
    TraceLabel,
    record_defect,
    whole_or_nothing,
)

_LABEL_KEYS = {"scores", "verdicts", "first_error"}
_REASON = "reason_correct"


def read_scores(
    path: Path, known: Mapping[str, int], *, columns: Sequence[int] = ()
) -> Iterator[TraceLabel | RejectedRow]:
    """Yield one label per usable row of a third party's outputs, and every row that fits no trace.

    A row is `{"id": <trace id>, "scores": [0.9, null, ..]}`, `{"id", "verdicts": [1, 0, -1, null]}`
    or `{"id", "first_error": 2 or null}`. Each may state whether the reason given for the first
    error is right (`"reason_correct": true, false or null`), which is part of MR-Score.

    Args:
        path: the file; a JSON list and gzip are read too.
        known: number of steps by trace id. The caller lists the traces without a row, since they
            may be in another file of the same call.
        columns: 0-based classes whose probabilities are added up where a step's score is a list of
            them, as ReasonEval's (wrong, neutral, right): 1 and 2 give its validity.

    Raises:
        TraceFormatError: the file cannot be read to its end or has no scores; while iterating.
    """
    with whole_or_nothing(path, error=TraceFormatError):
        yield from _score_labels(path, known, columns)


def _score_labels(
    path: Path, known: Mapping[str, int], columns: Sequence[int]
) -> Iterator[TraceLabel | RejectedRow]:
    file = FileContext(path=str(path), stem=file_stem(path))
    seen: set[str] = set()
    for row in checked_rows(read_rows(path), path, "scores", _is_score_row):
        try:
            if row.fault is not None:
                raise RowFault(f"the row {row.fault}")
            label = _score_label(row.value, known, columns)
            if label.trace_id in seen:
                raise RowFault("the id occurs twice in the file")
        except RowFault as fault:
            yield file.rejected(row, id_or_none(row.value, "id"), str(fault))
            continue
        except Exception as fault:
            # Foreign rows must not end an import, whatever we forgot about them.
            yield file.rejected(row, None, record_defect(fault, f"{path}, row {row.index + 1}"))
            continue
        seen.add(label.trace_id)
        yield label


def _is_score_row(row: Mapping[str, Any]) -> bool:
    return "id" in row and bool(row.keys() & _LABEL_KEYS)


def _score_label(
    row: Mapping[str, Any], known: Mapping[str, int], columns: Sequence[int]
) -> TraceLabel:
    trace_id = id_of(row, "id")
    if trace_id not in known:
        raise RowFault("the dataset has no trace with this id")
    entry = {key: row[key] for key in _LABEL_KEYS & row.keys()}
    if isinstance(entry.get("scores"), list):
        entry["scores"] = [_summed(score, columns) for score in entry["scores"]]
    reason = optional_bool_of(row, _REASON)
    meta = {} if reason is None else {_REASON: reason}
    return read_label(trace_id, entry | {"meta": meta}, known[trace_id])


def _summed(score: Any, columns: Sequence[int]) -> Any:
    """A score, or the sum of the chosen columns if it is a list of class probabilities."""
    if not isinstance(score, list):
        return score
    if not columns:
        raise RowFault(f"a score is a list of {len(score)} numbers: choose with --column")
    if not max(columns) < len(score):
        raise RowFault(f"a score has {len(score)} columns, there is no column {max(columns)}")
    chosen = [score[column] for column in columns]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in chosen):
        raise RowFault("a column of a score is not a number")
    total = math.fsum(chosen)
    return 1.0 if 1 < total < 1 + 1e-6 else total


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One candidate of a best-of-N pool file."""

    problem_id: str
    candidate_index: int
    """Position among the problem's candidates; 0-based in the files we know."""
    answer: str | None
    """As written; None if it has none."""
    is_correct: bool | None
    """None if the file does not say."""
    n_steps: int | None
    """None if the file does not say."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One row of a pool's score file."""

    problem_id: str
    candidate_index: int
    step_scores: tuple[float, ...] | None
    """In [0, 1], at least one; None if the candidate, or one of its steps, has no score."""
    line: int
    """1-based line, or position in a JSON list."""


def read_pool(path: Path) -> list[PoolRow]:
    """The candidates of a pool file, in file order.

    A row is `{"problem_id": "gsm8k_000", "candidate_index": 0, "answer": "18", "is_correct": true,
    "ground_truth": "18"}`, with `n_steps` where it is known.

    Raises:
        TraceFormatError: the file cannot be read, a row is faulty, or a candidate occurs twice.
    """
    with whole_or_nothing(path, error=TraceFormatError):
        return _all_rows(path, _pool_row)


def read_pool_scores(path: Path) -> list[ScoreRow]:
    """The rows of a pool's score file, in file order.

    A row is `{"problem_id", "candidate_index", "step_scores": [0.98, ..]}`; null for a candidate
    that could not be scored. Callers match rows by problem and candidate, not by order.

    Raises:
        TraceFormatError: the file cannot be read, a row is faulty, or a candidate occurs twice.
    """
    with whole_or_nothing(path, error=TraceFormatError):
        return _all_rows(path, _score_row)


PoolOrScore = TypeVar("PoolOrScore", PoolRow, ScoreRow)


def _all_rows(path: Path, parse: Callable[[RawRow], PoolOrScore]) -> list[PoolOrScore]:
    """Every row or none: figures over part of a pool would look like figures over all of it."""
    found: list[PoolOrScore] = []
    seen: dict[tuple[str, int], int] = {}
    for raw in read_rows(path):
        try:
            if raw.fault is not None:
                raise RowFault(f"the row {raw.fault}")
            row = parse(raw)
            first = seen.setdefault((row.problem_id, row.candidate_index), raw.line)
            if first != raw.line:
                raise RowFault(
                    f"candidate {row.candidate_index} of problem '{row.problem_id}' is also in"
                    f" line {first}"
                )
        except RowFault as fault:
            what = str(fault)
            raise TraceFormatError(
                f"{what[0].upper()}{what[1:]}.",
                where=f"{path}:{raw.line}",
                remedy="correct or remove that row",
            ) from fault
        found.append(row)
    return found


def _pool_row(raw: RawRow) -> PoolRow:
    row = raw.value
    right = _required(row, "is_correct")
    if right is not None and not isinstance(right, bool):
        raise RowFault(f"'is_correct' is {right!r}, not true, false or null")
    answer = _required(row, "answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and not isinstance(answer, str):
        raise RowFault("'answer' is not a text, a number or null")
    return PoolRow(
        problem_id=id_of(row, "problem_id"),
        candidate_index=_count(row, "candidate_index"),
        answer=answer if answer is not None and answer.strip() else None,
        is_correct=right,
        n_steps=None if row.get("n_steps") is None else _count(row, "n_steps"),
    )


def _score_row(raw: RawRow) -> ScoreRow:
    row = raw.value
    scores = _required(row, "step_scores")
    if scores is not None and not isinstance(scores, list):
        raise RowFault("'step_scores' is not a list")
    for position, score in enumerate(scores or (), 1):
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if score is not None and not (number and 0 <= score <= 1):
            raise RowFault(
                f"'step_scores' has {score!r} at position {position}, not a number in [0, 1]"
            )
    complete = bool(scores) and None not in (scores or ())
    return ScoreRow(
        id_of(row, "problem_id"),
        _count(row, "candidate_index"),
        tuple(map(float, scores)) if scores and complete else None,
        raw.line,
    )


def _required(row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        raise RowFault(f"'{key}' is missing")
    return row[key]


def _count(row: Mapping[str, Any], key: str) -> int:
    value = _required(row, key)
    count = whole_number(value)
    if count is None or count < 0:
        raise RowFault(f"'{key}' is {value!r}, not a whole number from 0")
    return count


_PROBLEM_KEYS = {"id", "problem", "options", "answer", "images", "meta"}


def read_problems(path: Path) -> list[Problem]:
    """Read problems without traces, one a line: what `stepgold sample --problems` takes.

    A row is `{"id", "problem", "options"?, "answer"?, "images"?, "meta"?}`.

    Raises:
        TraceFormatError: the file cannot be read, or a row is not a problem; nothing is skipped.
    """
    with whole_or_nothing(path, error=TraceFormatError):
        return _all_problems(path)


def _all_problems(path: Path) -> list[Problem]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise TraceFormatError(
            f"Cannot read the problems: {fault}.", where=path.name, remedy="give a UTF-8 .jsonl"
        ) from fault
    found: dict[str, Problem] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        problem = _problem(line, where)
        if problem.id in found:
            raise _problem_fault(f"the id {problem.id!r} occurs twice", where)
        found[problem.id] = problem
    if not found:
        raise _problem_fault("the file has no problems", path.name)
    return list(found.values())


def _problem(line: str, where: str) -> Problem:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as fault:
        raise _problem_fault(f"not JSON: {fault}", where) from fault
    if not isinstance(row, dict):
        raise _problem_fault("the row is not a JSON object", where)
    if unknown := sorted(set(row) - _PROBLEM_KEYS):
        raise _problem_fault(f"unknown field {unknown[0]!r}", where)
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise _problem_fault('"meta" is not an object', where)
    problem_id, question = id_or_none(row, "id"), row.get("problem")
    if problem_id is None:
        raise _problem_fault('"id" is not a text or a whole number', where)
    if not isinstance(question, str) or not question.strip():
        raise _problem_fault('"problem" is not a text', where)
    try:
        answer = text_or_number(row, "answer")
    except RowFault as fault:
        raise _problem_fault('"answer" is not a text or a number', where) from fault
    return Problem(
        id=problem_id,
        question=question,
        options=_texts(row, "options", where),
        answer=answer,
        images=_texts(row, "images", where),
        meta=meta,
    )


def _texts(row: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _problem_fault(f'"{name}" is not a list of texts', where)
    return tuple(value)


def _problem_fault(what: str, where: str) -> TraceFormatError:
    return TraceFormatError(
        f"Cannot read a problem: {what}.",
        where=where,
        remedy='rows are {"id", "problem", "options"?, "answer"?, "images"?, "meta"?}',
    )


_TREC_FIELDS = 4


def read_qrels(path: Path) -> list[Relevance]:
    """Read all relevance judgments of a file, plain or gzipped; duplicates count once.

    TREC: `PROBLEM ITERATION DOCUMENT GRADE`, separated by white space, as trec_eval reads it; the
    iteration is ignored, a grade below 0 counts as 0. JSONL: `{"problem_id": "q1", "document":
    "dosing.md"}`, or `"problem": "<the question>"` for problems without an id of their own;
    `"relevance"` (a whole number, default 1) is the grade and `"decisive"` a text that a passage
    must contain to decide the problem.

    Raises:
        TraceFormatError: the file cannot be read, is empty, a line is not a judgment, or two lines
            contradict each other; measures over part of the judgments would be other measures.
    """
    with whole_or_nothing(path, error=TraceFormatError):
        return _all_judgments(path)


def _all_judgments(path: Path) -> list[Relevance]:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as fault:
        raise TraceFormatError(
            f"Cannot read the relevance judgments ({fault}).",
            where=str(path),
            remedy="give TREC qrels or JSONL, in UTF-8",
        ) from fault
    judged: dict[tuple[str, str, bool], tuple[int, Relevance]] = {}
    # Not splitlines: a question may contain U+2028, which JSON does not escape.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = _from_json(json.loads(line)) if line.lstrip()[0] == "{" else _from_trec(line)
            key = found.problem, found.document, found.by_text
            first, before = judged.setdefault(key, (number, found))
            if before != found:
                raise ValueError(f"it contradicts line {first}")
        except (ValueError, RecursionError) as fault:
            raise TraceFormatError(
                f"The line is not a relevance judgment: {fault}.",
                where=f"{path}, line {number}",
                remedy="write 'PROBLEM 0 DOCUMENT GRADE' or"
                ' {"problem_id": ..., "document": ..., "relevance": ...}',
            ) from fault
    if not judged:
        raise TraceFormatError("The file has no relevance judgments.", where=str(path))
    return [found for _, found in judged.values()]


def _from_trec(line: str) -> Relevance:
    fields = line.split()
    if len(fields) != _TREC_FIELDS:
        raise ValueError(f"it has {len(fields)} fields, not {_TREC_FIELDS}")
    problem, _, document, grade = fields
    return Relevance(problem, document, max(0, int(grade)))


def _from_json(row: Any) -> Relevance:
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    by_text = "problem_id" not in row
    problem = id_or_none(row, "problem" if by_text else "problem_id")
    document, decisive = id_or_none(row, "document"), row.get("decisive")
    grade = row.get("relevance", 1)
    if problem is None or document is None:
        raise ValueError("'problem_id' (or 'problem') and 'document' must be texts")
    if not isinstance(grade, int) or isinstance(grade, bool):
        raise ValueError("'relevance' must be a whole number")
    if decisive is not None and (not isinstance(decisive, str) or not decisive.strip()):
        raise ValueError("'decisive' must be a text")
    return Relevance(
        problem=problem,
        document=document,
        grade=max(0, grade),
        decisive=decisive,
        by_text=by_text,
    )


ID_KEYS = frozenset(
    {"id", "trace_id", "problem_id", "question_id", "uuid", "Question_UUID", "case_id"}
)
"""Keys of ids in any format."""
ROLE_KEYS = frozenset({"role", "from"})
"""Keys of a chat message that name the speaker."""


@dataclass(frozen=True, slots=True)
class RowTexts:
    """All text of a row, whatever its format."""

    line: int
    """1-based line, or position in a JSON list."""
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    """All other texts, in order, without the roles of a chat."""


def read_row_texts(path: Path) -> Iterator[RowTexts | RejectedRow]:
    """Yield ids and texts of every row of a file, for searching.

    Raises:
        TraceFormatError: the file cannot be read to its end.
    """
    with whole_or_nothing(path, error=TraceFormatError):
        mapped = is_object_of_lists(path, field_names=field_names())
        for row in read_mapped_rows(path) if mapped else read_rows(path):
            if row.fault is not None:
                yield RejectedRow(str(path), row.line, None, f"the row {row.fault}")
                continue
            ids: list[str] = []
            texts: list[str] = []
            _gather(row.value, ids, texts)
            yield RowTexts(row.line, tuple(ids), tuple(texts))


def _gather(value: Any, ids: list[str], texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        for part in value:
            _gather(part, ids, texts)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key in ID_KEYS and (found := id_or_none(value, key)) is not None:
                ids.append(found)
            elif key not in ROLE_KEYS or not isinstance(part, str):
                _gather(part, ids, texts)
