"""Batch jobs of a model service as the store remembers them, so that another process can go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class BatchState(StrEnum):
    """How far a job of ours has come."""

    PREPARED = "prepared"
    """Written down before it was sent: the service may know it or not."""
    SUBMITTED = "submitted"
    """The service has it, under a name we know."""
    CLOSED = "closed"
    """It has ended, and all it gave is recorded."""


class BatchEnding(StrEnum):
    """Why a job is closed."""

    SUCCEEDED = "succeeded"
    """The service finished it."""
    FAILED = "failed"
    """The service gave it up."""
    CANCELLED = "cancelled"
    """Somebody else cancelled it."""
    EXPIRED = "expired"
    """The service did not come to it in its time."""
    STUCK = "stuck"
    """It showed no sign of life for too long and was cancelled by us."""
    LOST = "lost"
    """The service does not know it, or its results, any more."""
    REFUSED = "refused"
    """The service would not take it."""
    NEVER_SENT = "never_sent"
    """The process that prepared it died before it was sent."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One request of a batch job, on its way."""

    key: str
    """Content address of the request (`inference.keys.request_key`): what its reply is found by."""
    request: str
    """The prompt really sent, as JSON text, for the ledger."""
    tokens: int
    """Input tokens, estimated from above: what it adds to the enqueued tokens."""
    usd: float | None
    """What it costs at most in US dollars; None where no price is known."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the call is for (strict JSON)."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job as we know it."""

    id: str
    """Our own id; the job's display name at the service is made from it."""
    model: str
    """The model as the user named it."""
    endpoint: str
    """Base URL of the service that has it."""
    created_at: float
    """When it was prepared, Unix seconds."""
    state: BatchState = BatchState.PREPARED
    """How far it has come."""
    name: str | None = None
    """The service's name for it; None until that is known."""
    progress: str = ""
    """The last sign of life, as the service words it."""
    progress_at: float = 0.0
    """When that was first seen, Unix seconds."""
    cancelled_at: float | None = None
    """When we asked for its cancellation, Unix seconds; None if we did not."""
    requests: int = 0
    """Requests it was made of."""
    tokens: int = 0
    """Input tokens of what is still outstanding, estimated from above."""
    usd: float = 0.0
    """What the outstanding requests cost at most, as far as prices are known, US dollars."""
    outstanding: int = 0
    """Requests whose replies are not recorded yet."""

    @property
    def display_name(self) -> str:
        """What the job is called at the service: how a job is found whose create reply was lost."""
        return f"stepgold-{self.id}"
