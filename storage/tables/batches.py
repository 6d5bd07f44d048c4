"""What is on its way in batch jobs of a model service."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint
from sqlmodel import Field

from storage.tables.base import Base, one_of, table_of, within
from traces import BatchEnding, BatchState


class BatchJobRow(Base, table=True):
    """A batch job; written before it is sent, kept when it is closed."""

    __tablename__ = "batch_jobs"
    __table_args__ = (
        one_of("state", BatchState),
        one_of("ending", BatchEnding),
        CheckConstraint("(state = 'closed') = (ending IS NOT NULL)", name="closed"),
    )

    id: str = Field(primary_key=True)
    model: str
    endpoint: str
    state: str
    name: str | None = None
    requests: int
    progress: str
    progress_at: float
    cancelled_at: float | None = None
    created_at: float
    closed_at: float | None = None
    ending: str | None = None
    detail: str | None = None


class BatchRequestRow(Base, table=True):
    """A request that has no recorded reply yet. Its key is unique: a request is in one job at a time."""

    __tablename__ = "batch_requests"
    __table_args__ = (within("usd", 0),)

    key: str = Field(primary_key=True)
    job_id: str | None = Field(default=None, foreign_key="batch_jobs.id", index=True)
    """The job it is in; NULL after a job that ended without its reply."""
    jobs: int
    """In how many jobs it has been."""
    request: str
    tokens: int
    usd: float | None = None
    meta: Any = Field(sa_type=JSON)


BATCH_JOBS = table_of(BatchJobRow)
BATCH_REQUESTS = table_of(BatchRequestRow)
