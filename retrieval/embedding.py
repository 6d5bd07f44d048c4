"""Many passages through an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.encoder import Encoder
from traces.evidence import Passage

_BATCH = 256

Vectors = NDArray[np.float32]
"""Unit vectors, one a row: shape (n, dimension)."""
Batch = NDArray[np.int64]
"""Positions of the texts that are encoded in one call."""


def text_to_embed(passage: Passage) -> str:
    """Title and text: a passage from the middle of a section does not say what it is about."""
    if not passage.title or passage.text.lstrip("# ").startswith(passage.title):
        return passage.text
    return f"{passage.title}\n{passage.text}"


def encode_in_batches(
    encoder: Encoder,
    texts: Sequence[str],
    progress: Callable[[Iterable[Batch], int], Iterable[Batch]] | None = None,
) -> Vectors:
    """Encode many texts, longest first, so that texts of a batch need little padding.

    Args:
        encoder: the encoder.
        texts: n texts.
        progress: passes the batches through; it is given their number for its total.

    Returns:
        Unit vectors in the order of `texts`, shape (n, encoder.dimension).
    """
    vectors = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    order = np.argsort([-len(text) for text in texts], kind="stable").astype(np.int64)
    batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
    for batch in batches if progress is None else progress(batches, len(batches)):
        vectors[batch] = encoder.encode([texts[position] for position in batch])
    return vectors
