"""OpenRLHF's process reward data: one text with a mark after every step, and a list of labels.

`{"input": "Janet's ducks ... Step 1: ... ки\nStep 2: ... ки", "value": ["+", "-"]}`, trained with
`--input_key input --label_key value --placeholder_token ки --reward_tokens + -`; numbers in `value`
are soft labels (OpenRLHF/openrlhf/datasets/process_reward_dataset.py).
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
from formats.rows import (
    OWN_KEYS,
    ExportRow,
    FileContext,
    FileFormat,
    Part,
    Rendered,
    values_of,
)
from traces import ImportedTrace, RejectedRow


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, steps, _ = split_marked(fields.text_of(row, "input"), "input")
    meta = fields.rest_of(row, {"input", "value", *OWN_KEYS})
    yield from read_training_row(
        raw, file, question=question, steps=steps, values=row.get("value"), meta=meta
    )


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
    name="openrlhf",
    required=frozenset({"input", "value"}),
    parse=_parse,
    render=_render,
    carries=TRAINING_PARTS | {Part.SCORES},
    needs_labeler=True,
)
