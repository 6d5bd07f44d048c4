"""MR-GSM8K (Zeng et al., arXiv 2312.17080): school mathematics with the first wrong step and why.

One JSON list: `{"uuid", "question", "ground_truth_solution", "ground_truth_answer": 5,
"model_output_steps": ["Step 1: ...", ..], "model_output_answer_correctness": "wrong",
"model_output_solution_correctness": "wrong", "model_output_solution_first_error_step": 1,
"model_output_solution_first_error_reason": "...",
"question_type": "original"|"POT"|"reversed"}`. The error step is the 1-based number of a step,
"N/A" for no error. Its reason is the annotator's statement and goes into the gold label's meta.
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
    labeled_trace,
    labeler_key,
    outside,
    stated_labeler,
    text_or_number,
    usable_label,
    with_meta,
)
from formats.rows import (
    CannotCarry,
    ExportRow,
    FileContext,
    FileFormat,
    FormatLimit,
    Part,
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
_ANSWER, _CORRECTNESS, _STEP, _REASON = (
    "model_output_answer_correctness",
    "model_output_solution_correctness",
    "model_output_solution_first_error_step",
    "model_output_solution_first_error_reason",
)
_KEYS = (
    "uuid", "question", "ground_truth_answer", "model_output_steps", "question_type",
    _ANSWER, _CORRECTNESS, _STEP, _REASON, "labeler",
)  # fmt: skip


def _name_row(row: RawRow, _: FileContext) -> str | None:
    return fields.id_or_none(row.value, "uuid")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    trace_id, question = fields.id_of(row, "uuid"), fields.text_of(row, "question")
    answer = text_or_number(row, "ground_truth_answer")
    trace = Trace(
        trace_id,
        fields.question_id(question, more=[answer]),
        fields.steps_of(row, "model_output_steps"),
        subset=file.subset or fields.optional_text_of(row, "question_type") or "default",
        final_answer_correct=_CORRECT.get(
            (fields.optional_text_of(row, _ANSWER) or "").strip().lower()
        ),
        meta=fields.rest_of(row, _KEYS),
    )
    labeler = stated_labeler(row, GOLD)
    label = usable_label(labeler, trace, lambda: _label(row, labeler, trace))
    reason = fields.optional_text_of(row, _REASON)
    if _is_reason(reason):
        label = replace(label, meta={"reason": reason})
    problem = Problem(trace.problem_id, question, answer=answer)
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=labeler, label=label)


def _label(row: dict[str, Any], labeler: Labeler, trace: Trace) -> TraceLabel:
    correctness = fields.text_of(row, _CORRECTNESS).strip().lower()
    if correctness not in _CORRECT:
        raise RowFault(f"'{_CORRECTNESS}' is '{correctness:.40}', not correct or wrong")
    stated = row.get(_STEP)
    stated = fields.whole_number(stated) if isinstance(stated, float) else stated
    if (stated is not None and not isinstance(stated, str | int)) or isinstance(stated, bool):
        raise RowFault(f"'{_STEP}' is {stated!r:.40}, not a step's number or '{NO_ERROR}'")
    none = stated is None or (isinstance(stated, str) and stated.strip() in ("", NO_ERROR))
    if _CORRECT[correctness] and none:
        return TraceLabel(trace.id, first_error_given=True)
    number = _STATED.fullmatch(f"{stated}")
    index = _index(int(number[1]), trace.steps) if number else None
    if _CORRECT[correctness] or index is None:
        detail = (
            f"gold says '{correctness}' with first error step {stated!r:.40}; the trace has"
            f" {len(trace.steps)} steps"
        )
        return outside(labeler, trace.id, detail)
    return TraceLabel(trace.id, first_error_given=True, first_error_index=index)


def _is_reason(value: Any) -> bool:
    return isinstance(value, str) and value.strip() not in ("", NO_ERROR)


def _index(number: int, steps: tuple[str, ...]) -> int | None:
    """The 0-based index of the step with that number: as written in one step, else by counting.

    None if the written numbers contradict the count and no step has this number.
    """
    found = [_NUMBER.match(step) for step in steps]
    written = [int(one[1]) if one else None for one in found]
    if written.count(number) == 1:
        return written.index(number)
    counted = all(seen in (None, place) for place, seen in enumerate(written, 1))
    return number - 1 if counted and 1 <= number <= len(steps) else None


def _number(index: int, steps: tuple[str, ...]) -> int:
    """The step number that `_index` maps to this index."""
    written = _NUMBER.match(steps[index])
    for number in (index + 1, *([int(written[1])] if written else [])):
        if _index(number, steps) == index:
            return number
    raise CannotCarry(
        FormatLimit.NOT_CARRIED, "the step numbers written in the text contradict each other"
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
        _CORRECTNESS: "correct" if error is None else "wrong",
        _STEP: NO_ERROR if number is None else number,
        _REASON: reason if _is_reason(reason) else NO_ERROR,
        "question_type": row.trace.subset,
        **labeler_key(row),
    }
    read_back = {} if given[_REASON] == NO_ERROR else {"reason": reason}
    lost = frozenset() if row.label.meta == read_back else frozenset({Part.LABEL_META})
    return with_meta(row, given, _KEYS, lost)


FORMAT = FileFormat(
    name="mr-gsm8k",
    required=frozenset({"uuid", "question", "model_output_steps", _CORRECTNESS, _STEP}),
    parse=_parse,
    name_row=_name_row,
    render=_render,
    carries=frozenset({Part.ANSWER, Part.OUTCOME, Part.SUBSET, Part.TRACE_META, Part.LABEL_META}),
)
