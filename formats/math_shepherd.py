"""Math-Shepherd (Wang et al., arXiv 2312.08935): steps labelled by whether a continuation reached the answer.

`{"input": "Janet's ducks ... Step 1: ... ки\\nStep 2: ... The answer is: 18 ки", "label": the same text
with every "ки" replaced by "+" or "-", "task": "GSM8K"}`. A row whose two texts do not match mark by
mark is rejected: labels are never lined up by guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from formats import fields
from formats.container import RawRow
from formats.export_row import CannotCarry, ExportRow, FormatLimit, binary_verdicts
from formats.fields import Reading, RowFault
from formats.file_format import FileFormat, Rendered
from traces.labels import Labeler, LabelerKind, StepLabel, TraceLabel, Verdict
from traces.problem import Problem, Trace
from traces.records import ImportedTrace, RejectedRow

MARK = "ки"
LABELER = Labeler(
    "math_shepherd", LabelerKind.MC, {"imported_from": "math-shepherd", "rule": "hard"}
)
_FIRST = re.compile(r"step 1\s*:", re.IGNORECASE)
_NUMBERED = re.compile(r"\s*step \d+\s*:", re.IGNORECASE)
_SIGNS = {"+": Verdict.CORRECT, "-": Verdict.INCORRECT}


def _name_row(row: RawRow, reading: Reading) -> str | None:
    return reading.row_id(row)


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    pieces = fields.text_of(row, "input").split(MARK)
    signs = _signs(pieces, fields.text_of(row, "label"))
    question, first = _first_step(pieces[0])
    trace = Trace(
        reading.row_id(raw),
        fields.question_id(question),
        tuple(step.strip() for step in (first, *pieces[1:-1])),
        subset=reading.subset or fields.optional_text_of(row, "task") or "default",
        meta=fields.rest_of(row, "input", "label", "task"),
    )
    if not all(trace.steps):
        raise RowFault("a step between two marks is blank")
    label = TraceLabel(trace.id, tuple(StepLabel(_SIGNS[sign]) for sign in signs))
    yield ImportedTrace(
        Problem(trace.problem_id, question), trace, ((LABELER, label),), line=raw.line
    )


def _signs(pieces: list[str], label: str) -> str:
    """The sign behind every step, once both texts are known to match."""
    if len(pieces) == 1:
        raise RowFault(f"'input' has no step mark '{MARK}'")
    if pieces[-1].strip():
        raise RowFault("'input' has text behind its last step mark")
    signs, position = "", 0
    for number, piece in enumerate(pieces[:-1], 1):
        position += len(piece)
        sign = label[position : position + 1]
        if sign not in _SIGNS or label[position - len(piece) : position] != piece:
            raise RowFault(
                f"'label' does not match 'input' at step mark {number} of {len(pieces) - 1}"
            )
        signs += sign
        position += 1
    if label[position:].strip():
        raise RowFault("'label' goes on behind the last step mark of 'input'")
    return signs


def _first_step(text: str) -> tuple[str, str]:
    """Question and first step, which stand in one text: the step begins at "Step 1:", else behind the last "?"."""
    begins = [found.start() for found in _FIRST.finditer(text)]
    cut = begins[-1] if begins else text.rfind("?") + 1
    question, step = text[:cut].strip(), text[cut:]
    if not question:
        raise RowFault("the question cannot be told from the first step: there is no 'Step 1:'")
    return question, step


def _render(row: ExportRow) -> Rendered:
    verdicts = binary_verdicts(row)
    steps = row.trace.steps[: len(verdicts)]
    texts = (row.problem.question, *steps)
    if any(MARK in text or not text.strip() for text in texts):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, f"a step is blank, or a text holds the step mark '{MARK}'"
        )
    if any(_FIRST.search(step) for step in (_unnumbered(steps[0]),)):
        raise CannotCarry(FormatLimit.NOT_CARRIED, "the first step speaks of 'Step 1:' itself")
    lines = [
        f"{step.strip() if _NUMBERED.match(step) else f'Step {number}: {step.strip()}'} "
        for number, step in enumerate(steps, 1)
    ]
    question = f"{row.problem.question.strip()} "
    written = {
        "input": question + "\n".join(line + MARK for line in lines),
        "label": question
        + "\n".join(line + "-+"[good] for line, good in zip(lines, verdicts, strict=True)),
        "task": row.trace.subset,
    }
    return written, len(row.trace.steps) - len(steps)


def _unnumbered(step: str) -> str:
    return _NUMBERED.sub("", step, count=1) if _NUMBERED.match(step) else step


FORMAT = FileFormat("math-shepherd", frozenset({"input", "label"}), _parse, _name_row, _render)
