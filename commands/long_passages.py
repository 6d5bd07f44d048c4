"""Passages that an encoder does not read in one piece, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.encoder import Encoder
    from traces.evidence import Passage

_LISTED = 20
_SURELY_SHORT = 0.8
"""Estimates below this share of the window are not counted by the encoder's own tokenizer."""


def over_window(passages: Iterable[Passage], encoder: Encoder) -> tuple[int, list[dict[str, Any]]]:
    """How many passages are longer than the encoder's window, and the first 20 of them.

    They are indexed all the same: read in windows along their sentences, the vector being the mean
    of the windows' (`retrieval.encoder`).
    """
    from retrieval.embedding import text_to_embed
    from retrieval.tokens import estimate_tokens

    count = 0
    listed: list[dict[str, Any]] = []
    for passage in passages:
        text = text_to_embed(passage)
        if len(text) <= encoder.max_tokens:  # no token is shorter than a character
            continue
        if estimate_tokens(text) < _SURELY_SHORT * encoder.max_tokens:
            continue
        tokens = encoder.count_tokens(text)
        if tokens <= encoder.max_tokens:
            continue
        count += 1
        if len(listed) < _LISTED:
            place = {"corpus": passage.corpus, "document": passage.document}
            listed.append(place | {"passage": passage.index, "tokens": tokens})
    return count, listed
