"""Corpora in memory and an encoder that needs no model, for the tests of the index's update."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from retrieval.index.update import Corpora
from traces.evidence import Passage


class MadeEncoder:
    """Unit vectors drawn from the hash of each text; it remembers what it was asked for."""

    max_tokens = 100

    def __init__(self, name: str = "made@1", dimension: int = 16) -> None:
        self.name, self.dimension = name, dimension
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        self.encoded += texts
        return vectors_of(texts, self.dimension)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def vectors_of(texts: Sequence[str], dimension: int = 16) -> NDArray[np.float32]:
    """The vectors that the encoder makes of texts."""
    seeds = [int.from_bytes(sha256(text.encode()).digest()[:8], "big") for text in texts]
    rows = [np.random.default_rng(seed).standard_normal(dimension) for seed in seeds]
    found = np.asarray(rows, dtype=np.float32).reshape(len(texts), dimension)
    normed: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return normed


def corpora(texts: dict[int, str]) -> Corpora:
    """The corpora of these passages by id."""
    passages = {
        number: Passage("c", f"d{number}", 0, 0, len(text), text) for number, text in texts.items()
    }

    def by_id(ids: Collection[int]) -> dict[int, Passage]:
        return {number: passages[number] for number in ids if number in passages}

    fingerprint = sha256(repr(sorted(texts.items())).encode()).hexdigest()
    return Corpora(lambda: iter(passages.items()), by_id, fingerprint)
