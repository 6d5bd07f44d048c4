"""Corpora, and the evidence found in them.

Evidence copies its passage: an audit of a verdict must show the text the judge saw, also after the
corpus was removed or its document changed. So an evidence row points at a snapshot
(`evidence_passages`, addressed by content, stored once however often it is retrieved), never at the
living passage. A list of evidence is a set, addressed by content too: a problem points at the set that
was retrieved for it, a trace at the set that came with its row, and equal lists are one set.
"""

from __future__ import annotations

from sqlalchemy import UniqueConstraint
from sqlmodel import Field

from storage.tables.base import Base, table_of, within


class CorpusRow(Base, table=True):
    """A named set of documents."""

    __tablename__ = "corpora"

    pk: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    licence: str | None = None
    created_at: str


class DocumentRow(Base, table=True):
    """A document with its full text: passages are addressed by offsets into it."""

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("corpus_pk", "name"),)

    pk: int | None = Field(default=None, primary_key=True)
    corpus_pk: int = Field(foreign_key="corpora.pk", ondelete="CASCADE")
    name: str
    title: str
    text: str
    sha256: str
    source: str


class PassageRow(Base, table=True):
    """A passage of a document. Its id is its id in the FAISS index, so it is never used twice."""

    __tablename__ = "passages"
    __table_args__ = (
        UniqueConstraint("document_pk", "passage_index"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    document_pk: int = Field(foreign_key="documents.pk", ondelete="CASCADE")
    passage_index: int
    start_char: int
    end_char: int
    title: str
    text: str


class EvidencePassageRow(Base, table=True):
    """The copy of a passage as it was when it became evidence, or as it came with a file."""

    __tablename__ = "evidence_passages"

    pk: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)
    corpus: str
    document: str
    passage_index: int
    start_char: int
    end_char: int
    title: str
    text: str


class EvidenceSetRow(Base, table=True):
    """A list of evidence, best first; it may be empty."""

    __tablename__ = "evidence_sets"

    pk: int | None = Field(default=None, primary_key=True)
    digest: str = Field(unique=True)


class EvidenceRow(Base, table=True):
    """One place in a list of evidence."""

    __tablename__ = "evidence"
    __table_args__ = (within("similarity", -1, 1), within("rank", 0))

    evidence_set_pk: int = Field(
        primary_key=True, foreign_key="evidence_sets.pk", ondelete="CASCADE"
    )
    position: int = Field(primary_key=True)
    rank: int
    similarity: float | None = None
    evidence_passage_pk: int = Field(foreign_key="evidence_passages.pk", index=True)


CORPORA = table_of(CorpusRow)
DOCUMENTS = table_of(DocumentRow)
PASSAGES = table_of(PassageRow)
EVIDENCE_PASSAGES = table_of(EvidencePassageRow)
EVIDENCE_SETS = table_of(EvidenceSetRow)
EVIDENCE = table_of(EvidenceRow)
