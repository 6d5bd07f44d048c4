"""Evidence for problems: encode the queries, search the index, look the passages up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from string import ascii_uppercase

from retrieval.encoder import Encoder
from retrieval.index import PassageIndex
from traces.errors import IndexMismatch, InputError
from traces.evidence import Evidence, Passage
from traces.problem import Problem

_QUERY_BATCH = 256
"""Queries searched at once: exact search in batches costs a small part of one by one."""


def query_of(problem: Problem) -> str:
    """What is looked for: the question, with its lettered options below."""
    options = [
        f"({ascii_uppercase[index]}) {option}" if index < len(ascii_uppercase) else option
        for index, option in enumerate(problem.options)
    ]
    return "\n".join([problem.question, *options])


class DenseRetriever:
    """Finds the passages nearest to each problem by the cosine of their vectors.

    Args:
        index: the index.
        encoder: the encoder the index was built with.
        passages_by_id: looks passages up (`Store.passages_by_id`).
        k: passages a query, at least 1.

    Raises:
        InputError: k is below 1.
    """

    def __init__(
        self,
        index: PassageIndex,
        encoder: Encoder,
        passages_by_id: Callable[[Collection[int]], Mapping[int, Passage]],
        k: int = 5,
    ) -> None:
        if k < 1:
            raise InputError(f"Cannot look for {k} passages.", remedy="choose k of at least 1")
        self._index = index
        self._encoder = encoder
        self._passages_by_id = passages_by_id
        self._k = k

    def config(self) -> dict[str, str | int]:
        """What decides the evidence besides the corpora, as strict JSON."""
        return {
            "retriever": "dense",
            "encoder": self._encoder.name,
            "index": self._index.kind,
            "query": "question+options",
            "k": self._k,
        }

    def retrieve(self, problems: Iterable[Problem]) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
        """Yield (problem id, evidence best first) for every problem, in order, batch by batch.

        Raises:
            IndexMismatch: the index names a passage that the store does not have.
        """
        remaining = iter(problems)
        while batch := list(islice(remaining, _QUERY_BATCH)):
            found = self.search_many([query_of(problem) for problem in batch])
            for problem, evidence in zip(batch, found, strict=True):
                yield problem.id, evidence

    def search(self, text: str) -> tuple[Evidence, ...]:
        """The passages nearest to one text, best first."""
        return self.search_many([text])[0]

    def search_many(self, texts: Sequence[str]) -> list[tuple[Evidence, ...]]:
        """The passages nearest to each text, best first.

        Raises:
            IndexMismatch: the index names a passage that the store does not have.
        """
        ids, similarities = self._index.search(self._encoder.encode(texts, query=True), self._k)
        wanted = {int(passage_id) for row in ids for passage_id in row}
        passages = self._passages_by_id(wanted)
        if missing := wanted - passages.keys():
            raise IndexMismatch(
                f"The index names passage {min(missing)}, which the store does not have.",
                remedy="build the index anew with `stepgold index`",
            )
        return [
            tuple(
                Evidence(passages[int(passage_id)], float(similarity), rank)
                for rank, (passage_id, similarity) in enumerate(zip(row, values, strict=True))
            )
            for row, values in zip(ids, similarities, strict=True)
        ]
