"""Math-Shepherd (Wang et al., arXiv 2312.08935): steps labeled by Monte Carlo continuation.

`{"input": "Janet's ducks ... Step 1: ... ки\nStep 2: ... The answer is: 18 ки", "label": "...",
"task": "GSM8K"}`; `label` is the same text with every "ки" replaced by "+" or "-". A row whose two
texts do not match mark by mark is rejected: labels are never aligned by guessing.
"""

from __future__ import annotations

from collections.abc import Iterator

from formats import rows as fields
from formats.field.training import MARK, TRAINING_PARTS, marked_lines, split_marked, training_keys
from formats.files.container import RawRow
from formats.labels import stated_labeler
from formats.rows import (
    OWN_KEYS,
    ExportRow,
    FileContext,
    FileFormat,
    Part,
    Rendered,
    RowFault,
    binary_verdicts,
    stated_id,
)
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


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, steps, pieces = split_marked(fields.text_of(row, "input"), "input")
    signs = _signs(pieces, fields.text_of(row, "label"))
    trace = Trace(
        stated_id(row, file.row_id(raw)),
        fields.question_id(question),
        steps,
        subset=file.subset or fields.optional_text_of(row, "task") or "default",
        meta=fields.rest_of(row, {"input", "label", "task", *OWN_KEYS}),
    )
    label = TraceLabel(trace.id, tuple(_SIGNS[sign] for sign in signs))
    labeler = stated_labeler(row, LABELER)
    yield ImportedTrace(
        Problem(trace.problem_id, question), trace, ((labeler, label),), line=raw.line
    )


def _signs(pieces: list[str], label: str) -> str:
    """The sign of every step, after checking that both texts match."""
    signs, position = "", 0
    for number, piece in enumerate(pieces, 1):
        position += len(piece)
        sign = label[position : position + 1]
        if sign not in _SIGNS or label[position - len(piece) : position] != piece:
            raise RowFault(f"'label' does not match 'input' at step mark {number} of {len(pieces)}")
        signs += sign
        position += 1
    if label[position:].strip():
        raise RowFault("'label' continues after the last step mark of 'input'")
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
    name="math-shepherd",
    required=frozenset({"input", "label"}),
    parse=_parse,
    render=_render,
    carries=TRAINING_PARTS | {Part.SUBSET},
)
