"""OpenRLHF's process reward data: one text with a mark behind every step, and a list of its labels.

`{"input": "Janet's ducks ... Step 1: ... ки\nStep 2: ... ки", "value": ["+", "-"]}`, trained with
`--input_key input --label_key value --placeholder_token ки --reward_tokens + -`; numbers in `value`
are soft labels (OpenRLHF/openrlhf/datasets/process_reward_dataset.py). A row does not say who
labelled it, so the user does.
"""

from __future__ import annotations

from collections.abc import Iterator

from formats import rows as fields
from formats.field.training import (
    MARK,
    TRAINING_PARTS,
    marked_lines,
    read_training_row,
    split_marked,
    training_keys,
)
from formats.files.container import RawRow
from formats.labels import OURS, same_reading_id
from formats.rows import ExportRow, FileFormat, Part, Reading, Rendered, values_of
from traces import ImportedTrace, RejectedRow


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, steps, _ = split_marked(fields.text_of(row, "input"), "input")
    meta = fields.rest_of(row, "input", "value", *OURS)
    yield from read_training_row(raw, reading, question, steps, row.get("value"), meta=meta)


def _render(row: ExportRow) -> Rendered:
    values, soft = values_of(row)
    question, lines, lost = marked_lines(row, len(values))
    written = {
        "input": question + "\n".join(line + MARK for line in lines),
        "value": values if soft else ["-+"[bool(good)] for good in values],
        **training_keys(row),
    }
    if not soft and any(step.score is not None for step in row.label.step_labels):
        lost |= {Part.SCORES}
    return Rendered(written, len(row.trace.steps) - len(values), lost)


FORMAT = FileFormat(
    "openrlhf",
    frozenset({"input", "value"}),
    _parse,
    same_reading_id,
    _render,
    TRAINING_PARTS | {Part.SCORES},
    wants_labeler=True,
)
