"""The files that documents came from, so that adding a folder again costs only what changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, func, select, update

from storage import checks
from storage.columns import Columns
from storage.database import Connections
from storage.documents import CorpusOutcome, add_documents, corpus_pk, ensure_corpus
from storage.rows import chunks, delete_where, insert_missing, insert_rows
from storage.tables import (
    CORPORA,
    CORPUS_FILES,
    CORPUS_SOURCES,
    DOCUMENT_ORIGINS,
    DOCUMENTS,
)
from traces.evidence import Passage
from traces.records import StoredDocument


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
