"""ProcessBench (Zheng et al., arXiv 2412.06559): competition mathematics with the first wrong step marked by experts.

`{"id": "gsm8k-0", "generator", "problem", "steps": [..], "final_answer_correct": bool, "label": 1}`;
`label` is the 0-based index of the first wrong step, -1 says that there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import fields
from formats.container import RawRow
from formats.export_row import ExportRow, stated_first_error
from formats.fields import Reading, RowFault
from formats.file_format import FileFormat, Rendered
from traces.abstention import AbstentionReason
from traces.labels import Labeler, LabelerKind, TraceLabel, abstained
from traces.problem import Problem, Trace
from traces.records import ImportedTrace, RejectedRow

NO_ERROR = -1
GOLD = Labeler("gold", LabelerKind.GOLD, {"imported_from": "processbench"})


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
        meta=fields.rest_of(
            row, "id", "generator", "problem", "steps", "final_answer_correct", "label"
        ),
    )
    gold = _gold(row.get("label"), trace)
    yield ImportedTrace(Problem(trace.problem_id, question), trace, ((GOLD, gold),), line=raw.line)
    if gold.abstention is not None:
        yield reading.rejected(raw, trace_id, gold.abstention.detail, imported=True)


def _gold(label: Any, trace: Trace) -> TraceLabel:
    if isinstance(label, bool) or not isinstance(label, int):
        raise RowFault(f"'label' is {label!r}, not a whole number")
    if label == NO_ERROR:
        return TraceLabel(trace.id, first_error_given=True)
    if not 0 <= label < len(trace.steps):
        detail = f"gold names step {label} (0-based) as the first error, the trace has {len(trace.steps)} steps"
        return abstained(trace.id, AbstentionReason.GOLD_UNUSABLE, detail)
    return TraceLabel(trace.id, first_error_given=True, first_error_index=label)


def _render(row: ExportRow) -> Rendered:
    error = stated_first_error(row)
    given = {
        "id": row.trace.id,
        "generator": row.trace.generator,
        "problem": row.problem.question,
        "steps": list(row.trace.steps),
        "final_answer_correct": row.trace.final_answer_correct,
        "label": NO_ERROR if error is None else error,
    }
    return {key: value for key, value in given.items() if value is not None}, 0


FORMAT = FileFormat(
    "processbench", frozenset({"id", "problem", "steps", "label"}), _parse, _name_row, _render
)
