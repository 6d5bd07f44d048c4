"""The bounds of batch jobs: what the service takes, and how long we wait and try."""

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


# --- What a batch service is: files of requests in, jobs to wait for, files of replies out


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A job as the service describes it."""

    name: str
    """The service's name for it."""
    display_name: str | None
    """The name we gave it."""
    ending: BatchEnding | None
    """How it ended: succeeded, failed, cancelled or expired; None while it is on its way."""
    progress: str
    """A sign of life: it changes when the service does something with the job."""
    results: str | None = None
    """Name of the file with the replies; None where there is none (yet)."""
    created: str = ""
    """When the service took it, ISO 8601; empty where it does not say."""
    error: str | None = None
    """Why it failed; None where the service does not say."""
    hopeless: bool = False
    """Whether the same job must fail again: the request itself was refused."""


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """What became of one row of a job."""

    key: str
    """The key that we gave the row."""
    outcome: ModelReply | ModelUnavailable
    """Its reply, or the error that the service put in its place."""


class NotTaken(Exception):
    """The service has no room for the job now (429 when it was to be made): nothing was made.

    Args:
        what: what the service says.
        delay_s: seconds it asks to wait; None if it does not say.
    """

    def __init__(self, what: str, delay_s: float | None) -> None:
        super().__init__(what)
        self.what = what
        """What the service says."""
        self.delay_s = delay_s
        """Seconds to wait."""


class BatchService(Protocol):
    """A service for batch jobs of one model.

    Every call is tried again a bounded number of times and raises ModelUnavailable, ModelRefused or
    QuotaExhausted as `TextModel.generate` does.
    """

    @property
    def model(self) -> TextModel:
        """The model that answers."""

    @property
    def endpoint(self) -> str:
        """Base URL of the service."""

    @property
    def retries(self) -> int:
        """Attempts after a first one, so far."""

    def size(self, key: str, request: GenerationRequest) -> int:
        """Bytes of the row of a request in the file of a job, from above; nothing is sent for it."""

    async def line(self, key: str, request: GenerationRequest) -> bytes:
        """That row, with its line end; what it refers to has gone up."""

    async def submit(self, display_name: str, file: Path) -> RemoteJob:
        """Upload the file and make a job of it; one that was made though its reply was lost is found.

        Raises:
            NotTaken: there is no room for it now.
        """

    async def find(self, display_names: Collection[str]) -> list[RemoteJob]:
        """The jobs of these display names, oldest first."""

    async def job(self, name: str) -> RemoteJob | None:
        """The job of that name; None if the service does not know it."""

    async def cancel(self, name: str) -> None:
        """Ask for a job's end; one that has ended, or is not known, is left alone."""

    async def fetch(self, results: str, file: Path) -> bool:
        """Write a job's replies to `file`; False if the service does not have them any more."""

    def outcomes(self, lines: Iterable[bytes]) -> Iterator[RowOutcome]:
        """Read the replies of a job; what cannot be read as a row with a key is left out."""


class BatchStore(Protocol):
    """Where jobs are written down (`storage.replies.BatchJobs`, which says what each does)."""

    def open(self, job: BatchJob, rows: Sequence[BatchRow]) -> set[str]:
        """Write a job down before it is sent; return the keys that are in it."""

    def submitted(self, job_id: str, name: str, *, progress: str, at: float) -> bool:
        """Note the service's name; False if the job was closed meanwhile."""

    def progressed(self, job_id: str, progress: str, *, at: float) -> None:
        """Note a sign of life."""

    def cancelling(self, job_id: str, *, at: float) -> None:
        """Note that its cancellation was asked for."""

    def alive(self, model: str | None = None) -> list[BatchJob]:
        """Jobs that are not closed, oldest first."""

    def rows(self, job_id: str) -> dict[str, BatchRow]:
        """A job's requests without a recorded reply."""

    def keys(self, model: str) -> set[str]:
        """Keys of all requests in open jobs."""

    def record(self, calls: Sequence[StoredCall]) -> None:
        """Record replies and take their requests off the jobs."""

    def close(
        self, job_id: str, ending: BatchEnding, *, at: float, detail: str | None = None
    ) -> dict[str, int]:
        """Close a job; return the keys left over, with the number of jobs each was in."""

    def forget(self, keys: Collection[str]) -> None:
        """Drop requests whose outcome is decided."""
