"""Texts without a chat template as token ids: pieces joined first, markers found by their place.

Published scripts tokenise the whole text at once, and sentence-piece tokenizers put a blank before
whatever stands first: pieces encoded one by one would be other tokens. So the text is encoded whole,
and the markers are those tokens that begin where we put a marker; the same signs inside a step are
text. Where a marker would melt into its neighbours (a line break behind a full stop is one token with
many tokenizers) the text is cut there, so that each marker is a token of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.chat_tokens import first_ids
from scoring.tokens import plain_ids
from traces.errors import PrmError


@dataclass(frozen=True, slots=True)
class Marked:
    """A piece of text that ends in a marker."""

    text: str
    """Before the marker."""
    marker: str
    """The marker as text; it becomes one token of its own."""


def joint_ids(
    tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Marked], marker_id: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of the joined text behind the tokenizer's own first ids, and the markers' positions.

    Args:
        tokenizer: a fast one: tokens are found by their place in the text.
        pieces: in order.
        marker_id: the token every marker is.

    Raises:
        PrmError: the tokenizer does not tell where its tokens stand.
    """
    if not tokenizer.is_fast:
        raise PrmError("This family needs a fast tokenizer (tokenizer.json).")
    start = first_ids(tokenizer)
    # An added token parts the text anyway; and the text before it must not hold another one.
    added = marker_id in tokenizer.added_tokens_decoder
    cut = frozenset(range(len(pieces)) if added else ())
    while True:
        ids, markers, melted = _encoded(tokenizer, pieces, marker_id, cut)
        if not melted:
            return (*start, *ids), tuple(len(start) + place for place in markers)
        cut |= melted


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    pieces: Sequence[Marked],
    marker_id: int,
    cut: frozenset[int],
) -> tuple[list[int], list[int], frozenset[int]]:
    """Ids, the markers' places among them, and the numbers of pieces whose marker melted.

    Behind each piece in `cut` the text is cut, and the marker stands between as its token.
    """
    ids: list[int] = []
    markers: list[int] = []
    melted: set[int] = set()
    text, ends = "", {}
    for number, piece in enumerate(pieces):
        text += piece.text
        if number not in cut:
            text += piece.marker
            ends[number] = len(text)
        if number in cut or number == len(pieces) - 1:
            found, at = _run(tokenizer, text, marker_id, located=bool(ends))
            for ended, end in ends.items():
                place = at.get(end)
                if place is None or found[place] != marker_id:
                    melted.add(ended)
                else:
                    markers.append(len(ids) + place)
            ids += found
            text, ends = "", {}
            if number in cut:
                markers.append(len(ids))
                ids.append(marker_id)
    return ids, markers, frozenset(melted)


def _run(
    tokenizer: PreTrainedTokenizerBase, text: str, marker_id: int, *, located: bool
) -> tuple[list[int], dict[int, int]]:
    """Ids of an uncut text as mere text; where wanted, for each place the token that ends there."""
    if not located:
        return plain_ids(tokenizer, text, {marker_id}), {}
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
    )
    offsets = encoded["offset_mapping"]
    at = {end: place for place, (begin, end) in enumerate(offsets) if end > begin}
    return list(encoded["input_ids"]), at
