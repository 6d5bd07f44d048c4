"""ShareGPT turns as VisualPRM is trained on (arXiv 2503.10291): a turn a step, "+" or "-" as reply.

`{"image": ["a.png"], "conversations": [{"from": "human", "value": "###
Question:\n<image>\nWhat?\n\n### Solution Process:\nfirst step"}, {"from": "gpt", "value": "+"},
{"from": "human", "value": "second step"}, {"from": "gpt", "value": "-"}]}`. The layout is
OpenGVLab/InternVL's; its system turn is left to the trainer's template (a `system` turn is skipped
when read).
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
    binary_verdicts,
)
from traces import ImportedTrace, RejectedRow

QUESTION, SOLUTION, IMAGE = "### Question:\n", "\n\n### Solution Process:\n", "<image>\n"


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    said = _turns(row.get("conversations"))
    begin, separator, first = said[0][0].partition(SOLUTION)
    if not separator or not begin.startswith(QUESTION):
        raise RowFault(
            "the first turn lacks the headings '### Question:' and '### Solution Process:'"
        )
    question = begin.removeprefix(QUESTION)
    images = image_paths(row)
    while question.startswith(IMAGE):
        question = question.removeprefix(IMAGE)
    if not question.strip():
        raise RowFault("the question is blank")
    steps = (first, *(step for step, _ in said[1:]))
    meta = fields.rest_of(row, {"conversations", "image", *OWN_KEYS})
    values = [value for _, value in said]
    yield from read_training_row(
        raw, file, question=question, steps=steps, values=values, meta=meta, images=images
    )


def image_paths(row: dict[str, Any]) -> tuple[str, ...]:
    """The paths of a row's `image`: one or a list, each a text or, as in tables, `{"path": ..}`."""
    stated = row.get("image")
    listed = stated if isinstance(stated, list) else [] if stated is None else [stated]
    paths = [one.get("path") if isinstance(one, dict) else one for one in listed]
    return fields.texts_of({"image": paths}, "image")


def _turns(conversations: Any) -> list[tuple[str, str]]:
    """Pairs of a human turn and its reply."""
    turns = conversations if isinstance(conversations, list) else []
    if not turns or not all(isinstance(turn, dict) for turn in turns):
        raise RowFault("'conversations' is not a list of turns")
    said = [
        (fields.text_of(turn, "from"), turn.get("value"))
        for turn in turns
        if turn.get("from") != "system"
    ]
    texts = [value for _, value in said if isinstance(value, str)]
    if len(texts) != len(said) or [who for who, _ in said] != ["human", "gpt"] * (len(said) // 2):
        raise RowFault("the turns do not alternate between 'human' and 'gpt'")
    if not said:
        raise RowFault("'conversations' has no human turn")
    return list(zip(texts[::2], texts[1::2], strict=True))


def _render(row: ExportRow) -> Rendered:
    verdicts = binary_verdicts(row)
    question, steps = asked(row.problem), row.trace.steps[: len(verdicts)]
    # The parser splits at the first heading, so a heading in the question would move the split.
    if SOLUTION in f"{question}{SOLUTION}"[:-1] or question.startswith(IMAGE):
        raise CannotCarry(FormatLimit.NOT_CARRIED, "the question contains a heading of the layout")
    if not question.strip() or not any(step.strip() for step in steps):
        raise CannotCarry(FormatLimit.NOT_CARRIED, "the question or all labeled steps are blank")
    places = IMAGE * len(row.problem.images)
    asks = [f"{QUESTION}{places}{question}{SOLUTION}{steps[0]}", *steps[1:]]
    turns = [
        turn
        for step, good in zip(asks, verdicts, strict=True)
        for turn in ({"from": "human", "value": step}, {"from": "gpt", "value": "-+"[good]})
    ]
    images = {"image": list(row.problem.images)} if row.problem.images else {}
    written = {**images, "conversations": turns, **training_keys(row)}
    return Rendered(written, len(row.trace.steps) - len(verdicts))


FORMAT = FileFormat(
    name="sharegpt",
    required=frozenset({"conversations"}),
    parse=_parse,
    render=_render,
    carries=TRAINING_PARTS | {Part.IMAGES},
    needs_labeler=True,
)
