r"""OpenR's process data (openreasoner/openr, MATH-APS): one text of steps, and their labels.

`{"question": "...", "process": "first\n\n\n\n\nsecond\n\n\n\n\n", "label": ["+", "-"]}`, also with
the key `labels`. Steps end with five line breaks, or with "ки" as in Math-Shepherd. MATH-APS rates
only the end of each prefix: a single label of several steps belongs to the last one, and the others
are not measured. Files of this format are only read.
"""

from __future__ import annotations

from collections.abc import Iterator

from formats import rows as fields
from formats.field.training import MARK, read_training_row
from formats.files.container import RawRow
from formats.rows import OWN_KEYS, FileContext, FileFormat, RowFault
from traces import ImportedTrace, RejectedRow

BREAK = "\n" * 5
"""Ends a step; the step tag of OpenR's Qwen PRM."""


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    text = fields.text_of(row, "process")
    pieces = text.split(MARK if MARK in text else BREAK)
    steps = tuple(piece.strip() for piece in pieces if piece.strip())
    values = row.get("labels", row.get("label"))
    if not isinstance(values, list) or not values:
        raise RowFault("'label' is not a list of labels")
    if len(values) == 1 < len(steps):
        values = [None] * (len(steps) - 1) + values
    yield from read_training_row(
        raw,
        file,
        question=fields.text_of(row, "question"),
        steps=steps,
        values=values,
        meta=fields.rest_of(row, {"question", "process", "label", "labels", *OWN_KEYS}),
    )


FORMAT = FileFormat(
    name="openr", required=frozenset({"question", "process"}), parse=_parse, needs_labeler=True
)
