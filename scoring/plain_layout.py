"""Texts without a chat template as token ids: pieces joined first, markers found by their place.

Published scripts tokenise the whole text at once, and sentence-piece tokenizers put a blank before
whatever stands first: pieces encoded one by one would be other tokens. So the text is encoded whole,
and the markers are those tokens that begin where we put a marker; the same signs inside a step are
text. A marker that melts into its neighbours is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.chat_tokens import first_ids
from traces.errors import PrmError


@dataclass(frozen=True, slots=True)
class Marked:
    """A piece of text that ends in a marker."""

    text: str
    """Before the marker."""
    marker: str
    """The marker as text; it must become one token of its own."""


def joint_ids(
    tokenizer: PreTrainedTokenizerBase, head: str, pieces: Sequence[Marked], marker_id: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of the joined text behind the tokenizer's own first ids, and the markers' positions.

    Args:
        tokenizer: a fast one: tokens are found by their place in the text.
        head: before the first piece.
        pieces: in order.
        marker_id: the token every marker must be.

    Raises:
        PrmError: the tokenizer does not tell where its tokens stand, or a marker is not that token.
    """
    text, ends = head, []
    for piece in pieces:
        text += f"{piece.text}{piece.marker}"
        ends.append(len(text))
    if not tokenizer.is_fast:
        raise PrmError("This family needs a fast tokenizer (tokenizer.json).")
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
    )
    start = first_ids(tokenizer)
    ids = tuple(encoded["input_ids"])
    by_end = {
        end: place for place, (begin, end) in enumerate(encoded["offset_mapping"]) if end > begin
    }
    markers = []
    for end in ends:
        place = by_end.get(end)
        if place is None or ids[place] != marker_id:
            raise PrmError(
                "A step's marker is no token of its own: the step's text melts into it.",
                remedy="name the right family with --family",
            )
        markers.append(len(start) + place)
    return (*start, *ids), tuple(markers)


def numbered(steps: Sequence[str]) -> list[str]:
    """Steps as `Step i: ..` (1-based), on one line each; what is numbered already stays as it is."""
    lines = [" ".join(step.split()) for step in steps]
    return [
        line if line.lower().startswith(f"step {number}:") else f"Step {number}: {line}"
        for number, line in enumerate(lines, 1)
    ]
