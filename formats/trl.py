"""TRL's stepwise supervision: `{"prompt": str, "completions": [str], "labels": [bool]}`.

TRL removed its PRM trainer (huggingface/trl#7133), the row format lives on. Labels are booleans;
its trainer turned a fraction into `int(label)`, so 0.75 counted as wrong: fractions are read as
scores and never written. A row does not say who labelled it, so the user does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import fields
from formats.container import RawRow
from formats.export_row import ExportRow, binary_verdicts
from formats.fields import Misfit, Reading, RowFault
from formats.file_format import FileFormat, Rendered
from traces.abstention import AbstentionReason
from traces.labels import StepLabel, TraceLabel, Verdict, abstained
from traces.problem import Problem, Trace
from traces.records import ImportedTrace, RejectedRow


def _name_row(row: RawRow, reading: Reading) -> str | None:
    return reading.row_id(row)


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question = fields.text_of(row, "prompt")
    trace = Trace(
        reading.row_id(raw),
        fields.question_id(question),
        fields.steps_of(row, "completions"),
        subset=reading.subset or "default",
        meta=fields.rest_of(row, "prompt", "completions", "labels"),
    )
    problem = Problem(trace.problem_id, question)
    if reading.labeler is None:
        raise RowFault("nobody said who labelled it")
    misfit = None
    try:
        label = _label(row.get("labels"), trace)
    except Misfit as found:
        misfit = str(found)
        label = abstained(trace.id, AbstentionReason.UNREADABLE, misfit)
    yield ImportedTrace(problem, trace, ((reading.labeler, label),), line=raw.line)
    if misfit is not None:
        yield reading.rejected(raw, trace.id, misfit, imported=True)


def _label(stated: Any, trace: Trace) -> TraceLabel:
    if not isinstance(stated, list):
        raise RowFault("'labels' is no list")
    if len(stated) != len(trace.steps):
        raise Misfit(f"{len(stated)} labels for {len(trace.steps)} steps")
    return TraceLabel(trace.id, tuple(_step(value) for value in stated))


def _step(value: Any) -> StepLabel:
    if isinstance(value, int) and value in (0, 1):
        return StepLabel(Verdict.CORRECT if value else Verdict.INCORRECT)
    if isinstance(value, float) and 0 <= value <= 1:
        return StepLabel(score=value)
    raise RowFault(f"a label is {value!r}, not true, false or a fraction in [0, 1]")


def _render(row: ExportRow) -> Rendered:
    verdicts = binary_verdicts(row)
    written = {
        "prompt": row.problem.question,
        "completions": list(row.trace.steps[: len(verdicts)]),
        "labels": verdicts,
    }
    return written, len(row.trace.steps) - len(verdicts)


FORMAT = FileFormat(
    "trl",
    frozenset({"prompt", "completions", "labels"}),
    _parse,
    _name_row,
    _render,
    wants_labeler=True,
)
