"""Candidates for queries: by vectors, by words, by titles, fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.bm25 import LexicalIndex
from retrieval.config import RetrievalConfig
from retrieval.embedding import Vectors
from retrieval.encoder import Encoder
from retrieval.fusion import Ranking, reciprocal_rank_fusion
from traces.errors import InputError

_ROWS_AT_ONCE = 50_000


class VectorIndex(Protocol):
    """What is needed of `retrieval.index.PassageIndex`."""

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
        self, config: RetrievalConfig, dense: Dense | None, lexical: LexicalIndex | None
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
        return reciprocal_rank_fusion(rankings, constant=self._config.constant)

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
