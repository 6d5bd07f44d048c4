"""Corpora: documents and passages, added and replaced by document."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, update

from storage import checks
from storage.codecs.evidence import passage_columns, passage_from
from storage.connection import (
    Connections,
    chunks,
    delete_where_in,
    insert_missing,
    insert_rows,
    now,
)
from storage.outcomes import CorpusOutcome, CorpusSummary, DocumentSource
from storage.tables import (
    CORPORA,
    CORPUS_FILES,
    CORPUS_SOURCES,
    DOCUMENT_ORIGINS,
    DOCUMENTS,
    PASSAGES,
)
from traces import CorpusError, Passage, StoredDocument

_PAGE = 1000


def add_documents(
    connection: Connection,
    corpus: str,
    documents: Iterable[tuple[StoredDocument, Sequence[Passage]]],
    *,
    licence: str | None,
) -> CorpusOutcome:
    """Store documents with their passages, streaming; the transaction is the caller's.

    A document is unchanged if it and its passages are; else its passages are replaced and get new ids.

    Raises:
        CorpusError: a name comes twice in the call, or a passage is not a part of its document's text.
        InputError: a text cannot be stored.
    """
    pk = ensure_corpus(connection, checks.name(corpus, "The corpus name"), licence)
    seen: set[str] = set()
    done = unchanged = 0
    for document, passages in documents:
        if document.name in seen:
            raise CorpusError(
                f"The document {document.name!r} comes twice.",
                where=document.source,
                remedy="give the documents different names, or leave one out",
            )
        seen.add(document.name)
        row = _document_columns(document)
        rows = [_own_passage(corpus, document, passage) for passage in passages]
        if _is_stored(connection, pk, row, rows):
            unchanged += 1
            continue
        done += 1
        _put(connection, pk, row, rows)
    return CorpusOutcome(done, unchanged)


def summaries(connection: Connection) -> list[CorpusSummary]:
    """How large every corpus is, by name."""
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
    query = query.order_by(CORPORA.c.name)
    return [
        CorpusSummary(row.name, row.documents, row.passages, row.licence, row.source)
        for row in connection.execute(query)
    ]


def remove(connection: Connection, corpus: str) -> None:
    """Remove a corpus with its documents; evidence found in it keeps its copies."""
    connection.execute(delete(CORPORA).where(CORPORA.c.pk == corpus_pk(connection, corpus)))


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


def passages(connections: Connections, corpus: str | None) -> Iterator[tuple[int, Passage]]:
    """Passages with their ids, by id, read page by page; the name is checked at once."""
    with connections.read() as connection:
        query = _passages()
        if corpus is not None:
            query = query.where(CORPORA.c.pk == corpus_pk(connection, corpus))
    return _pages(connections, query)


def passage_ids(connection: Connection, corpus: str) -> list[int]:
    """Ids of the passages of a corpus, ascending.

    Raises:
        InputError: there is no such corpus.
    """
    query = (
        select(PASSAGES.c.id)
        .join(DOCUMENTS, PASSAGES.c.document_pk == DOCUMENTS.c.pk)
        .where(DOCUMENTS.c.corpus_pk == corpus_pk(connection, corpus))
    )
    return list(connection.scalars(query.order_by(PASSAGES.c.id)))


def document_sources(
    connection: Connection, named: Collection[tuple[str, str]]
) -> dict[tuple[str, str], DocumentSource]:
    """Where documents came from, by (corpus, document); one that is not there is left out."""
    found: dict[tuple[str, str], DocumentSource] = {}
    query = select(
        CORPORA.c.name.label("corpus"),
        DOCUMENTS.c.name,
        DOCUMENTS.c.source,
        CORPORA.c.licence,
        CORPUS_SOURCES.c.source.label("origin"),
    ).join(CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
    query = query.outerjoin(CORPUS_SOURCES, CORPUS_SOURCES.c.corpus_pk == CORPORA.c.pk)
    for corpus in {corpus for corpus, _ in named}:
        for chunk in chunks(name for other, name in named if other == corpus):
            here = (CORPORA.c.name == corpus, DOCUMENTS.c.name.in_(chunk))
            for row in connection.execute(query.where(*here)):
                place = DocumentSource(row.source, row.licence, row.origin)
                found[row.corpus, row.name] = place
    return found


def document_names(connection: Connection) -> list[tuple[str, str]]:
    """(corpus, document) of every document, in the order they were stored."""
    query = select(CORPORA.c.name.label("corpus"), DOCUMENTS.c.name).join(
        CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk
    )
    rows = connection.execute(query.order_by(DOCUMENTS.c.pk))
    return [(row.corpus, row.name) for row in rows]


def passages_by_id(connection: Connection, ids: Collection[int]) -> dict[int, Passage]:
    """The passages with these ids; one that is not there (any more) is left out."""
    found: dict[int, Passage] = {}
    for chunk in chunks(map(int, ids)):
        for row in connection.execute(_passages().where(PASSAGES.c.id.in_(chunk))):
            found[row.id] = passage_from(row)
    return found


def fingerprint(connections: Connections) -> str:
    """sha256 over the ids and contents of all passages: it changes whenever an index must be rebuilt."""
    state = sha256()
    for passage_id, passage in passages(connections, None):
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


def ensure_corpus(connection: Connection, name: str, licence: str | None) -> int:
    """The key of a corpus, which is made if it is new; a licence takes the place of the old one."""
    checks.optional_text(licence, "The licence")
    pk = connection.scalar(select(CORPORA.c.pk).where(CORPORA.c.name == name))
    if pk is None:
        row = {"name": name, "licence": licence, "created_at": now()}
        pk = connection.scalar(CORPORA.insert().values(row).returning(CORPORA.c.pk))
    elif licence is not None:
        connection.execute(update(CORPORA).where(CORPORA.c.pk == pk).values(licence=licence))
    return int(pk or 0)


def _document_columns(document: StoredDocument) -> dict[str, Any]:
    where = f"document {document.name!r}"
    return {
        "name": checks.name(document.name, "The document name"),
        "title": checks.plain_text(document.title, f"The title of {where}"),
        "text": checks.plain_text(document.text, f"The text of {where}"),
        "sha256": document.sha256,
        "source": checks.plain_text(str(document.source), f"The source of {where}"),
    }


def _own_passage(corpus: str, document: StoredDocument, passage: Passage) -> dict[str, Any]:
    if (passage.corpus, passage.document) != (corpus, document.name):
        raise CorpusError(
            f"A passage of document {passage.document!r} of corpus {passage.corpus!r} was given"
            f" with document {document.name!r} of corpus {corpus!r}."
        )
    if document.text[passage.start : passage.end] != passage.text:
        raise CorpusError(
            f"Passage {passage.index} of document {document.name!r} is not what stands in its text"
            f" from {passage.start} to {passage.end}."
        )
    return passage_columns(passage)


def _is_stored(
    connection: Connection, corpus: int, document: dict[str, Any], passages: list[dict[str, Any]]
) -> bool:
    stored = connection.execute(
        select(DOCUMENTS).where(
            DOCUMENTS.c.corpus_pk == corpus, DOCUMENTS.c.name == document["name"]
        )
    ).one_or_none()
    # The same text from another place is the same document: its passages keep their vectors.
    content = {key: value for key, value in document.items() if key != "source"}
    if stored is None or any(getattr(stored, key) != value for key, value in content.items()):
        return False
    columns = [column for column in PASSAGES.c if column.name not in ("id", "document_pk")]
    query = select(*columns).where(PASSAGES.c.document_pk == stored.pk)
    rows = connection.execute(query.order_by(PASSAGES.c.passage_index)).mappings()
    wanted = sorted(passages, key=lambda passage: int(passage["passage_index"]))
    if [dict(row) for row in rows] != wanted:
        return False
    connection.execute(
        update(DOCUMENTS).where(DOCUMENTS.c.pk == stored.pk).values(source=document["source"])
    )
    return True


def set_source(connection: Connection, corpus: int, document: StoredDocument) -> None:
    """Say where a stored document was read from now."""
    here = (DOCUMENTS.c.corpus_pk == corpus, DOCUMENTS.c.name == document.name)
    source = checks.plain_text(document.source, f"The source of document {document.name!r}")
    other = DOCUMENTS.c.source != source
    connection.execute(update(DOCUMENTS).where(*here, other).values(source=source))


def _put(
    connection: Connection, corpus: int, document: dict[str, Any], passages: list[dict[str, Any]]
) -> None:
    connection.execute(
        delete(DOCUMENTS).where(
            DOCUMENTS.c.corpus_pk == corpus, DOCUMENTS.c.name == document["name"]
        )
    )
    row = document | {"corpus_pk": corpus}
    pk = connection.scalar(DOCUMENTS.insert().values(row).returning(DOCUMENTS.c.pk))
    insert_rows(connection, PASSAGES, [passage | {"document_pk": pk} for passage in passages])


def _passages() -> Select[Any]:
    return (
        select(PASSAGES, CORPORA.c.name.label("corpus"), DOCUMENTS.c.name.label("document"))
        .join(DOCUMENTS, PASSAGES.c.document_pk == DOCUMENTS.c.pk)
        .join(CORPORA, DOCUMENTS.c.corpus_pk == CORPORA.c.pk)
        .order_by(PASSAGES.c.id)
    )


def _pages(connections: Connections, query: Select[Any]) -> Iterator[tuple[int, Passage]]:
    last = 0
    while True:
        with connections.read() as connection:
            rows = list(connection.execute(query.where(PASSAGES.c.id > last).limit(_PAGE)))
        for row in rows:
            yield row.id, passage_from(row)
        if len(rows) < _PAGE:
            return
        last = rows[-1].id


# --- Documents by the file they came from: what is unchanged is not read, what is gone is removed


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
            outcome = add_documents(connection, corpus, documents, licence=None)
            owner = corpus_pk(connection, corpus)
            for document in same:
                set_source(connection, owner, document)
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
            delete_where_in(connection, DOCUMENTS, DOCUMENTS.c.pk, [row[0] for row in gone])
            return [row[1] for row in gone]

    def forget(self, corpus: str, root: str, paths: Collection[str]) -> list[str]:
        """Remove files that are gone, with their documents; give the names of the documents."""
        removed: list[str] = []
        with self._connections.write() as connection:
            owner = corpus_pk(connection, corpus)
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
            owner = corpus_pk(connection, corpus)
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
            owner = ensure_corpus(connection, corpus, licence)
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
