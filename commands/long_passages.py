"""Passages that an encoder does not read in one piece, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from commands.console import note

if TYPE_CHECKING:
    from retrieval.encoder import Encoder
    from traces.evidence import Passage

NOT_LOOKED_AT: dict[str, Any] = {"over_window": None, "over_window_passages": None}
"""For a run that encoded nothing."""
_LISTED = 20
_SURELY_SHORT = 0.8
"""Estimates below this share of the window are not counted by the encoder's own tokenizer."""


def say_over_window(passages: Iterable[Passage], encoder: Encoder) -> dict[str, Any]:
    """Tell a person of passages beyond the window; the same for the JSON document."""
    count, listed = over_window(passages, encoder)
    if count:
        named = ", ".join(f"{e['corpus']}/{e['document']} #{e['passage']}" for e in listed[:3])
        note(
            f"{count} passages are longer than the encoder's {encoder.max_tokens} tokens and are"
            f" read in windows: {named}" + (" and more (--json)" if count > 3 else "")
        )
    return {"over_window": count, "over_window_passages": listed}


def over_window(passages: Iterable[Passage], encoder: Encoder) -> tuple[int, list[dict[str, Any]]]:
    """How many passages are longer than the encoder's window, and the first 20 of them.

    They are indexed all the same: read in windows along their sentences, the vector being the mean
    of the windows' (`retrieval.encoder`).
    """
    from retrieval.documents import estimate_tokens
    from retrieval.embedding import text_to_embed

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
