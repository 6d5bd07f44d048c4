"""Math-Shepherd (Wang et al., arXiv 2312.08935): steps labelled by whether a continuation reached the answer.

`{"input": "Janet's ducks ... Step 1: ... ки\nStep 2: ... The answer is: 18 ки", "label": the same text
with every "ки" replaced by "+" or "-", "task": "GSM8K"}`. A row whose two texts do not match mark by
mark is rejected: labels are never lined up by guess.
"""

from __future__ import annotations

from collections.abc import Iterator

from formats import rows as fields
from formats.field.training import MARK, TRAINING_PARTS, marked_lines, split_marked, training_keys
from formats.files.container import RawRow
from formats.labels import OURS, same_reading_id, stated_id, stated_labeler
from formats.rows import ExportRow, FileFormat, Part, Reading, Rendered, RowFault, binary_verdicts
from traces import (
    ImportedTrace,
    Labeler,
    LabelerKind,
    Problem,
    RejectedRow,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)

LABELER = Labeler(
    "math_shepherd", LabelerKind.MC, {"imported_from": "math-shepherd", "rule": "hard"}
)
_SIGNS = {"+": StepLabel(Verdict.CORRECT), "-": StepLabel(Verdict.INCORRECT)}


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, steps, pieces = split_marked(fields.text_of(row, "input"), "input")
    signs = _signs(pieces, fields.text_of(row, "label"))
    trace = Trace(
        stated_id(row, reading.row_id(raw)),
        fields.question_id(question),
        steps,
        subset=reading.subset or fields.optional_text_of(row, "task") or "default",
        meta=fields.rest_of(row, "input", "label", "task", *OURS),
    )
    label = TraceLabel(trace.id, tuple(_SIGNS[sign] for sign in signs))
    labeler = stated_labeler(row, LABELER)
    yield ImportedTrace(
        Problem(trace.problem_id, question), trace, ((labeler, label),), line=raw.line
    )


def _signs(pieces: list[str], label: str) -> str:
    """The sign behind every step, once both texts are known to match."""
    signs, position = "", 0
    for number, piece in enumerate(pieces, 1):
        position += len(piece)
        sign = label[position : position + 1]
        if sign not in _SIGNS or label[position - len(piece) : position] != piece:
            raise RowFault(f"'label' does not match 'input' at step mark {number} of {len(pieces)}")
        signs += sign
        position += 1
    if label[position:].strip():
        raise RowFault("'label' goes on behind the last step mark of 'input'")
    return signs


def _render(row: ExportRow) -> Rendered:
    verdicts = binary_verdicts(row)
    question, lines, lost = marked_lines(row, len(verdicts))
    signed = zip(lines, verdicts, strict=True)
    written = {
        "input": question + "\n".join(line + MARK for line in lines),
        "label": question + "\n".join(line + "-+"[good] for line, good in signed),
        "task": row.trace.subset,
        **training_keys(row),
    }
    return Rendered(written, len(row.trace.steps) - len(lines), lost)


FORMAT = FileFormat(
    "math-shepherd",
    frozenset({"input", "label"}),
    _parse,
    same_reading_id,
    _render,
    TRAINING_PARTS | {Part.SUBSET},
)
