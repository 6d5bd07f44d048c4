"""What a batch service is: files of requests in, jobs to wait for, files of replies out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inference.protocol import GenerationRequest, TextModel
from traces.batches import BatchEnding, BatchJob, BatchRow
from traces.errors import ModelUnavailable
from traces.records import ModelReply, StoredCall


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
    """Where jobs are written down (`storage.batch_jobs.BatchJobs`, which says what each does)."""

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
