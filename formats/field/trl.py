"""TRL's stepwise supervision: `{"prompt": str, "completions": [str], "labels": [bool]}`.

TRL removed its PRM trainer (huggingface/trl#7133), the row format lives on. Labels are booleans;
its trainer turned a fraction into `int(label)`, so 0.75 counted as wrong: fractions are read as
scores and never written. A row does not say who labelled it, so the user does. Our exports add
`trace_id` and `labeler`, which the trainer drops.
"""

from __future__ import annotations

from collections.abc import Iterator

from formats import rows as fields
from formats.field.training import TRAINING_PARTS, asked, read_training_row, training_keys
from formats.files.container import RawRow
from formats.labels import OURS, same_reading_id
from formats.rows import ExportRow, FileFormat, Reading, Rendered, binary_verdicts
from traces import ImportedTrace, RejectedRow


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, steps = fields.text_of(row, "prompt"), fields.steps_of(row, "completions")
    meta = fields.rest_of(row, "prompt", "completions", "labels", *OURS)
    yield from read_training_row(raw, reading, question, steps, row.get("labels"), meta=meta)


def _render(row: ExportRow) -> Rendered:
    verdicts = binary_verdicts(row)
    written = {
        "prompt": asked(row.problem),
        "completions": list(row.trace.steps[: len(verdicts)]),
        "labels": verdicts,
        **training_keys(row),
    }
    return Rendered(written, len(row.trace.steps) - len(verdicts))


FORMAT = FileFormat(
    "trl",
    frozenset({"prompt", "completions", "labels"}),
    _parse,
    same_reading_id,
    _render,
    TRAINING_PARTS,
    wants_labeler=True,
)
