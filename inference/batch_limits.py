"""The bounds of batch jobs: what the service takes, and how long we wait and try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType

LIMITS_AS_OF = date(2026, 10, 7)
"""When the table was read (ai.google.dev rate limits, mid-2026)."""

ENQUEUED_TOKENS: Mapping[str, int] = MappingProxyType(
    {
        "gemini-2.5-flash-lite": 10_000_000,
        "gemini-3.1-flash-lite": 10_000_000,
        "gemini-2.5-flash": 3_000_000,
        "gemini-3.5-flash": 3_000_000,
    }
)
"""Input tokens that may be enqueued at once in Tier 1, by model. Tier 2 has 400-500 million."""

UNLISTED_ENQUEUED_TOKENS = 3_000_000
"""For models that the table does not list: the lowest listed cap."""

FILE_BYTES = 2_000_000_000
"""Largest file of requests that the service takes."""

JOBS_AT_ONCE = 100
"""Jobs that the service takes at once."""


def enqueued_tokens(model: str) -> int:
    """The enqueued-token cap of a model in the lowest paid tier."""
    return ENQUEUED_TOKENS.get(model.removeprefix("models/"), UNLISTED_ENQUEUED_TOKENS)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How jobs are packed, watched and given up."""

    enqueued_tokens: int
    """Input tokens that may be on their way at once."""
    poll_s: float = 30.0
    """Seconds between two looks at the jobs."""
    stuck_s: float = 24 * 3600.0
    """Seconds without a sign of life after which a job is cancelled (the service's own target is 24 h);
    after twice as many a job is cancelled whatever it says."""
    cancel_s: float = 3600.0
    """Seconds a cancelled job gets to hand over what it has."""
    jobs_per_request: int = 3
    """In how many jobs a request may be before it is given up."""
    refusals: int = 8
    """How often in a row the service may refuse a job while none of ours is on its way."""
    silent_polls: int = 20
    """How many looks in a row may fail, each after its own retries."""
    file_bytes: int = FILE_BYTES
    """Largest file of one job."""
    requests_per_job: int = 10_000
    """Most requests of one job: what a job that dies takes with it."""
    jobs_at_once: int = JOBS_AT_ONCE
    """Most jobs on their way."""
    resume_s: float = 900.0
    """Seconds after which a job that another process prepared and never sent is taken over."""
