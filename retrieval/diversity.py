"""Passages that say something new: near-duplicates out, maximal marginal relevance on demand."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.embedding import Vectors

SAME_SHARE = 0.8
"""Jaccard similarity of word 5-grams from which two texts are one (`facts/retrieval.md`, 4)."""
_GRAM = 5
_WORD = re.compile(r"\w+(?:[.,]\d+)*|[<>≤≥±]")
_MEANING = re.compile(r"\d|[<>≤≥±]|^(?:no|not|never|none|nor|neither|without|cannot|avoid)$|n't$")


def distinct(texts: Sequence[str]) -> list[int]:
    """Positions of the texts that are no near-duplicate of one before them.

    Two texts are near-duplicates if they are equal but for case, punctuation and white space, or
    if they share 0.8 of their word 5-grams and have the same numbers, comparators and negations in
    the same order: guideline sentences that differ in a dose are never one.
    """
    kept: list[int] = []
    seen: set[tuple[str, ...]] = set()
    telling: list[list[str]] = []
    sizes: list[int] = []
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        grams = set(zip(*(words[start:] for start in range(_GRAM)), strict=False))
        meaning = [word for word in words if _MEANING.search(word)]
        shared = Counter(number for gram in grams for number in holders[gram])
        if tuple(words) in seen or any(
            telling[number] == meaning
            and count >= SAME_SHARE * (len(grams) + sizes[number] - count)
            for number, count in shared.items()
        ):
            continue
        for gram in grams:
            holders[gram].append(len(kept))
        seen.add(tuple(words))
        telling.append(meaning)
        sizes.append(len(grams))
        kept.append(position)
    return kept


def maximal_marginal_relevance(
    relevance: NDArray[np.float32], vectors: Vectors, count: int, weight: float
) -> list[int]:
    """Positions chosen one by one for relevance and for distance from those chosen before.

    Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998: each time the
    highest weight * relevance - (1 - weight) * (highest cosine to a chosen one).

    Args:
        relevance: of n candidates, in [0, 1].
        vectors: their unit vectors, shape (n, dimension).
        count: how many to choose.
        weight: in [0, 1]; 1 chooses by relevance alone.
    """
    chosen: list[int] = []
    nearest = np.full(len(relevance), -np.inf, dtype=np.float32)
    open_ = np.ones(len(relevance), dtype=bool)
    while len(chosen) < min(count, len(relevance)):
        closeness = nearest if chosen else np.zeros_like(nearest)
        gain = np.where(open_, weight * relevance - (1 - weight) * closeness, -np.inf)
        best = int(np.argmax(gain))
        chosen.append(best)
        open_[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return chosen


def with_quotas(corpora: Sequence[str], count: int, quotas: dict[str, int]) -> list[int]:
    """Positions of `count` passages, best first, of which each corpus has at least its quota.

    Retrieving evenly from several corpora keeps a large one from crowding out the others (as
    dmis-lab's RAG2 does). Places that a quota does not claim go by rank; a corpus that has fewer
    passages gives its places back.

    Args:
        corpora: the corpus of each candidate, best first.
        count: how many to choose; at least the sum of the quotas.
        quotas: fewest passages by corpus.
    """
    owed = dict(quotas)
    claimed = set()
    for position, corpus in enumerate(corpora):
        if owed.get(corpus, 0) > 0:
            owed[corpus] -= 1
            claimed.add(position)
    free = count - len(claimed)
    by_rank = [position for position in range(len(corpora)) if position not in claimed]
    return sorted(claimed | set(by_rank[: max(0, free)]))
