"""What a judge said beyond its labels: single votes, and the prompts it was asked with."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint
from sqlmodel import Field

from storage.tables.base import Base, one_of, table_of
from traces import AbstentionReason


class VoteRow(Base, table=True):
    """One model's reading of one trace; it belongs to the label that was made from it."""

    __tablename__ = "votes"
    __table_args__ = (
        one_of("abstention", AbstentionReason),
        CheckConstraint("first_error_named OR first_error_index IS NULL", name="first_error"),
    )

    trace_label_pk: int = Field(primary_key=True, foreign_key="trace_labels.pk", ondelete="CASCADE")
    model: str = Field(primary_key=True)
    vote_index: int = Field(primary_key=True)
    escalated: bool
    resolved_model: str | None = None
    words: Any = Field(sa_type=JSON)
    """For each step its verdict or the reason of its abstention."""
    first_error_named: bool
    first_error_index: int | None = None
    abstention: str | None = None
    abstention_detail: str | None = None
    request_keys: Any = Field(sa_type=JSON)
    """Keys of the calls behind it in `model_calls`."""


class PromptRow(Base, table=True):
    """A prompt file under its hash, which labelers hold in their configuration."""

    __tablename__ = "prompts"

    sha256: str = Field(primary_key=True)
    text: str
    created_at: str


VOTES = table_of(VoteRow)
PROMPTS = table_of(PromptRow)
