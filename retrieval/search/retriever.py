"""Evidence for problems and traces: find candidates, choose among them, look the passages up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.search.bm25 import RULE, LexicalIndex
from retrieval.search.choice import (
    CandidateSearch,
    Chooser,
    Dense,
    EvidenceCandidate,
    QueryCandidates,
)
from retrieval.search.config import Query, SearchConfig, query_of
from retrieval.search.fusion import Ranking, reciprocal_rank_fusion
from retrieval.search.rerank import Reranker
from traces import Evidence, IndexMismatch, InputError, Passage, Problem

_QUERY_BATCH = 256
"""Queries searched together: exact search in batches costs a fraction per query."""

PassageLookup = Callable[[Collection[int]], Mapping[int, Passage]]
"""Returns passages by id, like `Store.corpora.passages_by_id`."""


class PassageRetriever:
    """Finds evidence; implements the labeling package's `Retriever`.

    Args:
        config: how to search.
        passages_by_id: looks up passages.
        dense: vectors, for the modes dense and hybrid.
        lexical: words, for the modes bm25 and hybrid.
        reranker: for `config.rerank`.
        ids_of_corpus: ids of a corpus's passages, for `config.quotas` and `corpora`.
        corpora: the corpora that are searched; all if empty.

    Raises:
        InputError: the configuration needs a part that is not given.
    """

    def __init__(
        self,
        config: SearchConfig,
        passages_by_id: PassageLookup,
        *,
        dense: Dense | None = None,
        lexical: LexicalIndex | None = None,
        reranker: Reranker | None = None,
        ids_of_corpus: Callable[[str], Sequence[int]] | None = None,
        corpora: Collection[str] = (),
    ) -> None:
        self._config = config
        self._dense = dense
        self._reranker = reranker
        self._search = CandidateSearch(config, dense, lexical)
        if config.mmr is not None and config.mode == "bm25":
            raise InputError("MMR needs vectors.", remedy="use --mode hybrid or --mode dense")
        self._choose = Chooser(config, reranker, None if dense is None else dense.index.vectors)
        self._passages_by_id = passages_by_id
        self._parts: dict[str, NDArray[np.int64]] = {}
        for corpus in {*config.quotas, *corpora}:
            if ids_of_corpus is None:
                raise InputError("Quotas need the corpora's passages.")
            self._parts[corpus] = np.asarray(ids_of_corpus(corpus), dtype=np.int64)
        # Sorted, so that equal similarities keep the order of a search in all corpora.
        self._within = (
            np.unique(np.concatenate([self._parts[corpus] for corpus in corpora]))
            if corpora
            else None
        )
        self._parts = {corpus: self._parts[corpus] for corpus in config.quotas}

    def config(self) -> dict[str, Any]:
        """Return what determines the evidence besides the corpora, as strict JSON."""
        stored = self._config.as_dict()
        if self._config.mode != "dense":
            stored["words"] = RULE
        if self._dense is not None and self._config.mode != "bm25":
            stored |= {"encoder": self._dense.encoder.name, "index": self._dense.index.kind}
        if self._reranker is not None:
            stored["rerank"] = self._reranker.name
        return stored

    def retrieve(self, problems: Iterable[Problem]) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
        """Yield (problem id, evidence best first) for every problem, in order, batch by batch.

        Raises:
            IndexMismatch: the index contains a passage that the store does not have.
        """
        asked = ((problem.id, (Query(query_of(problem)),)) for problem in problems)
        return self.retrieve_for(asked)

    def retrieve_for(
        self, asked: Iterable[tuple[str, Sequence[Query]]]
    ) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
        """Yield (key, evidence best first) for keys with one or several queries, whose results are
        fused.

        Each evidence item's `step` is that of the query that ranked it highest.

        Raises:
            IndexMismatch: the index contains a passage that the store does not have.
        """
        batch: list[tuple[str, Sequence[Query]]] = []
        waiting = 0
        for key, queries in asked:
            batch.append((key, queries))
            waiting += len(queries)
            if waiting >= _QUERY_BATCH:
                yield from self._answer(batch)
                batch, waiting = [], 0
        yield from self._answer(batch)

    def search(self, text: str) -> tuple[Evidence, ...]:
        """Return the passages for one text, best first."""
        return self.search_many([text])[0]

    def search_many(self, texts: Sequence[str]) -> list[tuple[Evidence, ...]]:
        """Return the passages for each text, best first.

        Raises:
            IndexMismatch: the index contains a passage that the store does not have.
        """
        asked = [(str(number), (Query(text),)) for number, text in enumerate(texts)]
        return [evidence for _, evidence in self.retrieve_for(asked)]

    def _answer(
        self, batch: Sequence[tuple[str, Sequence[Query]]]
    ) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
        asked = [query for _, queries in batch for query in queries]
        everywhere = iter(self._search.search(asked, within=self._within))
        parts = {
            corpus: iter(self._search.search(asked, within=ids))
            for corpus, ids in self._parts.items()
        }
        known: dict[int, Passage] = {}
        for key, queries in batch:
            found = [next(everywhere) for _ in queries]
            candidates = self._fused(queries, found)
            for rest in parts.values():
                # After the candidates of all corpora: these only fill quotas.
                for passage_id, candidate in self._fused(
                    queries, [next(rest) for _ in queries]
                ).items():
                    candidates.setdefault(passage_id, candidate)
            ordered = [*candidates.values()]
            chosen = self._choose(ordered, lambda ids: self._look_up(ids, known))
            yield (
                key,
                tuple(
                    Evidence(
                        known[candidate.id], self._cosine(candidate), rank, candidate.query.step
                    )
                    for rank, candidate in enumerate(chosen)
                ),
            )

    def _fused(
        self, queries: Sequence[Query], found: Sequence[QueryCandidates]
    ) -> dict[int, EvidenceCandidate]:
        """Return the candidates of one key by id, best first, each with its best query."""
        if len(found) == 1:
            fused = found[0].ranking
        else:
            fused = reciprocal_rank_fusion(
                [each.ranking for each in found], constant=self._config.rrf_constant
            )
        best = _best_query([each.ranking for each in found])
        pairs = list(zip(fused.ids.tolist(), fused.scores.tolist(), strict=True))
        return {
            passage_id: EvidenceCandidate(
                passage_id, score, queries[best[passage_id]], found[best[passage_id]]
            )
            for passage_id, score in pairs[: self._config.pool]
        }

    def _cosine(self, candidate: EvidenceCandidate) -> float | None:
        """Return the cosine of passage and query; None without dense search."""
        found = candidate.found
        if self._dense is None or found.vector is None:
            return None
        if (known := found.cosines.get(candidate.id)) is not None:
            return known
        [vector] = self._dense.index.vectors([candidate.id])
        return float(np.clip(vector @ found.vector, -1, 1))

    def _look_up(self, ids: Sequence[int], known: dict[int, Passage]) -> list[Passage]:
        wanted = [passage_id for passage_id in ids if passage_id not in known]
        if wanted:
            known.update(self._passages_by_id(wanted))
        if missing := [passage_id for passage_id in wanted if passage_id not in known]:
            raise IndexMismatch(
                f"The index contains passage {min(missing)}, which the store does not have.",
                remedy="stepgold index",
            )
        return [known[passage_id] for passage_id in ids]


def _best_query(rankings: Sequence[Ranking]) -> dict[int, int]:
    """Return by passage the number of the query that ranks it highest; ties go to the first."""
    best: dict[int, tuple[int, int]] = {}
    for number, ranking in enumerate(rankings):
        for passage_id, rank in zip(ranking.ids.tolist(), ranking.ranks().tolist(), strict=True):
            if passage_id not in best or rank < best[passage_id][0]:
                best[passage_id] = (rank, number)
    return {passage_id: number for passage_id, (_, number) in best.items()}
