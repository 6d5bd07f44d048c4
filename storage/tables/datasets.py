"""Datasets: their files, problems, traces and steps."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, UniqueConstraint
from sqlmodel import Field

from storage.tables.base import Base, table_of, within


class DatasetRow(Base, table=True):
    """A named set of problems and traces."""

    __tablename__ = "datasets"

    pk: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    retrieval_config: Any = Field(default=None, sa_type=JSON, nullable=True)
    """Configuration of the retrieval behind the evidence; NULL before the first one."""
    created_at: str


class SourceFileRow(Base, table=True):
    """A file that was imported into a dataset."""

    __tablename__ = "source_files"
    __table_args__ = (UniqueConstraint("dataset_pk", "name"),)

    pk: int | None = Field(default=None, primary_key=True)
    dataset_pk: int = Field(foreign_key="datasets.pk", ondelete="CASCADE")
    name: str
    sha256: str
    format: str
    options: Any = Field(sa_type=JSON)
    imported_at: str


class RejectedRowRow(Base, table=True):
    """A row of a file that was not imported, or whose gold cannot be used."""

    __tablename__ = "rejected_rows"

    source_file_pk: int = Field(primary_key=True, foreign_key="source_files.pk", ondelete="CASCADE")
    position: int = Field(primary_key=True)
    file: str
    line: int | None = None
    id: str | None = None
    reason: str
    imported: bool


class ProblemRow(Base, table=True):
    """A problem."""

    __tablename__ = "problems"
    __table_args__ = (UniqueConstraint("dataset_pk", "id"),)

    pk: int | None = Field(default=None, primary_key=True)
    dataset_pk: int = Field(foreign_key="datasets.pk", ondelete="CASCADE")
    id: str
    question: str
    options: Any = Field(sa_type=JSON)
    answer: str | None = None
    images: Any = Field(sa_type=JSON)
    meta: Any = Field(sa_type=JSON)
    digest: str
    """sha256 of the content: tells a changed problem from the same one."""
    evidence_set_pk: int | None = Field(default=None, foreign_key="evidence_sets.pk", index=True)
    """What retrieval found; NULL until it has run, an empty set if it found nothing."""


class TraceRow(Base, table=True):
    """A trace."""

    __tablename__ = "traces"
    __table_args__ = (UniqueConstraint("dataset_pk", "id"), within("n_steps", 1))

    pk: int | None = Field(default=None, primary_key=True)
    dataset_pk: int = Field(foreign_key="datasets.pk", ondelete="CASCADE")
    problem_pk: int = Field(foreign_key="problems.pk", ondelete="CASCADE", index=True)
    source_file_pk: int = Field(foreign_key="source_files.pk", ondelete="CASCADE", index=True)
    position: int
    """0-based place in its file; (source_file_pk, position) is the order of import."""
    id: str
    subset: str
    generator: str | None = None
    final_answer: str | None = None
    final_answer_correct: bool | None = None
    n_steps: int
    meta: Any = Field(sa_type=JSON)
    digest: str
    """sha256 of the content, the problem's included."""
    evidence_set_pk: int | None = Field(default=None, foreign_key="evidence_sets.pk", index=True)
    """Evidence that came with the row; NULL if none did."""


class StepRow(Base, table=True):
    """One step of a trace."""

    __tablename__ = "steps"

    trace_pk: int = Field(primary_key=True, foreign_key="traces.pk", ondelete="CASCADE")
    step_index: int = Field(primary_key=True)
    text: str


DATASETS = table_of(DatasetRow)
SOURCE_FILES = table_of(SourceFileRow)
REJECTED_ROWS = table_of(RejectedRowRow)
PROBLEMS = table_of(ProblemRow)
TRACES = table_of(TraceRow)
STEPS = table_of(StepRow)
