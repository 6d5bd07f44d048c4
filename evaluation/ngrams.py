"""Word n-grams of texts, and which of them stand in other texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_MARKERS = frozenset({"ки", "extra_0"})
"""Words that training formats put between steps; they belong to no text."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SEED = 20_261_122


@dataclass(frozen=True, slots=True)
class Words:
    """A text as words: case and punctuation do not count, nor do markers between steps."""

    text: str
    """The text."""
    folded: tuple[str, ...]
    """Its words in one case."""
    spans: tuple[tuple[int, int], ...]
    """Where each stands in the text, in characters."""

    @classmethod
    def of(cls, text: str) -> Words:
        """The words of a text."""
        found = [match for match in _WORD.finditer(text) if match[0].lower() not in _MARKERS]
        return cls(text, tuple(match[0].lower() for match in found), tuple(m.span() for m in found))

    def excerpt(self, first: int, last: int) -> str:
        """The text from one word to another, both 0-based and included."""
        return self.text[self.spans[first][0] : self.spans[last][1]]


class Vocabulary:
    """A random number for each known word, so that n-grams can be hashed by the million.

    An n-gram is its 64-bit hash: among ten million against ten million the chance of any false
    match is about 1 in 200,000.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._numbers: Hashes = np.empty(0, dtype=np.uint64)

    def add(self, words: Words) -> None:
        """Know these words."""
        for word in words.folded:
            self._ids.setdefault(word, len(self._ids))

    def hashes(self, words: Sequence[str], n: int) -> Hashes:
        """The hash of every n-gram, in order; empty if there are fewer than n words.

        Words that were never added share one number: an n-gram with one of them matches nothing
        that was made of added ones.
        """
        if len(words) < n:
            return np.empty(0, dtype=np.uint64)
        if len(self._numbers) <= len(self._ids):
            # One stream from one seed: a longer draw begins with the shorter one.
            rng = np.random.default_rng(_SEED)
            self._numbers = rng.integers(0, 2**64, 2 * len(self._ids) + 2, dtype=np.uint64)
        # Known words are counted from 1; 0 is for all others.
        numbers = self._numbers[[self._ids.get(word, -1) + 1 for word in words]]
        count = len(words) - n + 1
        total = np.zeros(count, dtype=np.uint64)
        for offset in range(n):
            total = total * _FACTOR + numbers[offset : offset + count]
        return total
