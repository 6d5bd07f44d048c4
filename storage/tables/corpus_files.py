"""Where the documents of a corpus came from, so that a folder added again costs only what changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, UniqueConstraint
from sqlmodel import Field

from storage.tables.base import Base, table_of


class CorpusSourceRow(Base, table=True):
    """Where a corpus as a whole comes from, as the user stated it."""

    __tablename__ = "corpus_sources"

    corpus_pk: int = Field(primary_key=True, foreign_key="corpora.pk", ondelete="CASCADE")
    source: str


class CorpusFileRow(Base, table=True):
    """A file that documents were read from."""

    __tablename__ = "corpus_files"
    __table_args__ = (UniqueConstraint("corpus_pk", "root", "path"),)

    pk: int | None = Field(default=None, primary_key=True)
    corpus_pk: int = Field(foreign_key="corpora.pk", ondelete="CASCADE")
    root: str
    """Absolute path of the folder that was added; of the parent folder for a file that was named."""
    path: str
    """Path below the root, with `/`."""
    sha256: str | None = None
    """Hash of the file's bytes; NULL until all of its documents are stored."""
    settings: str
    """How it was read and split: another reading of equal bytes gives other documents."""
    problems: Any = Field(sa_type=JSON)
    """What of it could not be read, as it is told again when the unchanged file is added again."""


class DocumentOriginRow(Base, table=True):
    """The file a document came from, and how it was split. Documents of older databases have none."""

    __tablename__ = "document_origins"

    document_pk: int = Field(primary_key=True, foreign_key="documents.pk", ondelete="CASCADE")
    corpus_file_pk: int = Field(foreign_key="corpus_files.pk", ondelete="CASCADE", index=True)
    split: str
    """Settings of the splitter: with the document's hash they decide its passages."""


CORPUS_SOURCES = table_of(CorpusSourceRow)
CORPUS_FILES = table_of(CorpusFileRow)
DOCUMENT_ORIGINS = table_of(DocumentOriginRow)
