"""Batch jobs: their limits, and what a batch service and the store of jobs have to offer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from inference.protocol import GenerationRequest, TextModel
from traces import BatchEnding, BatchJob, BatchRow, ModelReply, ModelUnavailable, StoredCall

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
"""Input tokens that may be enqueued at once in Tier 1, by model. Tier 2 allows 400-500 million."""

UNLISTED_ENQUEUED_TOKENS = 3_000_000
"""Cap for models that the table does not list: the lowest listed one."""

FILE_BYTES = 2_000_000_000
"""Largest file of requests that the service accepts."""

JOBS_AT_ONCE = 100
"""Jobs that the service runs at once."""


def enqueued_tokens(model: str) -> int:
    """The enqueued-token cap of a model in the lowest paid tier."""
    return ENQUEUED_TOKENS.get(model.removeprefix("models/"), UNLISTED_ENQUEUED_TOKENS)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How jobs are packed, polled and given up."""

    enqueued_tokens: int
    """Input tokens that may be enqueued at once."""
    poll_s: float = 30.0
    """Seconds between two polls."""
    stuck_s: float = 24 * 3600.0
    """Seconds without progress after which a job is canceled (the service's target is 24 h); after
    twice that time it is canceled in any case."""
    cancel_s: float = 3600.0
    """Seconds that a canceled job gets to return its results."""
    jobs_per_request: int = 3
    """Jobs in which a request is tried before it is given up."""
    refusals: int = 8
    """Consecutive refusals of a job, while we run none, before the run stops."""
    silent_polls: int = 20
    """Consecutive polls that may fail, each after its own retries."""
    file_bytes: int = FILE_BYTES
    """Maximum size of a job's file."""
    requests_per_job: int = 10_000
    """Maximum requests per job: what a job that dies loses."""
    jobs_at_once: int = JOBS_AT_ONCE
    """Maximum number of running jobs."""
    resume_s: float = 900.0
    """Seconds after which a job that another process prepared but did not send is taken over."""


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A job as the service describes it."""

    name: str
    """The service's name for it."""
    display_name: str | None
    """Our name for it."""
    ending: BatchEnding | None
    """How it ended: succeeded, failed, cancelled or expired; None while it runs."""
    progress: str
    """A text that changes when the job makes progress."""
    results: str | None = None
    """Name of the file with the replies; None if there is none (yet)."""
    created: str = ""
    """When the service accepted it, ISO 8601; empty if unknown."""
    error: str | None = None
    """Why it failed; None if unknown."""
    hopeless: bool = False
    """Whether the same job would fail again, because the request itself was refused."""


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """The outcome of one row of a job."""

    key: str
    """Our key of the row."""
    outcome: ModelReply | ModelUnavailable
    """Its reply, or the error that the service returned instead."""


class NotTaken(Exception):
    """The service has no room for the job now (429 when it was created): no job was created.

    Args:
        what: the service's message.
        delay_s: seconds that it asks to wait; None if it does not say.
    """

    def __init__(self, what: str, delay_s: float | None) -> None:
        super().__init__(what)
        self.what = what
        self.delay_s = delay_s


class BatchService(Protocol):
    """A service for batch jobs of one model.

    Every call is retried a bounded number of times and raises ModelUnavailable, ModelRefused or
    QuotaExhausted like `TextModel.generate`.
    """

    @property
    def model(self) -> TextModel:
        """The model that answers."""

    @property
    def endpoint(self) -> str:
        """Base URL of the service."""

    @property
    def retries(self) -> int:
        """Retries so far."""

    def size(self, key: str, request: GenerationRequest) -> int:
        """Upper bound of a request's bytes in the file of a job; nothing is sent."""

    async def line(self, key: str, request: GenerationRequest) -> bytes:
        """That row, with its line end, after uploading what it refers to."""

    async def submit(self, display_name: str, file: Path) -> RemoteJob:
        """Upload the file and create a job; a job whose create reply was lost is found again.

        Raises:
            NotTaken: there is no room for it now.
        """

    async def find(self, display_names: Collection[str]) -> list[RemoteJob]:
        """The jobs with these display names, oldest first."""

    async def job(self, name: str) -> RemoteJob | None:
        """The job of that name; None if the service does not know it."""

    async def cancel(self, name: str) -> None:
        """Ask to cancel a job; a job that has ended, or is unknown, is ignored."""

    async def fetch(self, results: str, file: Path) -> bool:
        """Write a job's replies to `file`; False if the service no longer has them."""

    def outcomes(self, lines: Iterable[bytes]) -> Iterator[RowOutcome]:
        """Read the replies of a job; lines without a readable key are skipped."""


class BatchStore(Protocol):
    """Stores jobs; implemented and documented by `storage.replies.BatchJobs`."""

    def open(self, job: BatchJob, rows: Sequence[BatchRow]) -> set[str]:
        """Store a job before it is sent; return the keys that are in it."""

    def submitted(self, job_id: str, name: str, *, progress: str, at: float) -> bool:
        """Store the service's name; False if the job was closed meanwhile."""

    def progressed(self, job_id: str, progress: str, *, at: float) -> None:
        """Store a progress report."""

    def cancelling(self, job_id: str, *, at: float) -> None:
        """Store that its cancellation was requested."""

    def alive(self, model: str | None = None) -> list[BatchJob]:
        """Jobs that are not closed, oldest first."""

    def rows(self, job_id: str) -> dict[str, BatchRow]:
        """A job's requests without a recorded reply."""

    def keys(self, model: str) -> set[str]:
        """Keys of all requests in open jobs."""

    def record(self, calls: Sequence[StoredCall]) -> None:
        """Record replies and remove their requests from the jobs."""

    def close(
        self, job_id: str, ending: BatchEnding, *, at: float, detail: str | None = None
    ) -> dict[str, int]:
        """Close a job; return the unanswered keys, with the number of jobs in which each was."""

    def forget(self, keys: Collection[str]) -> None:
        """Drop requests whose outcome is final."""
