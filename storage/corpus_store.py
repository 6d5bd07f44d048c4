"""The store's part for retrieval: corpora, passages, evidence."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from storage import corpora, evidence
from storage.connection import Connections
from storage.corpus_files import CorpusFiles
from storage.outcomes import CorpusOutcome, CorpusSummary, DocumentSource
from storage.trace_evidence import TraceEvidence
from traces.evidence import Evidence, Passage
from traces.problem import Problem
from traces.records import StoredDocument


class CorpusStore:
    """What `Store` knows of corpora and of the evidence that was found in them."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.trace_evidence = TraceEvidence(connections)
        """What was retrieved for single traces."""
        self.corpus_files = CorpusFiles(connections)
        """The files that documents came from."""

    def add_documents(
        self,
        corpus: str,
        documents: Iterable[tuple[StoredDocument, Sequence[Passage]]],
        *,
        licence: str | None = None,
    ) -> CorpusOutcome:
        """Add documents with their passages to a corpus, which is made if it is new.

        A document that changed, or that is split otherwise, gets new passages with new ids.

        Raises:
            CorpusError: a name comes twice, or a passage is not a part of its document's text.
        """
        with self._connections.write() as connection:
            return corpora.add_documents(connection, corpus, documents, licence=licence)

    def corpora(self) -> list[CorpusSummary]:
        """How large every corpus is, by name."""
        with self._connections.read() as connection:
            return corpora.summaries(connection)

    def remove_corpus(self, name: str) -> None:
        """Remove a corpus; evidence that was found in it keeps its copies of the passages."""
        with self._connections.write() as connection:
            corpora.remove(connection, name)

    def passages(self, corpus: str | None = None) -> Iterator[tuple[int, Passage]]:
        """Passages (of one corpus or of all) with their ids, by id. An id is positive, never reused."""
        return corpora.passages(self._connections, corpus)

    def passages_by_id(self, ids: Collection[int]) -> dict[int, Passage]:
        """The passages with these ids; one that is not there (any more) is left out."""
        with self._connections.read() as connection:
            return corpora.passages_by_id(connection, ids)

    def passage_ids(self, corpus: str) -> list[int]:
        """Ids of the passages of a corpus, ascending."""
        with self._connections.read() as connection:
            return corpora.passage_ids(connection, corpus)

    def document_sources(
        self, named: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], DocumentSource]:
        """Where documents came from, by (corpus, document); one that is not there is left out."""
        with self._connections.read() as connection:
            return corpora.document_sources(connection, named)

    def document_names(self) -> list[tuple[str, str]]:
        """(corpus, document) of every document, in the order they were stored."""
        with self._connections.read() as connection:
            return corpora.document_names(connection)

    def corpus_fingerprint(self) -> str:
        """sha256 over the ids and contents of all passages, for the manifest of an index."""
        return corpora.fingerprint(self._connections)

    def declare_retrieval(
        self, dataset: str, config: Mapping[str, Any], *, replace: bool = False
    ) -> None:
        """Say how evidence is retrieved; with `replace`, another way drops what the old one found."""
        with self._connections.write() as connection:
            evidence.declare_retrieval(connection, dataset, config, replace=replace)

    def retrieval_config(self, dataset: str) -> Mapping[str, Any] | None:
        """How the evidence of the dataset was retrieved; None if it was not."""
        with self._connections.read() as connection:
            return evidence.retrieval_config(connection, dataset)

    def put_evidence(self, dataset: str, items: Iterable[tuple[str, Sequence[Evidence]]]) -> int:
        """Store (problem id, evidence best first), committed every 64 problems; return how many."""
        return evidence.put_evidence(self._connections, dataset, items)

    def problems_without_evidence(self, dataset: str) -> list[Problem]:
        """Problems for which retrieval has not run; one that found nothing has run."""
        with self._connections.read() as connection:
            return evidence.problems_without_evidence(connection, dataset)
