"""Documents by the file they came from: what is unchanged is not read, what is gone is removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from storage import checks, corpora
from storage.bulk import chunks, delete_where_in, insert_missing, insert_rows
from storage.connection import Connections
from storage.outcomes import CorpusOutcome
from storage.tables import CORPORA, CORPUS_FILES, CORPUS_SOURCES, DOCUMENT_ORIGINS, DOCUMENTS
from traces.evidence import Passage
from traces.records import StoredDocument


@dataclass(frozen=True, slots=True)
class FileKey:
    """A file within a corpus: where it lies now may be elsewhere than where it lay."""

    root: str
    """Absolute path of the folder that was added, or of the parent folder of a named file."""
    path: str
    """Path below the root, with `/`."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as it was read last."""

    sha256: str | None
    """Hash of its bytes; None if not all of its documents are stored."""
    settings: str
    """How it was read."""
    problems: tuple[Mapping[str, Any], ...]
    """What of it could not be read."""
    documents: int
    """Documents that stand in the corpus from it."""


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """A document as it stands in the corpus."""

    sha256: str
    """Hash of title and text."""
    source: str
    """Where it came from, as stored."""
    split: str | None
    """How it was split; None in older databases."""
    file: FileKey | None
    """The file it came from; None in older databases."""


class CorpusFiles:
    """The files behind the documents of the corpora."""

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
        """Those of the named documents that stand in the corpus."""
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

        A document takes the place of one of its name, with the passages; an equal one stays, with
        the ids of its passages. All belong to this file from now on.

        Args:
            corpus: made if it is new.
            file: the file.
            documents: documents with their passages.
            split: settings that the passages were made by.
            same: documents that are known to stand in the corpus with the same text and split.

        Raises:
            CorpusError: a name comes twice, or a passage is not a part of its document's text.
        """
        with self._connections.write() as connection:
            outcome = corpora.add_documents(connection, corpus, documents, licence=None)
            owner = corpora.corpus_pk(connection, corpus)
            for document in same:
                corpora.set_source(connection, owner, document)
            names = [document.name for document in (*(each for each, _ in documents), *same)]
            _link(connection, owner, file, names, split)
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
        """Say that a file was read: its documents of other names are removed, and their names given.

        Args:
            corpus: the corpus.
            file: the file.
            sha256: hash of its bytes; None if it must be read again next time.
            settings: how it was read.
            problems: what of it could not be read, strict JSON.
            names: its documents; None keeps those that were there before.
        """
        with self._connections.write() as connection:
            owner = corpora.ensure_corpus(connection, corpus, None)
            pk = _file_pk(connection, owner, file)
            connection.execute(
                update(CORPUS_FILES)
                .where(CORPUS_FILES.c.pk == pk)
                .values(sha256=sha256, settings=settings, problems=list(problems))
            )
            if names is None:
                return []
            gone = [row for row in _documents_of(connection, pk) if row[1] not in names]
            delete_where_in(connection, DOCUMENTS, DOCUMENTS.c.pk, [row[0] for row in gone])
            return [row[1] for row in gone]

    def forget(self, corpus: str, root: str, paths: Collection[str]) -> list[str]:
        """Remove files that are gone, with their documents; give the names of the documents."""
        removed: list[str] = []
        with self._connections.write() as connection:
            owner = corpora.corpus_pk(connection, corpus)
            for path in paths:
                pk = _file_pk(connection, owner, FileKey(root, path))
                documents = _documents_of(connection, pk)
                delete_where_in(
                    connection, DOCUMENTS, DOCUMENTS.c.pk, [row[0] for row in documents]
                )
                removed += [row[1] for row in documents]
                connection.execute(delete(CORPUS_FILES).where(CORPUS_FILES.c.pk == pk))
        return removed

    def remove_document(self, corpus: str, name: str) -> None:
        """Remove one document; its file is read again when it is added again.

        Raises:
            InputError: there is no such corpus or document.
        """
        with self._connections.write() as connection:
            owner = corpora.corpus_pk(connection, corpus)
            here = (DOCUMENTS.c.corpus_pk == owner, DOCUMENTS.c.name == name)
            pk = connection.scalar(select(DOCUMENTS.c.pk).where(*here))
            if pk is None:
                names = connection.scalars(
                    select(DOCUMENTS.c.name).where(DOCUMENTS.c.corpus_pk == owner)
                )
                raise checks.known("document", name, names, make="stepgold corpus add PATH")
            _unfinish(connection, [pk])
            connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.pk == pk))

    def describe(self, corpus: str, *, licence: str | None, source: str | None) -> None:
        """State licence and source of a corpus; None leaves what was stated before."""
        checks.optional_text(source, "The source")
        with self._connections.write() as connection:
            owner = corpora.ensure_corpus(connection, corpus, licence)
            if source is not None:
                connection.execute(
                    delete(CORPUS_SOURCES).where(CORPUS_SOURCES.c.corpus_pk == owner)
                )
                row = {"corpus_pk": owner, "source": source}
                connection.execute(CORPUS_SOURCES.insert().values(row))


def _file_pk(connection: Connection, owner: int, file: FileKey) -> int:
    row = {"corpus_pk": owner, "root": file.root, "path": file.path, "settings": "", "problems": []}
    insert_missing(connection, CORPUS_FILES, [row], "corpus_pk", "root", "path")
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


def _link(
    connection: Connection, owner: int, file: FileKey, names: Sequence[str], split: str
) -> None:
    """Make the documents this file's, which is unfinished from now on, as are those they leave."""
    pk = _file_pk(connection, owner, file)
    connection.execute(update(CORPUS_FILES).where(CORPUS_FILES.c.pk == pk).values(sha256=None))
    for chunk in chunks(names):
        here = (DOCUMENTS.c.corpus_pk == owner, DOCUMENTS.c.name.in_(chunk))
        documents = list(connection.scalars(select(DOCUMENTS.c.pk).where(*here)))
        _unfinish(connection, documents)
        delete_where_in(connection, DOCUMENT_ORIGINS, DOCUMENT_ORIGINS.c.document_pk, documents)
        insert_rows(
            connection,
            DOCUMENT_ORIGINS,
            [{"document_pk": each, "corpus_file_pk": pk, "split": split} for each in documents],
        )


def _unfinish(connection: Connection, documents: Sequence[int]) -> None:
    """Let the files of these documents be read again next time."""
    origins = select(DOCUMENT_ORIGINS.c.corpus_file_pk).where(
        DOCUMENT_ORIGINS.c.document_pk.in_(documents)
    )
    connection.execute(
        update(CORPUS_FILES).where(CORPUS_FILES.c.pk.in_(origins)).values(sha256=None)
    )
