"""Writing documents with their passages, and the keys of corpora."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, select, update

from storage import checks
from storage.columns import Columns
from storage.records import DOCUMENT, passage_columns
from storage.rows import insert_one, insert_rows, now
from storage.tables import CORPORA, DOCUMENTS, PASSAGES
from traces.errors import CorpusError
from traces.evidence import Passage
from traces.records import StoredDocument


@dataclass(frozen=True, slots=True)
class CorpusOutcome:
    """The outcome for the documents of one call."""

    done: int
    """Documents that are new or were replaced."""
    unchanged: int
    """Documents that the corpus had with the same content and passages."""


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
