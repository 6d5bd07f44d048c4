"""Corpora: documents and passages, added and replaced by document."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, update

from storage import checks
from storage.bulk import chunks, insert_rows, now
from storage.codecs.evidence import passage_columns, passage_from
from storage.connection import Connections
from storage.outcomes import CorpusOutcome, CorpusSummary, DocumentSource
from storage.tables import CORPORA, CORPUS_SOURCES, DOCUMENTS, PASSAGES
from traces.errors import CorpusError
from traces.evidence import Passage
from traces.records import StoredDocument

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
