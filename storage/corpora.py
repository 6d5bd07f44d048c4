"""Corpora: documents and passages, added and replaced document by document."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Select, and_, delete, func, select

from storage import checks
from storage.corpus_files import CorpusFiles
from storage.database import Connections
from storage.documents import CorpusOutcome, add_documents, corpus_pk
from storage.records import PASSAGE
from storage.rows import chunks
from storage.tables import CORPORA, CORPUS_SOURCES, DOCUMENTS, PASSAGES
from traces.evidence import Passage
from traces.records import StoredDocument

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """The size and origin of a corpus."""

    name: str
    documents: int
    passages: int
    licence: str | None
    """Its license as the user stated it; None if not stated."""
    source: str | None = None
    """Where it comes from as the user stated it; None if not stated."""


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Where a document came from, and under which license its corpus is."""

    source: str
    """The document's own URL or path."""
    licence: str | None
    """License of the corpus; None if not stated."""
    origin: str | None
    """Source of the corpus as a whole; None if not stated."""


class StoredCorpora:
    """Corpora and their passages; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.files = CorpusFiles(connections)

    def add(
        self,
        corpus: str,
        documents: Iterable[tuple[StoredDocument, Sequence[Passage]]],
        *,
        licence: str | None = None,
    ) -> CorpusOutcome:
        """Add documents with their passages to a corpus, which is created if it is new.

        A document that changed, or whose passages did, gets new passages with new ids. A license
        replaces the stated one.

        Raises:
            CorpusError: a name occurs twice, or a passage is not part of its document's text.
            InputError: a text cannot be stored.
        """
        with self._connections.write() as connection:
            return add_documents(connection, corpus, documents, licence=licence)

    def summaries(self) -> list[CorpusSummary]:
        """The size of every corpus, by name."""
        documents = select(func.count()).where(DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
        passages = (
            select(func.count())
            .select_from(PASSAGES.join(DOCUMENTS, PASSAGES.c.document_pk == DOCUMENTS.c.pk))
            .where(DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
        )
        query = select(
            CORPORA.c.name,
            documents.correlate(CORPORA).scalar_subquery().label("documents"),
            passages.correlate(CORPORA).scalar_subquery().label("passages"),
            CORPORA.c.licence,
            CORPUS_SOURCES.c.source,
        ).outerjoin(CORPUS_SOURCES, CORPUS_SOURCES.c.corpus_pk == CORPORA.c.pk)
        with self._connections.read() as connection:
            rows = connection.execute(query.order_by(CORPORA.c.name))
            return [CorpusSummary(**row._mapping) for row in rows]

    def remove(self, corpus: str) -> None:
        """Remove a corpus; evidence found in it keeps its copies of the passages."""
        with self._connections.write() as connection:
            pk = corpus_pk(connection, corpus)
            connection.execute(delete(CORPORA).where(CORPORA.c.pk == pk))

    def passages(self, corpus: str | None = None) -> Iterator[tuple[int, Passage]]:
        """Passages of one corpus or of all with their ids, by id, read page by page.

        An id is positive and never reused. The name of the corpus is checked at once.
        """
        query = _passages()
        if corpus is not None:
            with self._connections.read() as connection:
                query = query.where(CORPORA.c.pk == corpus_pk(connection, corpus))
        return self._pages(query)

    def _pages(self, query: Select[Any]) -> Iterator[tuple[int, Passage]]:
        last = 0
        while True:
            with self._connections.read() as connection:
                rows = list(connection.execute(query.where(PASSAGES.c.id > last).limit(_PAGE)))
            for row in rows:
                yield row.id, PASSAGE.record(row)
            if len(rows) < _PAGE:
                return
            last = rows[-1].id

    def passages_by_id(self, ids: Collection[int]) -> dict[int, Passage]:
        """The passages with these ids; ids that do not exist (any more) are left out."""
        found: dict[int, Passage] = {}
        with self._connections.read() as connection:
            for chunk in chunks(map(int, ids)):
                for row in connection.execute(_passages().where(PASSAGES.c.id.in_(chunk))):
                    found[row.id] = PASSAGE.record(row)
        return found

    def passage_ids(self, corpus: str) -> list[int]:
        """Ids of the passages of a corpus, ascending."""
        with self._connections.read() as connection:
            query = (
                select(PASSAGES.c.id)
                .join(DOCUMENTS, PASSAGES.c.document_pk == DOCUMENTS.c.pk)
                .where(DOCUMENTS.c.corpus_pk == corpus_pk(connection, corpus))
            )
            return list(connection.scalars(query.order_by(PASSAGES.c.id)))

    def document_sources(
        self, named: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], DocumentSource]:
        """Where documents came from, by (corpus, document); unknown ones are left out."""
        found: dict[tuple[str, str], DocumentSource] = {}
        query = (
            select(
                CORPORA.c.name.label("corpus"),
                DOCUMENTS.c.name,
                DOCUMENTS.c.source,
                CORPORA.c.licence,
                CORPUS_SOURCES.c.source.label("origin"),
            )
            .join(CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
            .outerjoin(CORPUS_SOURCES, CORPUS_SOURCES.c.corpus_pk == CORPORA.c.pk)
        )
        with self._connections.read() as connection:
            for corpus in {corpus for corpus, _ in named}:
                for chunk in chunks(name for other, name in named if other == corpus):
                    here = and_(CORPORA.c.name == corpus, DOCUMENTS.c.name.in_(chunk))
                    for row in connection.execute(query.where(here)):
                        place = DocumentSource(row.source, row.licence, row.origin)
                        found[row.corpus, row.name] = place
        return found

    def document_names(self) -> list[tuple[str, str]]:
        """(corpus, document) of every document, in the order they were stored."""
        query = select(CORPORA.c.name.label("corpus"), DOCUMENTS.c.name).join(
            CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk
        )
        with self._connections.read() as connection:
            rows = connection.execute(query.order_by(DOCUMENTS.c.pk))
            return [(row.corpus, row.name) for row in rows]

    def fingerprint(self) -> str:
        """sha256 over the ids and contents of all passages: changes when an index is outdated."""
        state = sha256()
        for passage_id, passage in self.passages():
            content = [
                passage_id,
                passage.corpus,
                passage.document,
                passage.index,
                passage.start,
                passage.end,
                passage.title,
                passage.text,
            ]
            state.update(checks.canonical(content).encode())
        return state.hexdigest()


def _passages() -> Select[Any]:
    return (
        select(PASSAGES, CORPORA.c.name.label("corpus"), DOCUMENTS.c.name.label("document"))
        .join(DOCUMENTS, PASSAGES.c.document_pk == DOCUMENTS.c.pk)
        .join(CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
        .order_by(PASSAGES.c.id)
    )
