"""MR-GSM8K (Zeng et al., arXiv 2312.17080): school mathematics, the first wrong step and its reason by hand.

One JSON list: `{"uuid", "question", "ground_truth_solution", "ground_truth_answer": 5,
"model_output_steps": ["Step 1: ...", ..], "model_output_answer_correctness": "wrong",
"model_output_solution_correctness": "wrong", "model_output_solution_first_error_step": 1,
"model_output_solution_first_error_reason": "...", "question_type": "original"|"POT"|"reversed"}`. The
error step is the number of a step, 1-based; "N/A" says that there is none. Its reason is kept in the
gold label's meta as `reason`, since it is the annotator's word and not the trace's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import (
    human_gold,
    imported,
    outside,
    stated_labeler,
    text_or_number,
    who_labelled,
    with_meta,
)
from formats.rows import (
    CannotCarry,
    ExportRow,
    FileFormat,
    FormatLimit,
    Part,
    Reading,
    Rendered,
    RowFault,
    stated_first_error,
)
from traces import ImportedTrace, Labeler, Problem, RejectedRow, Trace, TraceLabel

GOLD = human_gold("mr-gsm8k")
NO_ERROR = "N/A"
_CORRECT = {"correct": True, "wrong": False, "incorrect": False}
_NUMBER = re.compile(r"\s*step\s+(\d{1,9})\s*:", re.IGNORECASE)
_STATED = re.compile(r"\s*(?:step\s+)?(\d{1,9})\s*", re.IGNORECASE)
_ANSWER, _WORD, _STEP, _REASON = (
    "model_output_answer_correctness",
    "model_output_solution_correctness",
    "model_output_solution_first_error_step",
    "model_output_solution_first_error_reason",
)
_KEYS = (
    "uuid", "question", "ground_truth_answer", "model_output_steps", "question_type",
    _ANSWER, _WORD, _STEP, _REASON, "labeler",
)  # fmt: skip


def _name_row(row: RawRow, _: Reading) -> str | None:
    value = row.value.get("uuid")
    return value if isinstance(value, str) else None


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    trace_id, question = fields.text_of(row, "uuid"), fields.text_of(row, "question")
    answer = text_or_number(row, "ground_truth_answer")
    trace = Trace(
        trace_id,
        fields.question_id(question, (), answer),
        fields.steps_of(row, "model_output_steps"),
        subset=reading.subset or fields.optional_text_of(row, "question_type") or "default",
        final_answer_correct=_CORRECT.get(
            (fields.optional_text_of(row, _ANSWER) or "").strip().lower()
        ),
        meta=fields.rest_of(row, *_KEYS),
    )
    labeler = stated_labeler(row, GOLD)
    label = _label(row, labeler, trace)
    reason = fields.optional_text_of(row, _REASON)
    if _is_reason(reason):
        label = replace(label, meta={"reason": reason})
    problem = Problem(trace.problem_id, question, answer=answer)
    yield from imported(raw, reading, problem, trace, labeler, label)


def _label(row: dict[str, Any], labeler: Labeler, trace: Trace) -> TraceLabel:
    word = fields.text_of(row, _WORD).strip().lower()
    if word not in _CORRECT:
        raise RowFault(f"'{_WORD}' is '{word:.40}', not correct or wrong")
    stated = row.get(_STEP)
    if (stated is not None and not isinstance(stated, str | int)) or isinstance(stated, bool):
        raise RowFault(f"'{_STEP}' is {stated!r:.40}, not a step's number or '{NO_ERROR}'")
    none = stated is None or (isinstance(stated, str) and stated.strip() in ("", NO_ERROR))
    if _CORRECT[word] and none:
        return TraceLabel(trace.id, first_error_given=True)
    number = _STATED.fullmatch(f"{stated}")
    index = _index(int(number[1]), trace.steps) if number else None
    if _CORRECT[word] or index is None:
        detail = (
            f"gold says '{word}' with first error step {stated!r:.40}; the trace has"
            f" {len(trace.steps)} steps"
        )
        return outside(labeler, trace.id, detail)
    return TraceLabel(trace.id, first_error_given=True, first_error_index=index)


def _is_reason(value: Any) -> bool:
    return isinstance(value, str) and value.strip() not in ("", NO_ERROR)


def _index(number: int, steps: tuple[str, ...]) -> int | None:
    """The 0-based index of the step of that number: as written in front of one step, else counted.

    None where the written numbers leave it open: they disagree with the count, and none is this one.
    """
    found = [_NUMBER.match(step) for step in steps]
    written = [int(one[1]) if one else None for one in found]
    if written.count(number) == 1:
        return written.index(number)
    counted = all(seen in (None, place) for place, seen in enumerate(written, 1))
    return number - 1 if counted and 1 <= number <= len(steps) else None


def _number(index: int, steps: tuple[str, ...]) -> int:
    """The number that reads back as this index."""
    written = _NUMBER.match(steps[index])
    for number in (index + 1, *([int(written[1])] if written else [])):
        if _index(number, steps) == index:
            return number
    raise CannotCarry(
        FormatLimit.NOT_CARRIED, "the numbers written in front of the steps contradict each other"
    )


def _render(row: ExportRow) -> Rendered:
    error = stated_first_error(row)
    right, reason = row.trace.final_answer_correct, row.label.meta.get("reason")
    number = None if error is None else _number(error, row.trace.steps)
    given = {
        "uuid": row.trace.id,
        "question": row.problem.question,
        "ground_truth_answer": row.problem.answer,
        "model_output_steps": list(row.trace.steps),
        _ANSWER: None if right is None else "correct" if right else "wrong",
        _WORD: "correct" if error is None else "wrong",
        _STEP: NO_ERROR if number is None else number,
        _REASON: reason if _is_reason(reason) else NO_ERROR,
        "question_type": row.trace.subset,
        **who_labelled(row),
    }
    read_back = {} if given[_REASON] == NO_ERROR else {"reason": reason}
    lost = frozenset() if row.label.meta == read_back else frozenset({Part.LABEL_META})
    return with_meta(row, given, _KEYS, lost)


FORMAT = FileFormat(
    "mr-gsm8k",
    frozenset({"uuid", "question", "model_output_steps", _WORD, _STEP}),
    _parse,
    _name_row,
    _render,
    frozenset({Part.ANSWER, Part.OUTCOME, Part.SUBSET, Part.TRACE_META, Part.LABEL_META}),
)
