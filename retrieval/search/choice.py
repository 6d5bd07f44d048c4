"""Candidates for queries: by vectors, by words, by titles, fused."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.index.encoder import Encoder, Vectors, text_to_embed
from retrieval.search.bm25 import LexicalIndex
from retrieval.search.config import Query, SearchConfig
from retrieval.search.fusion import Ranking, reciprocal_rank_fusion
from retrieval.search.rerank import Reranker
from traces import InputError, Passage
from traces.words import words

_ROWS_AT_ONCE = 50_000


class VectorIndex(Protocol):
    """What is needed of `retrieval.index.index.PassageIndex`."""

    @property
    def kind(self) -> str:
        """flat, hnsw, ivf or another kind."""

    def search(
        self, vectors: Vectors, k: int
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
        """Ids and cosines of the nearest passages of each row, best first."""

    def vectors(self, ids: Sequence[int]) -> Vectors:
        """The vectors of these passages, shape (n, dimension)."""


@dataclass(frozen=True, slots=True)
class Dense:
    """An index with the encoder it was built with."""

    index: VectorIndex
    """The vectors of the passages."""
    encoder: Encoder
    """Makes the vectors of queries."""


@dataclass(frozen=True, slots=True)
class QueryCandidates:
    """What one query found."""

    ranking: Ranking
    """Passages by fused score, or by the one way of searching that is in use."""
    vector: NDArray[np.float32] | None
    """The query's unit vector; None without dense search."""
    cosines: dict[int, float]
    """Cosines of the passages that dense search found."""


class CandidateSearch:
    """Ranks passages for queries, in one way or in several ways fused.

    Args:
        config: mode, depth and the constant of the fusion are read.
        dense: for the modes dense and hybrid.
        lexical: for the modes bm25 and hybrid.

    Raises:
        InputError: the mode needs a part that is not given.
    """

    def __init__(
        self, config: SearchConfig, dense: Dense | None, lexical: LexicalIndex | None
    ) -> None:
        self._config = config
        self._dense = dense if config.mode != "bm25" else None
        self._lexical = lexical if config.mode != "dense" else None
        if (self._dense is None and config.mode != "bm25") or (
            self._lexical is None and config.mode != "dense"
        ):
            raise InputError(
                f"Search by '{config.mode}' lacks an index.", remedy="build it: stepgold index"
            )

    def search(
        self, texts: Sequence[str], *, within: NDArray[np.int64] | None = None
    ) -> list[QueryCandidates]:
        """Candidates of each text, best first, at most `config.pool` by each way of searching.

        Args:
            texts: the queries.
            within: ids of the passages that may be found; None for all.
        """
        if not texts:
            return []
        rankings: list[list[Ranking]] = [[] for _ in texts]
        vectors: Vectors | None = None
        cosines: list[dict[int, float]] = [{} for _ in texts]
        if self._dense is not None:
            vectors = self._dense.encoder.encode(texts, query=True)
            nearest = self._nearest(self._dense.index, vectors, within)
            for ways, found, ranking in zip(rankings, cosines, nearest, strict=True):
                ways.append(ranking)
                pairs = zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True)
                found.update(pairs)
        if self._lexical is not None:
            among = None if within is None else np.isin(self._lexical.ids, within)
            ways_by_words = [self._lexical.search]
            if (
                self._config.mode == "hybrid"
            ):  # beside others a title is a vote, alone it would decide
                ways_by_words.append(self._lexical.search_titles)
            for search in ways_by_words:
                for ways, ranking in zip(
                    rankings, search(texts, self._config.pool, among=among), strict=True
                ):
                    ways.append(ranking)
        return [
            QueryCandidates(self._fused(ways), None if vectors is None else vectors[row], found)
            for row, (ways, found) in enumerate(zip(rankings, cosines, strict=True))
        ]

    def _fused(self, rankings: Sequence[Ranking]) -> Ranking:
        if self._config.mode != "hybrid":
            return rankings[0]
        return reciprocal_rank_fusion(rankings, constant=self._config.rrf_constant)

    def _nearest(
        self, index: VectorIndex, queries: Vectors, within: NDArray[np.int64] | None
    ) -> list[Ranking]:
        depth = self._config.pool
        if within is None:
            ids, scores = index.search(queries, depth)
            return [Ranking(row, values) for row, values in zip(ids, scores, strict=True)]
        # A part of the corpora is searched exactly, block by block: no kind of index is asked to
        # pass over the rest, which for graphs costs recall.
        found = [Ranking(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
        for start in range(0, len(within), _ROWS_AT_ONCE):
            block = within[start : start + _ROWS_AT_ONCE]
            products = queries @ index.vectors(block.tolist()).T
            found = [
                _best(np.append(old.ids, block), np.append(old.scores, row), depth)
                for old, row in zip(found, products, strict=True)
            ]
        return found


def _best(ids: NDArray[np.int64], scores: NDArray[np.float32], depth: int) -> Ranking:
    order = np.lexsort((ids, -scores))[:depth]
    return Ranking(ids[order], scores[order])


# --- Passages that say something new: near-duplicates out, maximal marginal relevance on demand


SAME_SHARE = 0.8
"""Jaccard similarity of word 5-grams from which two texts are one (`facts/retrieval.md`, 4)."""
_GRAM = 5
_SIGN = re.compile(r"[<>≤≥±]")
_MEANING = re.compile(
    r"\d|[<>≤≥±]|^(?:no|not|never|none|nor|neither|without|cannot|avoid)$|n't$"
    r"|않|못|아니|없|금기|금지|이상|이하|미만|초과|[不未无無非勿禁零〇一二三四五六七八九十百千半上下超]|ない|ません|ไม่|ห้าม"
)


def _words(text: str) -> list[str]:
    """Words and comparators; of script without spaces single characters."""
    found = [(term.start, term.text) for term in words(text)]
    found += [(sign.start(), sign.group()) for sign in _SIGN.finditer(text)]
    return [word for _, word in sorted(found)]


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
        said = _words(text)
        grams = set(zip(*(said[start:] for start in range(_GRAM)), strict=False))
        meaning = [word for word in said if _MEANING.search(word)]
        shared = Counter(number for gram in grams for number in holders[gram])
        if tuple(said) in seen or any(
            telling[number] == meaning
            and count >= SAME_SHARE * (len(grams) + sizes[number] - count)
            for number, count in shared.items()
        ):
            continue
        for gram in grams:
            holders[gram].append(len(kept))
        seen.add(tuple(said))
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


# --- From ranked candidates to the k passages that are kept: rerank, duplicates out, MMR, quotas


LookUp = Callable[[Sequence[int]], Sequence[Passage]]
"""The passages with these ids, in this order."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that may become evidence."""

    id: int
    """The passage."""
    score: float
    """Its fused score (or the reranker's): greater is better, on no fixed scale."""
    query: Query
    """The query that put it highest."""
    found: QueryCandidates
    """What that query found."""


class Chooser:
    """Chooses k of the candidates of one problem or trace.

    Args:
        config: what is to be done.
        reranker: for `config.rerank`.
        vectors: vectors of passages by id, for `config.mmr`.
    """

    def __init__(
        self,
        config: SearchConfig,
        reranker: Reranker | None,
        vectors: Callable[[Sequence[int]], Vectors] | None,
    ) -> None:
        self._config = config
        self._reranker = reranker
        self._vectors = vectors

    def __call__(self, candidates: Sequence[Candidate], look_up: LookUp) -> list[Candidate]:
        """The chosen ones, best first; of each step no more passages are looked up than it reads."""
        config = self._config
        if self._reranker is not None:
            candidates = self._reranked(self._reranker, candidates, look_up)
        diverse = config.mmr is not None or config.quotas
        chosen = self._distinct(candidates, look_up, len(candidates) if diverse else config.k)
        if config.mmr is not None and self._vectors is not None:
            # Quotas are kept behind it, so that it must leave them more than k.
            room = len(chosen) if config.quotas else config.k
            relevance = _unit_interval([candidate.score for candidate in chosen])
            vectors = self._vectors([candidate.id for candidate in chosen])
            order = maximal_marginal_relevance(relevance, vectors, room, config.mmr)
            chosen = [chosen[position] for position in order]
        if config.quotas:
            passages = look_up([candidate.id for candidate in chosen])
            corpora = [passage.corpus for passage in passages]
            chosen = [
                chosen[position] for position in with_quotas(corpora, config.k, dict(config.quotas))
            ]
        return chosen[: config.k]

    def _reranked(
        self, reranker: Reranker, candidates: Sequence[Candidate], look_up: LookUp
    ) -> list[Candidate]:
        """The first of them by the reranker's word; the rest stays behind, in its order."""
        first = candidates[: max(self._config.rerank_depth, self._config.k)]
        passages = look_up([candidate.id for candidate in first])
        pairs = [
            (candidate.query.text, text_to_embed(passage))
            for candidate, passage in zip(first, passages, strict=True)
        ]
        relevance = reranker.relevance(pairs).tolist()
        read = [
            replace(candidate, score=score)
            for candidate, score in zip(first, relevance, strict=True)
        ]
        read.sort(key=lambda candidate: -candidate.score)
        least = min(relevance, default=0.0)
        return [*read, *(replace(rest, score=least) for rest in candidates[len(first) :])]

    def _distinct(
        self, candidates: Sequence[Candidate], look_up: LookUp, count: int
    ) -> list[Candidate]:
        """At least `count` of the candidates, near-duplicates left out, if there are so many."""
        taken = min(count, len(candidates))
        while True:
            passages = look_up([candidate.id for candidate in candidates[:taken]])
            if self._config.keep_duplicates:
                return list(candidates[:taken])
            kept = distinct([passage.text for passage in passages])
            if len(kept) >= count or taken == len(candidates):
                return [candidates[position] for position in kept]
            taken = min(len(candidates), 2 * taken)


def _unit_interval(scores: Sequence[float]) -> NDArray[np.float32]:
    """Scores stretched to [0, 1]; all 1 where they are equal."""
    values = np.asarray(scores, dtype=np.float32)
    spread = float(np.ptp(values)) if len(values) else 0.0
    if spread == 0:
        return np.ones_like(values)
    stretched: NDArray[np.float32] = (values - values.min()) / np.float32(spread)
    return stretched
