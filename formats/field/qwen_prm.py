"""Qwen2.5-Math-PRM's dialogue: the steps in the assistant's turn, `<extra_0>` behind each.

`{"messages": [{"role": "system", ..}, {"role": "user", "content": question}, {"role": "assistant",
"content": "first<extra_0>second<extra_0>"}], "labels": [true, false]}`. The dialogue is the one of the
model's card; Qwen has published no training rows, so the key `labels` is ours: one value per mark, true
or false, or a soft label. A row does not say who labelled it, so the user does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import rows as fields
from formats.field.training import TRAINING_PARTS, asked, read_training_row, training_keys
from formats.files.container import RawRow
from formats.labels import OURS, same_reading_id
from formats.rows import (
    CannotCarry,
    ExportRow,
    FileFormat,
    FormatLimit,
    Part,
    Reading,
    Rendered,
    RowFault,
    values_of,
)
from traces import ImportedTrace, RejectedRow

MARK = "<extra_0>"
SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
"""The system turn of the model's card; a raw string, since "\b" is a backspace."""


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    turns = _turns(row.get("messages"))
    if set(turns) - {"system", "user", "assistant"} or not {"user", "assistant"} <= set(turns):
        raise RowFault("'messages' is not one user's turn and one assistant's")
    *steps, tail = turns["assistant"].split(MARK)
    if not steps or tail.strip():
        raise RowFault(f"the assistant's turn does not end with '{MARK}'")
    question = fields.text_of(turns, "user")
    meta = fields.rest_of(row, "messages", "labels", *OURS)
    yield from read_training_row(raw, reading, question, tuple(steps), row.get("labels"), meta=meta)


def _turns(messages: Any) -> dict[str, str]:
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise RowFault("'messages' is not a list of objects")
    turns: dict[str, str] = {}
    for turn in messages:
        role = fields.text_of(turn, "role")
        if role in turns:
            raise RowFault(f"'messages' has two turns of the {role:.40}")
        turns[role] = fields.text_of(turn, "content")
    return turns


def _render(row: ExportRow) -> Rendered:
    values, soft = values_of(row)
    question, steps = asked(row.problem), row.trace.steps[: len(values)]
    if any(MARK in text for text in (question, *steps)) or not question.strip():
        raise CannotCarry(FormatLimit.NOT_CARRIED, f"a text holds the step mark '{MARK}'")
    if not any(step.strip() for step in steps):
        raise CannotCarry(FormatLimit.NOT_CARRIED, "all labelled steps are blank")
    written = {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question},
            {"role": "assistant", "content": "".join(step + MARK for step in steps)},
        ],
        "labels": values,
        **training_keys(row),
    }
    scored = any(step.score is not None for step in row.label.step_labels)
    lost = frozenset({Part.SCORES}) if scored and not soft else frozenset()
    return Rendered(written, len(row.trace.steps) - len(values), lost)


FORMAT = FileFormat(
    "qwen-prm",
    frozenset({"messages", "labels"}),
    _parse,
    same_reading_id,
    _render,
    TRAINING_PARTS | {Part.SCORES},
    wants_labeler=True,
)
