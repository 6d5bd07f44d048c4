"""Labelers and what they say: trace labels, step labels, quotes, continuations."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKeyConstraint, UniqueConstraint
from sqlmodel import Field

from storage.tables.base import Base, one_of, table_of, within
from traces import AbstentionReason, LabelerKind, Verdict


class LabelerRow(Base, table=True):
    """Whatever puts labels on the traces of one dataset."""

    __tablename__ = "labelers"
    __table_args__ = (UniqueConstraint("dataset_pk", "name"), one_of("kind", LabelerKind))

    pk: int | None = Field(default=None, primary_key=True)
    dataset_pk: int = Field(foreign_key="datasets.pk", ondelete="CASCADE")
    name: str
    kind: str
    config: Any = Field(sa_type=JSON)
    model: str | None = None
    resolved_model: str | None = None
    """Every version that answered, sorted and joined by ", ": a mixed run stays visible."""
    created_at: str


class TraceLabelRow(Base, table=True):
    """One labeler's word on one trace."""

    __tablename__ = "trace_labels"
    __table_args__ = (
        UniqueConstraint("labeler_pk", "trace_pk"),
        one_of("abstention", AbstentionReason),
        CheckConstraint("first_error_given OR first_error_index IS NULL", name="first_error"),
    )

    pk: int | None = Field(default=None, primary_key=True)
    labeler_pk: int = Field(foreign_key="labelers.pk", ondelete="CASCADE")
    trace_pk: int = Field(foreign_key="traces.pk", ondelete="CASCADE", index=True)
    first_error_given: bool
    first_error_index: int | None = None
    abstention: str | None = None
    abstention_detail: str | None = None
    meta: Any = Field(sa_type=JSON)
    imported: bool
    """Whether it came with a row of the dataset's file; such labels follow the file when it changes."""
    created_at: str


class StepLabelRow(Base, table=True):
    """One labeler's word on one step."""

    __tablename__ = "step_labels"
    __table_args__ = (
        one_of("verdict", Verdict),
        one_of("abstention", AbstentionReason),
        within("score", 0, 1),
        CheckConstraint(
            "(abstention IS NULL) = (verdict IS NOT NULL OR score IS NOT NULL)", name="word"
        ),
    )

    trace_label_pk: int = Field(primary_key=True, foreign_key="trace_labels.pk", ondelete="CASCADE")
    step_index: int = Field(primary_key=True)
    verdict: str | None = None
    score: float | None = None
    abstention: str | None = None
    abstention_detail: str | None = None
    successes: int | None = None
    continuations: int | None = None
    unparsed: int | None = None
    unfinished: int | None = None
    reasoning: str | None = None


class QuoteRow(Base, table=True):
    """What a judge cited for one step."""

    __tablename__ = "quotes"
    __table_args__ = (
        ForeignKeyConstraint(
            ["trace_label_pk", "step_index"],
            ["step_labels.trace_label_pk", "step_labels.step_index"],
            ondelete="CASCADE",
        ),
    )

    trace_label_pk: int = Field(primary_key=True)
    step_index: int = Field(primary_key=True)
    text: str
    document: int | None = None
    verified: bool
    start_char: int | None = None
    end_char: int | None = None
    method: str | None = None


class ContinuationRow(Base, table=True):
    """One completion from a prefix; it belongs to the label that was made from it."""

    __tablename__ = "continuations"

    trace_label_pk: int = Field(primary_key=True, foreign_key="trace_labels.pk", ondelete="CASCADE")
    step_index: int = Field(primary_key=True)
    continuation_index: int = Field(primary_key=True)
    text: str
    finish_reason: str
    answer: str | None = None
    correct: bool | None = None
    tokens: int


LABELERS = table_of(LabelerRow)
TRACE_LABELS = table_of(TraceLabelRow)
STEP_LABELS = table_of(StepLabelRow)
QUOTES = table_of(QuoteRow)
CONTINUATIONS = table_of(ContinuationRow)
