"""ProcessBench (Zheng et al., arXiv 2412.06559): mathematics with the first wrong step by experts.

`{"id": "gsm8k-0", "generator", "problem", "steps": [..], "final_answer_correct": bool, "label":
1}`; `label` is the 0-based index of the first wrong step, -1 for none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import (
    first_error_label,
    human_gold,
    labeled_trace,
    labeler_key,
    stated_labeler,
    with_meta,
)
from formats.rows import (
    ExportRow,
    FileContext,
    FileFormat,
    Part,
    Rendered,
    RowFault,
    stated_first_error,
)
from traces import ImportedTrace, Labeler, Problem, RejectedRow, Trace, TraceLabel

NO_ERROR = -1
GOLD = human_gold("processbench")
_KEYS = ("id", "generator", "problem", "steps", "final_answer_correct", "label", "labeler")


def _name_row(row: RawRow, _: FileContext) -> str | None:
    return fields.id_or_none(row.value, "id")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    trace_id = fields.id_of(row, "id")
    question = fields.text_of(row, "problem")
    trace = Trace(
        trace_id,
        fields.question_id(question),
        fields.steps_of(row, "steps"),
        subset=file.subset or "default",
        generator=fields.optional_text_of(row, "generator"),
        final_answer_correct=fields.optional_bool_of(row, "final_answer_correct"),
        meta=fields.rest_of(row, _KEYS),
    )
    labeler = stated_labeler(row, GOLD)
    label = _label(row.get("label"), labeler, trace)
    yield from labeled_trace(
        raw,
        file,
        problem=Problem(trace.problem_id, question),
        trace=trace,
        labeler=labeler,
        label=label,
    )


def _label(label: Any, labeler: Labeler, trace: Trace) -> TraceLabel:
    number = fields.whole_number(label)
    if number is None:
        raise RowFault(f"'label' is {label!r:.40}, not a whole number")
    index = None if number == NO_ERROR else number
    return first_error_label(labeler, trace, index, f"step {number} (0-based)")


def _render(row: ExportRow) -> Rendered:
    error = stated_first_error(row)
    given = {
        "id": row.trace.id,
        "generator": row.trace.generator,
        "problem": row.problem.question,
        "steps": list(row.trace.steps),
        "final_answer_correct": row.trace.final_answer_correct,
        "label": NO_ERROR if error is None else error,
        **labeler_key(row),
    }
    return with_meta(row, given, _KEYS)


FORMAT = FileFormat(
    name="processbench",
    required=frozenset({"id", "problem", "steps", "label"}),
    parse=_parse,
    name_row=_name_row,
    render=_render,
    carries=frozenset({Part.GENERATOR, Part.OUTCOME, Part.TRACE_META}),
)
