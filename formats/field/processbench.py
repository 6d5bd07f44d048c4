"""ProcessBench (Zheng et al., arXiv 2412.06559): competition mathematics with the first wrong step marked by experts.

`{"id": "gsm8k-0", "generator", "problem", "steps": [..], "final_answer_correct": bool, "label": 1}`;
`label` is the 0-based index of the first wrong step, -1 says that there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import human_gold, imported, placed, stated_labeler, who_labelled, with_meta
from formats.rows import (
    ExportRow,
    FileFormat,
    Part,
    Reading,
    Rendered,
    RowFault,
    stated_first_error,
)
from traces import ImportedTrace, Labeler, Problem, RejectedRow, Trace, TraceLabel

NO_ERROR = -1
GOLD = human_gold("processbench")
_KEYS = ("id", "generator", "problem", "steps", "final_answer_correct", "label", "labeler")


def _name_row(row: RawRow, _: Reading) -> str | None:
    value = row.value.get("id")
    return value if isinstance(value, str) else None


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    trace_id = fields.text_of(row, "id")
    question = fields.text_of(row, "problem")
    trace = Trace(
        trace_id,
        fields.question_id(question),
        fields.steps_of(row, "steps"),
        subset=reading.subset or "default",
        generator=fields.optional_text_of(row, "generator"),
        final_answer_correct=fields.optional_bool_of(row, "final_answer_correct"),
        meta=fields.rest_of(row, *_KEYS),
    )
    labeler = stated_labeler(row, GOLD)
    label = _label(row.get("label"), labeler, trace)
    yield from imported(raw, reading, Problem(trace.problem_id, question), trace, labeler, label)


def _label(label: Any, labeler: Labeler, trace: Trace) -> TraceLabel:
    if isinstance(label, bool) or not isinstance(label, int):
        raise RowFault(f"'label' is {label!r:.40}, not a whole number")
    index = None if label == NO_ERROR else label
    return placed(labeler, trace, index, f"step {label} (0-based)")


def _render(row: ExportRow) -> Rendered:
    error = stated_first_error(row)
    given = {
        "id": row.trace.id,
        "generator": row.trace.generator,
        "problem": row.problem.question,
        "steps": list(row.trace.steps),
        "final_answer_correct": row.trace.final_answer_correct,
        "label": NO_ERROR if error is None else error,
        **who_labelled(row),
    }
    return with_meta(row, given, _KEYS, frozenset())


FORMAT = FileFormat(
    "processbench",
    frozenset({"id", "problem", "steps", "label"}),
    _parse,
    _name_row,
    _render,
    frozenset({Part.GENERATOR, Part.OUTCOME, Part.TRACE_META}),
)
