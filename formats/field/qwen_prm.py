"""Qwen2.5-Math-PRM's dialogue: the steps in the assistant's turn, `<extra_0>` after each.

`{"messages": [{"role": "system", ..}, {"role": "user", "content": question},
{"role": "assistant", "content": "first<extra_0>second<extra_0>"}], "labels": [true, false]}`. The
dialogue is that of the model's card; Qwen has not published training rows, so the key `labels` is
our
choice: one value per mark, true or false, or a soft label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import rows as fields
from formats.field.training import TRAINING_PARTS, asked, read_training_row, training_keys
from formats.files.container import RawRow
from formats.rows import (
    OWN_KEYS,
    CannotCarry,
    ExportRow,
    FileContext,
    FileFormat,
    FormatLimit,
    Part,
    Rendered,
    RowFault,
    values_of,
)
from traces import ImportedTrace, RejectedRow

MARK = "<extra_0>"
SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
"""The system turn of the model's card; a raw string, since "\b" is a backspace."""


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    turns = _turns(row.get("messages"))
    if set(turns) - {"system", "user", "assistant"} or not {"user", "assistant"} <= set(turns):
        raise RowFault("'messages' needs one turn of the user and one of the assistant")
    *steps, tail = turns["assistant"].split(MARK)
    if not steps or tail.strip():
        raise RowFault(f"the assistant's turn does not end with '{MARK}'")
    question = fields.text_of(turns, "user")
    meta = fields.rest_of(row, {"messages", "labels", *OWN_KEYS})
    yield from read_training_row(
        raw, file, question=question, steps=tuple(steps), values=row.get("labels"), meta=meta
    )


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
        raise CannotCarry(FormatLimit.NOT_CARRIED, "all labeled steps are blank")
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
    name="qwen-prm",
    required=frozenset({"messages", "labels"}),
    parse=_parse,
    render=_render,
    carries=TRAINING_PARTS | {Part.SCORES},
    needs_labeler=True,
)
