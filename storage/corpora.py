"""Corpora: documents and passages, added and replaced document by document.

The files that documents came from are recorded, so that adding a folder again costs only what
changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, func, select, update

from storage import checks
from storage.columns import Columns
from storage.database import Connections
from storage.records import DOCUMENT, PASSAGE, passage_columns
from storage.rows import chunks, delete_where, insert_missing, insert_one, insert_rows, now
from storage.tables import (
    CORPORA,
    CORPUS_FILES,
    CORPUS_SOURCES,
    DOCUMENT_ORIGINS,
    DOCUMENTS,
    PASSAGES,
)
from traces import CorpusError, Passage, StoredDocument
from traces.words import detect_language

_PAGE = 1000
_CONTENT = attrgetter("corpus", "document", "index", "start", "end", "title", "text")


@dataclass(frozen=True, slots=True)
class CorpusOutcome:
    """The outcome for the documents of one call."""

    done: int
    """Documents that are new or were replaced."""
    unchanged: int
    """Documents that the corpus had with the same content and passages."""


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
    languages: Mapping[str, int] = field(default_factory=dict)
    """Number of its documents by detected language, most frequent first."""


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Where a document came from, and under which license its corpus is."""

    source: str
    """The document's own URL or path."""
    licence: str | None
    """License of the corpus; None if not stated."""
    origin: str | None
    """Source of the corpus as a whole; None if not stated."""


@dataclass(frozen=True, slots=True)
class FileKey:
    """A file of a corpus, by the path that it was added with."""

    root: str
    """Absolute path of the folder that was added, or of the parent of a file added by name."""
    path: str
    """Path below the root, with `/`."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as it was last read."""

    sha256: str | None
    """Hash of its bytes; None if not all of its documents are stored."""
    settings: str
    """How it was read."""
    problems: tuple[Mapping[str, Any], ...]
    """What could not be read."""
    documents: int
    """How many documents of the corpus came from it."""


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """A document of the corpus."""

    sha256: str
    """Hash of title and text."""
    source: str
    """Where it came from."""
    split: str | None
    """How it was split; None in older databases."""
    file: FileKey | None
    """The file it came from; None in older databases."""


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
            rows = list(connection.execute(query.order_by(CORPORA.c.name)))
            languages = _languages(connection)
        return [
            CorpusSummary(**row._mapping, languages=languages.get(row.name, {})) for row in rows
        ]

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

    def document(
        self, name: str, *, corpus: str | None = None
    ) -> list[tuple[str, str, list[Passage]]]:
        """(corpus, text, passages in order) of the documents with this name; usually one."""
        query = select(DOCUMENTS.c.pk, DOCUMENTS.c.text, CORPORA.c.name).join(
            CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk
        )
        query, found = query.where(DOCUMENTS.c.name == name).order_by(DOCUMENTS.c.pk), []
        with self._connections.read() as connection:
            if corpus is not None:
                query = query.where(CORPORA.c.pk == corpus_pk(connection, corpus))
            for row in connection.execute(query).all():
                own = _passages().where(PASSAGES.c.document_pk == row.pk)
                passages = map(PASSAGE.record, connection.execute(own).all())
                found.append((row.name, row.text, sorted(passages, key=lambda one: one.index)))
        return found

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
            content = [passage_id, *_CONTENT(passage)]
            state.update(checks.canonical(content).encode())
        return state.hexdigest()


def _languages(connection: Connection) -> dict[str, dict[str, int]]:
    """The number of documents by language, of every corpus that has some."""
    counted = func.count(DOCUMENTS.c.pk)
    query = (
        select(CORPORA.c.name, DOCUMENTS.c.language, counted)
        .join(DOCUMENTS, DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
        .where(DOCUMENTS.c.language.is_not(None))
        .group_by(CORPORA.c.name, DOCUMENTS.c.language)
    )
    found: dict[str, dict[str, int]] = {}
    for corpus, language, documents in connection.execute(
        query.order_by(counted.desc(), DOCUMENTS.c.language)
    ):
        found.setdefault(corpus, {})[language] = documents
    return found


def _passages() -> Select[Any]:
    return (
        select(PASSAGES, CORPORA.c.name.label("corpus"), DOCUMENTS.c.name.label("document"))
        .join(DOCUMENTS, PASSAGES.c.document_pk == DOCUMENTS.c.pk)
        .join(CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
        .order_by(PASSAGES.c.id)
    )


class CorpusFiles:
    """The files that documents came from; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def known(self, corpus: str, root: str) -> dict[str, KnownFile]:
        """The files read from below `root`, by path; empty for a corpus that is not there."""
        counted = (
            select(func.count())
            .select_from(DOCUMENT_ORIGINS)
            .where(DOCUMENT_ORIGINS.c.corpus_file_pk == CORPUS_FILES.c.pk)
            .scalar_subquery()
        )
        query = (
            select(CORPUS_FILES, counted.label("documents"))
            .join(CORPORA, CORPUS_FILES.c.corpus_pk == CORPORA.c.pk)
            .where(CORPORA.c.name == corpus, CORPUS_FILES.c.root == root)
        )
        with self._connections.read() as connection:
            return {
                row.path: KnownFile(row.sha256, row.settings, tuple(row.problems), row.documents)
                for row in connection.execute(query)
            }

    def documents(self, corpus: str, names: Collection[str]) -> dict[str, KnownDocument]:
        """Those of the named documents that are in the corpus."""
        found: dict[str, KnownDocument] = {}
        columns = (DOCUMENTS.c.name, DOCUMENTS.c.sha256, DOCUMENTS.c.source)
        query = (
            select(*columns, DOCUMENT_ORIGINS.c.split, CORPUS_FILES.c.root, CORPUS_FILES.c.path)
            .join(CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
            .outerjoin(DOCUMENT_ORIGINS, DOCUMENT_ORIGINS.c.document_pk == DOCUMENTS.c.pk)
            .outerjoin(CORPUS_FILES, CORPUS_FILES.c.pk == DOCUMENT_ORIGINS.c.corpus_file_pk)
            .where(CORPORA.c.name == corpus)
        )
        with self._connections.read() as connection:
            for chunk in chunks(names):
                for row in connection.execute(query.where(DOCUMENTS.c.name.in_(chunk))):
                    file = None if row.root is None else FileKey(row.root, row.path)
                    found[row.name] = KnownDocument(row.sha256, row.source, row.split, file)
        return found

    def put(
        self,
        corpus: str,
        file: FileKey,
        documents: Sequence[tuple[StoredDocument, Sequence[Passage]]],
        *,
        split: str,
        same: Sequence[StoredDocument] = (),
    ) -> CorpusOutcome:
        """Store documents of one file, which counts as unfinished until `finish`.

        A document replaces the one of its name, with its passages; an equal one stays, with the
        ids of its passages. All of them belong to this file from now on.

        Args:
            corpus: created if it is new.
            file: the file.
            documents: documents with their passages.
            split: settings of the splitter that made the passages.
            same: documents that are already in the corpus with the same text and split.

        Raises:
            CorpusError: a name occurs twice, or a passage is not part of its document's text.
        """
        with self._connections.write() as connection:
            outcome = add_documents(connection, corpus, documents, licence=None)
            owner = corpus_pk(connection, corpus)
            for document in same:
                _set_source(connection, owner, document)
            names = [document.name for document in (*(each for each, _ in documents), *same)]
            pk = _file_pk(connection, owner, file)
            _link(connection, owner, names, {"corpus_file_pk": pk, "split": split})
            return CorpusOutcome(outcome.done, outcome.unchanged + len(same))

    def finish(
        self,
        corpus: str,
        file: FileKey,
        *,
        sha256: str | None,
        settings: str,
        problems: Sequence[Mapping[str, Any]],
        names: Collection[str] | None,
    ) -> list[str]:
        """Record that a file was read, and remove its documents of other names.

        Args:
            corpus: the corpus.
            file: the file.
            sha256: hash of its bytes; None if it must be read again next time.
            settings: how it was read.
            problems: what could not be read, strict JSON.
            names: its documents; None keeps those it had before.

        Returns:
            The names of the removed documents.
        """
        with self._connections.write() as connection:
            owner = ensure_corpus(connection, corpus, None)
            pk = _file_pk(connection, owner, file)
            connection.execute(
                update(CORPUS_FILES)
                .where(CORPUS_FILES.c.pk == pk)
                .values(sha256=sha256, settings=settings, problems=list(problems))
            )
            if names is None:
                return []
            gone = [row for row in _documents_of(connection, pk) if row[1] not in names]
            delete_where(connection, DOCUMENTS.c.pk, [row[0] for row in gone])
            return [row[1] for row in gone]

    def forget(self, corpus: str, root: str, paths: Collection[str]) -> list[str]:
        """Remove files that are gone with their documents, and return the documents' names."""
        removed: list[str] = []
        with self._connections.write() as connection:
            owner = corpus_pk(connection, corpus)
            for path in paths:
                pk = _file_pk(connection, owner, FileKey(root, path))
                documents = _documents_of(connection, pk)
                delete_where(connection, DOCUMENTS.c.pk, [row[0] for row in documents])
                removed += [row[1] for row in documents]
                connection.execute(delete(CORPUS_FILES).where(CORPUS_FILES.c.pk == pk))
        return removed

    def remove_document(self, corpus: str, name: str) -> None:
        """Remove one document; its file is read again when it is added again.

        Raises:
            InputError: there is no such corpus or document.
        """
        with self._connections.write() as connection:
            owner = corpus_pk(connection, corpus)
            here = (DOCUMENTS.c.corpus_pk == owner, DOCUMENTS.c.name == name)
            pk = connection.scalar(select(DOCUMENTS.c.pk).where(*here))
            if pk is None:
                names = connection.scalars(
                    select(DOCUMENTS.c.name).where(DOCUMENTS.c.corpus_pk == owner)
                )
                raise checks.known(
                    "document", name, names, make="add some with `stepgold corpus add PATH`"
                )
            _unfinish(connection, [pk])
            connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.pk == pk))

    def describe(self, corpus: str, *, licence: str | None, source: str | None) -> None:
        """State the license and source of a corpus; None keeps what was stated before."""
        checks.optional_text(source, "The source")
        with self._connections.write() as connection:
            owner = ensure_corpus(connection, corpus, licence)
            if source is not None:
                connection.execute(
                    delete(CORPUS_SOURCES).where(CORPUS_SOURCES.c.corpus_pk == owner)
                )
                row = {"corpus_pk": owner, "source": source}
                connection.execute(CORPUS_SOURCES.insert().values(row))


def _file_pk(connection: Connection, owner: int, file: FileKey) -> int:
    row = {"corpus_pk": owner, "root": file.root, "path": file.path, "settings": "", "problems": []}
    insert_missing(connection, CORPUS_FILES, [row], key=["corpus_pk", "root", "path"])
    here = (
        CORPUS_FILES.c.corpus_pk == owner,
        CORPUS_FILES.c.root == file.root,
        CORPUS_FILES.c.path == file.path,
    )
    return int(connection.scalar(select(CORPUS_FILES.c.pk).where(*here)) or 0)


def _documents_of(connection: Connection, file: int) -> list[tuple[int, str]]:
    query = (
        select(DOCUMENTS.c.pk, DOCUMENTS.c.name)
        .join(DOCUMENT_ORIGINS, DOCUMENT_ORIGINS.c.document_pk == DOCUMENTS.c.pk)
        .where(DOCUMENT_ORIGINS.c.corpus_file_pk == file)
        .order_by(DOCUMENTS.c.pk)
    )
    return [(row.pk, row.name) for row in connection.execute(query)]


def _link(connection: Connection, corpus: int, names: Sequence[str], origin: Columns) -> None:
    """Make the documents those of a file; it and the files they leave become unfinished."""
    connection.execute(
        update(CORPUS_FILES)
        .where(CORPUS_FILES.c.pk == origin["corpus_file_pk"])
        .values(sha256=None)
    )
    for chunk in chunks(names):
        here = and_(DOCUMENTS.c.corpus_pk == corpus, DOCUMENTS.c.name.in_(chunk))
        documents = list(connection.scalars(select(DOCUMENTS.c.pk).where(here)))
        _unfinish(connection, documents)
        delete_where(connection, DOCUMENT_ORIGINS.c.document_pk, documents)
        rows = [{"document_pk": document} | origin for document in documents]
        insert_rows(connection, DOCUMENT_ORIGINS, rows)


def _unfinish(connection: Connection, documents: Sequence[int]) -> None:
    """Have the files of these documents read again next time."""
    origins = select(DOCUMENT_ORIGINS.c.corpus_file_pk).where(
        DOCUMENT_ORIGINS.c.document_pk.in_(documents)
    )
    connection.execute(
        update(CORPUS_FILES).where(CORPUS_FILES.c.pk.in_(origins)).values(sha256=None)
    )


def _set_source(connection: Connection, corpus: int, document: StoredDocument) -> None:
    """Update where a stored document was read from."""
    here = (DOCUMENTS.c.corpus_pk == corpus, DOCUMENTS.c.name == document.name)
    source = checks.plain_text(document.source, f"The source of document {document.name!r}")
    other = DOCUMENTS.c.source != source
    connection.execute(update(DOCUMENTS).where(*here, other).values(source=source))


def add_documents(
    connection: Connection,
    corpus: str,
    documents: Iterable[tuple[StoredDocument, Sequence[Passage]]],
    *,
    licence: str | None,
) -> CorpusOutcome:
    """See `StoredCorpora.add`; the transaction is the caller's."""
    pk = ensure_corpus(connection, corpus, licence)
    seen: set[str] = set()
    done = unchanged = 0
    for document, passages in documents:
        if document.name in seen:
            raise CorpusError(
                f"The document {document.name!r} occurs twice.",
                where=document.source,
                remedy="give the documents different names, or leave one out",
            )
        seen.add(document.name)
        row = DOCUMENT.columns(document, f"document {document.name!r}")
        row["language"] = detect_language(document.text)
        rows = [_own_passage(corpus, document, passage) for passage in passages]
        if _is_stored(connection, pk, row, rows):
            unchanged += 1
            continue
        done += 1
        here = and_(DOCUMENTS.c.corpus_pk == pk, DOCUMENTS.c.name == document.name)
        connection.execute(delete(DOCUMENTS).where(here))
        owner = {"document_pk": insert_one(connection, DOCUMENTS, row | {"corpus_pk": pk})}
        insert_rows(connection, PASSAGES, [passage | owner for passage in rows])
    return CorpusOutcome(done, unchanged)


def _own_passage(corpus: str, document: StoredDocument, passage: Passage) -> Columns:
    if (passage.corpus, passage.document) != (corpus, document.name):
        raise CorpusError(
            f"A passage of document {passage.document!r} of corpus {passage.corpus!r} was given"
            f" with document {document.name!r} of corpus {corpus!r}."
        )
    if document.text[passage.start : passage.end] != passage.text:
        raise CorpusError(
            f"Passage {passage.index} of document {document.name!r} differs from the document's"
            f" text from {passage.start} to {passage.end}."
        )
    return passage_columns(passage)


def _is_stored(
    connection: Connection, corpus: int, document: Columns, passages: Sequence[Columns]
) -> bool:
    here = and_(DOCUMENTS.c.corpus_pk == corpus, DOCUMENTS.c.name == document["name"])
    stored = connection.execute(select(DOCUMENTS).where(here)).one_or_none()
    # The same text from another source is the same document: its passages keep their vectors.
    content = {key: value for key, value in document.items() if key != "source"}
    if stored is None or any(getattr(stored, key) != value for key, value in content.items()):
        return False
    columns = [column for column in PASSAGES.c if column.name not in ("id", "document_pk")]
    query = select(*columns).where(PASSAGES.c.document_pk == stored.pk)
    rows = connection.execute(query.order_by(PASSAGES.c.passage_index)).mappings()
    wanted = sorted(passages, key=lambda passage: int(passage["passage_index"]))
    if [dict(row) for row in rows] != wanted:
        return False
    source = document["source"]
    connection.execute(update(DOCUMENTS).where(DOCUMENTS.c.pk == stored.pk).values(source=source))
    return True


def corpus_pk(connection: Connection, corpus: str) -> int:
    """The key of a corpus.

    Raises:
        InputError: there is none of that name.
    """
    pk = connection.scalar(select(CORPORA.c.pk).where(CORPORA.c.name == corpus))
    if pk is None:
        names = connection.scalars(select(CORPORA.c.name))
        raise checks.known(
            "corpus", corpus, names, make="add one with `stepgold corpus add PATH --corpus NAME`"
        )
    return int(pk)


def ensure_corpus(connection: Connection, corpus: str, licence: str | None) -> int:
    """The key of a corpus, which is created if it is new; a license replaces the stated one."""
    name = checks.name(corpus, "The corpus name")
    checks.optional_text(licence, "The license")
    pk = connection.scalar(select(CORPORA.c.pk).where(CORPORA.c.name == name))
    if pk is None:
        row = {"name": name, "licence": licence, "created_at": now()}
        return insert_one(connection, CORPORA, row)
    if licence is not None:
        connection.execute(update(CORPORA).where(CORPORA.c.pk == pk).values(licence=licence))
    return int(pk)
