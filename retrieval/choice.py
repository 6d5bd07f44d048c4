"""From ranked candidates to the k passages that are kept: rerank, duplicates out, MMR, quotas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.candidates import QueryCandidates
from retrieval.config import RetrievalConfig
from retrieval.diversity import distinct, maximal_marginal_relevance, with_quotas
from retrieval.embedding import Vectors, text_to_embed
from retrieval.queries import Query
from retrieval.rerank import Reranker
from traces.evidence import Passage

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
        config: RetrievalConfig,
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
            if not self._config.unique:
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
