"""Candidates for queries, by vectors, words and titles, and the choice of k passages among them.

The choice reranks, drops near-duplicates, and applies maximal marginal relevance and quotas, as
configured.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.index.encoder import Encoder, SeeingEncoder, Vectors, text_to_embed
from retrieval.search.bm25 import LexicalIndex
from retrieval.search.config import Query, SearchConfig
from retrieval.search.fusion import Ranking, reciprocal_rank_fusion
from retrieval.search.rerank import Reranker
from traces import InputError, Passage
from traces.words import words

_ROWS_AT_ONCE = 50_000


class VectorIndex(Protocol):
    """The part of `retrieval.index.index.PassageIndex` that search uses."""

    @property
    def kind(self) -> str:
        """flat, hnsw, ivf or another kind."""

    def search(
        self, vectors: Vectors, k: int
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
        """Return ids and cosines of the nearest passages of each row, best first."""

    def vectors(self, ids: Sequence[int]) -> Vectors:
        """Return the vectors of these passages, shape (n, dimension)."""


@dataclass(frozen=True, slots=True)
class Dense:
    """An index with the encoder it was built with."""

    index: VectorIndex
    encoder: Encoder


@dataclass(frozen=True, slots=True)
class QueryCandidates:
    """The passages found for one query."""

    ranking: Ranking
    """Passages by fused score, or by the only search in use."""
    vector: NDArray[np.float32] | None
    """The query's unit vector; None without dense search."""
    cosines: dict[int, float]
    """Cosines of the passages found by dense search."""


def _encoded(encoder: Encoder, queries: Sequence[Query]) -> Vectors:
    """Return the unit vectors of queries, shape (n, dimension)."""
    vectors = encoder.encode([query.text for query in queries], query=True)
    seen = [(row, query.image) for row, query in enumerate(queries) if query.image is not None]
    if seen:
        if not isinstance(encoder, SeeingEncoder):
            raise InputError("The encoder reads texts alone.", where="--encoder")
        vectors[[row for row, _ in seen]] = encoder.encode_images([image for _, image in seen])
    return vectors


class CandidateSearch:
    """Ranks passages for queries, by one search or several fused.

    Args:
        config: mode, depth and the constant of the fusion are used.
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
                f"Search mode '{config.mode}' needs an index.", remedy="stepgold index"
            )

    def search(
        self, queries: Sequence[Query], *, within: NDArray[np.int64] | None = None
    ) -> list[QueryCandidates]:
        """Return the candidates of each query, best first, at most `config.pool` per search.

        Args:
            queries: what is searched for; images need an encoder that sees.
            within: ids of the passages that may be found; None for all.

        Raises:
            InputError: an image, and an encoder of texts alone.
        """
        if not queries:
            return []
        texts = [query.text for query in queries]
        rankings: list[list[Ranking]] = [[] for _ in texts]
        vectors: Vectors | None = None
        cosines: list[dict[int, float]] = [{} for _ in texts]
        if self._dense is not None:
            vectors = _encoded(self._dense.encoder, queries)
            nearest = self._nearest(self._dense.index, vectors, within)
            for ways, found, ranking in zip(rankings, cosines, nearest, strict=True):
                ways.append(ranking)
                pairs = zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True)
                found.update(pairs)
        if self._lexical is not None:
            among = None if within is None else np.isin(self._lexical.ids, within)
            searches = [self._lexical.search]
            # A title search alone would decide the ranking; fused, it is one vote of several.
            if self._config.mode == "hybrid":
                searches.append(self._lexical.search_titles)
            for search in searches:
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
        # A subset is searched exactly, block by block: filtering a graph search costs recall.
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


SAME_SHARE = 0.8
"""Jaccard similarity of word 5-grams above which two texts are near-duplicates."""
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
    """Return the positions of texts that are not near-duplicates of an earlier one.

    Two texts are near-duplicates if they differ only in case, punctuation and white space, or if
    they share 0.8 of their word 5-grams and have the same numbers, comparators and negations in the
    same order: guideline sentences that differ in a dose are always distinct.
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
    """Return positions chosen one by one for relevance and for distance from those already chosen.

    Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998: the highest
    weight * relevance - (1 - weight) * (highest cosine to a chosen one) is next.

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
    """Return the positions of `count` passages, best first, with at least its quota of each corpus.

    Quotas keep a large corpus from crowding out the others (as in dmis-lab's RAG2). The remaining
    places are filled by rank; a corpus with too few passages gives up the rest of its quota.

    Args:
        corpora: the corpus of each candidate, best first.
        count: how many to choose; at least the sum of the quotas.
        quotas: minimum of passages by corpus.
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


LookUp = Callable[[Sequence[int]], Sequence[Passage]]
"""Returns the passages with these ids, in this order."""


@dataclass(frozen=True, slots=True)
class EvidenceCandidate:
    """A passage that may become evidence."""

    id: int
    """Of the passage."""
    score: float
    """Its fused score (or the reranker's): higher is better, on no fixed scale."""
    query: Query
    """The query that ranked it highest."""
    found: QueryCandidates
    """The candidates of that query."""


class Chooser:
    """Chooses k of the candidates of one problem or trace.

    Args:
        config: which of the steps to apply.
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

    def __call__(
        self, candidates: Sequence[EvidenceCandidate], look_up: LookUp
    ) -> list[EvidenceCandidate]:
        """Return the chosen candidates, best first; each step looks up only what it reads."""
        config = self._config
        if self._reranker is not None:
            candidates = self._reranked(self._reranker, candidates, look_up)
        diverse = config.mmr is not None or config.quotas
        chosen = self._distinct(candidates, look_up, len(candidates) if diverse else config.k)
        if config.mmr is not None and self._vectors is not None:
            # Quotas are applied later and need more than k to choose from.
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
        self, reranker: Reranker, candidates: Sequence[EvidenceCandidate], look_up: LookUp
    ) -> list[EvidenceCandidate]:
        """Sort the first candidates by the reranker's score; the rest follow in their order."""
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
        self, candidates: Sequence[EvidenceCandidate], look_up: LookUp, count: int
    ) -> list[EvidenceCandidate]:
        """Return at least `count` candidates (or all) without near-duplicates."""
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
    """Stretch scores to [0, 1]; all 1 if they are equal."""
    values = np.asarray(scores, dtype=np.float32)
    spread = float(np.ptp(values)) if len(values) else 0.0
    if spread == 0:
        return np.ones_like(values)
    stretched: NDArray[np.float32] = (values - values.min()) / np.float32(spread)
    return stretched
