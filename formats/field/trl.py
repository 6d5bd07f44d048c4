"""TRL's stepwise supervision: `{"prompt": str, "completions": [str], "labels": [bool]}`.

TRL removed its PRM trainer (huggingface/trl#7133), but the row format is still in use. Labels are
booleans; its trainer turned a fraction into `int(label)`, so 0.75 counted as wrong: fractions are
read as scores and never written. Our exports add `trace_id` and `labeler`, which the trainer drops.
"""

from __future__ import annotations

from collections.abc import Iterator

from formats import rows as fields
from formats.field.training import TRAINING_PARTS, asked, read_training_row, training_keys
from formats.files.container import RawRow
from formats.rows import (
    OWN_KEYS,
    ExportRow,
    FileContext,
    FileFormat,
    Rendered,
    binary_verdicts,
)
from traces import ImportedTrace, RejectedRow


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, steps = fields.text_of(row, "prompt"), fields.steps_of(row, "completions")
    meta = fields.rest_of(row, {"prompt", "completions", "labels", *OWN_KEYS})
    yield from read_training_row(
        raw, file, question=question, steps=steps, values=row.get("labels"), meta=meta
    )


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
    name="trl",
    required=frozenset({"prompt", "completions", "labels"}),
    parse=_parse,
    render=_render,
    carries=TRAINING_PARTS,
    needs_labeler=True,
)
