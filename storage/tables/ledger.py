"""What a run paid for and what went wrong: model calls and failures."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index
from sqlmodel import Field

from storage.tables.base import Base, one_of, table_of, within
from traces import AbstentionReason


class ModelCallRow(Base, table=True):
    """A model call under its content address: a paid reply is never bought twice."""

    __tablename__ = "model_calls"
    # The index holds every column that is summed up: a row is long, and its end is far from its start.
    __table_args__ = (
        within("usd", 0),
        Index(
            "ix_model_calls_spending",
            "model",
            "purpose",
            "resolved_model",
            "usd",
            "hits",
            "input_tokens",
            "cached_tokens",
            "output_tokens",
            "thinking_tokens",
        ),
    )

    key: str = Field(primary_key=True)
    request: str
    text: str | None = None
    raw: str
    finish_reason: str
    model: str
    resolved_model: str | None = None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    thinking_tokens: int
    usd: float | None = None
    prices_as_of: str | None = None
    meta: Any = Field(sa_type=JSON)
    hits: int = 0
    """How often the reply was used again instead of being bought."""
    created_at: str
    purpose: str | None = None
    """What the call was for, as its meta says (`judge`, `continue`); NULL if it does not."""


class FailureRow(Base, table=True):
    """An item a stage could not handle, beyond the abstentions among the labels."""

    __tablename__ = "failures"
    __table_args__ = (one_of("reason", AbstentionReason),)

    dataset_pk: int = Field(primary_key=True, foreign_key="datasets.pk", ondelete="CASCADE")
    id: str = Field(primary_key=True)
    stage: str = Field(primary_key=True)
    reason: str
    retryable: bool
    detail: str
    created_at: str


MODEL_CALLS = table_of(ModelCallRow)
FAILURES = table_of(FailureRow)
