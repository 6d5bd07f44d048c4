"""Batch jobs of one model: their limits, and the tracker that sends, polls, cancels and finds them.

Also what a batch service and the store of jobs must offer. All that the tracker knows about a job
is in the store, so that another process can take over at any moment.
"""

from __future__ import annotations

import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from inference.background import LoopThread
from inference.budget import Purse, input_bound
from inference.prices import cost
from inference.protocol import GenerationRequest, TextModel, text_for
from inference.retries import RetryPolicy, one_reply
from inference.specs import ModelSpec
from traces import (
    BatchEnding,
    BatchJob,
    BatchRow,
    BatchState,
    BudgetExhausted,
    InputError,
    ModelRefused,
    ModelReply,
    ModelUnavailable,
    QuotaExhausted,
    StoredCall,
    Usage,
    remove_left_by_killed,
    uninterrupted,
)

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

TRANSFER_POLICY = RetryPolicy(attempts=4, total_s=7200.0, attempt_s=3600.0)
"""Files may be gigabytes."""
CALL_POLICY = RetryPolicy(attempts=5, total_s=300.0, attempt_s=120.0)
"""Bounds of the retries of transfers, and of short calls."""

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


def row_outcome(
    key: str, spec: str, read: Callable[[], ModelReply | ModelUnavailable | None]
) -> RowOutcome | None:
    """What `read` says of a row; a row that it cannot take is an error of its own, not the run's.

    Args:
        key: our key of the row.
        spec: the model, for messages.
        read: reads the row; None if it was never run, so that it is sent again.
    """
    try:
        with one_reply(spec):
            outcome = read()
    except ModelUnavailable as fault:
        outcome = fault
    return None if outcome is None else RowOutcome(key, outcome)


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


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that waits for a job."""

    request: GenerationRequest
    row: BatchRow
    """Its row in the store."""
    size: int
    """Bytes of its line in the file."""


@dataclass(frozen=True, slots=True)
class JobRoom:
    """The limits of the next job."""

    tokens: int
    """Input tokens."""
    size: int
    """Bytes of the file."""
    requests: int
    usd: float
    """US dollars; infinite without a budget."""


def next_job(pending: Iterable[PendingRequest], room: JobRoom) -> list[PendingRequest]:
    """The first requests of `pending` that fit in one job together.

    The job is not filled up with later, smaller requests, so that a large one does not wait
    forever.
    """
    requests: list[PendingRequest] = []
    tokens, size, usd = room.tokens, room.size, room.usd
    for each in pending:
        tokens -= each.row.tokens
        size -= each.size
        usd -= each.row.usd or 0.0
        if min(tokens, size, usd) < 0 or len(requests) == room.requests:
            break
        requests.append(each)
    return requests


@contextmanager
def batch_folder() -> Iterator[Path]:
    """A temporary folder for the file of a job; sweeps those that killed processes left behind.

    Such files hold prompts, so they must not stay. The name has machine and process.
    """
    mine = f"stepgold-{socket.gethostname()}-"
    remove_left_by_killed(Path(tempfile.gettempdir()), mine)
    with tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}-") as folder:
        yield Path(folder)


class BatchBudget:
    """The budget of a run of batch jobs, and the maximum cost of a request."""

    def __init__(
        self,
        limit_usd: float | Purse | None,
        model: TextModel,
        *,
        today: Callable[[], date] = date.today,
    ) -> None:
        """Nothing is spent yet.

        Args:
            limit_usd: maximum US dollars, or a shared purse; None for no limit.
            model: the model that answers.
            today: the day whose prices apply.

        Raises:
            InputError: a limit for a model without a known price.
        """
        self._purse = limit_usd if isinstance(limit_usd, Purse) else Purse(limit_usd)
        self._name = ModelSpec.parse(model.spec).name
        self._model = model
        self._today = today
        self.input_factor = 1.0
        """Largest ratio of the service's token count to our estimate; at least 1."""
        if self._purse.limit_usd is not None and self._most(Usage()) is None:
            raise InputError(
                f'No price is known for "{model.spec}", so a budget cannot be enforced.',
                remedy="leave --budget out, or use a model with a known price",
            )

    def row(self, key: str, request: GenerationRequest) -> BatchRow:
        """The row of a request, with upper bounds of its tokens and cost."""
        tokens = input_bound(request)
        counted = math.ceil(tokens * self.input_factor)
        usd = self._most(Usage(input_tokens=counted, output_tokens=request.max_tokens))
        return BatchRow(key, text_for(self._model, request), tokens, usd, meta=request.meta)

    def settle(self, row: BatchRow, reply: ModelReply) -> None:
        """Count a reply that was paid for, and learn how the service counts input."""
        self._purse.spent_usd += (row.usd or 0.0) if reply.usd is None else reply.usd
        counted = reply.usage.input_tokens / max(1, row.tokens)
        self.input_factor = max(self.input_factor, counted)

    def left(self, committed_usd: float) -> float:
        """What is left after the outstanding requests; infinite without a limit."""
        purse = self._purse
        purse.held_usd[id(self)] = committed_usd
        if purse.limit_usd is None:
            return math.inf
        return purse.limit_usd - purse.spent_usd - sum(purse.held_usd.values())

    def exhausted(self) -> BudgetExhausted:
        """The error that ends the run."""
        return BudgetExhausted(
            f"The next batch job could exceed the budget of {self._purse.limit_usd:g} USD "
            f"({self._purse.spent_usd:.4f} USD spent).",
            remedy="run the same command again with a larger --budget; what is done is kept",
        )

    def _most(self, usage: Usage) -> float | None:
        return cost(usage, self._name, "batch", on=self._today())


T = TypeVar("T")

RETENTION_S = 72 * 3600.0
"""The service ends jobs after 48 hours, so older ones no longer run."""

OUT_OF_REACH = (ModelUnavailable, QuotaExhausted)
"""Faults of a poll that may pass while jobs run: no answer, or polling too fast."""


@dataclass(slots=True)
class JobTracker:
    """The jobs of one model at one service, of whichever process. One caller at a time."""

    service: BatchService
    """Runs the jobs."""
    store: BatchStore
    """Stores them."""
    limits: BatchLimits
    report: Callable[[str], None] = lambda _: None
    """Receives messages for the user, a line at a time."""
    clock: Callable[[], float] = time.time
    """Unix seconds, because jobs outlive processes."""
    _thread: LoopThread | None = None
    _missed: int = 0

    @property
    def spec(self) -> str:
        """The model as the user named it."""
        return self.service.model.spec

    def alive(self) -> list[BatchJob]:
        """The running jobs, oldest first."""
        return self.store.alive(self.spec)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a call of the service and wait for its result."""
        if self._thread is None:
            self._thread = LoopThread()
        return self._thread.result(coroutine)

    def close(self, drain_s: float) -> None:
        """Wait at most `drain_s` seconds for a call in flight, then release everything."""
        with uninterrupted():
            thread, self._thread = self._thread or LoopThread(), None
            try:
                thread.drain(drain_s)
                thread.submit(self.service.model.aclose()).result()
            finally:
                thread.close()

    def adopt(self) -> None:
        """Take over the jobs that other processes left.

        Raises:
            InputError: jobs of this model run at another endpoint.
        """
        for job in self.alive():
            if job.endpoint == self.service.endpoint:
                continue
            if self.clock() - job.created_at < RETENTION_S:
                raise InputError(
                    f'A batch job of "{self.spec}" with {job.outstanding} requests is running '
                    f"at {job.endpoint}.",
                    where=job.display_name,
                    remedy=f"collect its results first: --base-url {job.endpoint}",
                )
            self.store.close(job.id, BatchEnding.LOST, at=self.clock())
        self._find([job for job in self.alive() if job.state is BatchState.PREPARED])
        if jobs := self.alive():
            self.report(
                f"{_amount(jobs)} still running from an earlier run: collecting their results."
            )

    def send(self, job: BatchJob, requests: Sequence[PendingRequest]) -> None:
        """Send a stored job.

        Raises:
            NotTaken: the service has no room for it now; it is closed.
            ModelRefused, QuotaExhausted: the service refused it; it is closed.
            ModelUnavailable: it is unknown whether it was created; it stays prepared.
        """
        with batch_folder() as folder:
            file = folder / "requests.jsonl"
            try:
                with file.open("wb") as lines:
                    for each in requests:
                        lines.write(self.call(self.service.line(each.row.key, each.request)))
                remote = self.call(self.service.submit(job.display_name, file))
            except (NotTaken, ModelRefused, QuotaExhausted) as refusal:
                detail = refusal.what
                self.store.close(job.id, BatchEnding.REFUSED, at=self.clock(), detail=detail)
                raise
        if self._enter(job, remote):
            self.report(f"{remote.name}: {len(requests)} requests sent.")

    def ended(self) -> Iterator[tuple[BatchJob, RemoteJob | None]]:
        """Poll every job once; yield those that have ended, with None if the service lost it.

        Raises:
            ModelUnavailable, QuotaExhausted: too many polls in a row failed.
        """
        for job in self.alive():
            try:
                if job.state is BatchState.PREPARED or job.name is None:
                    if self.clock() - job.created_at > self.limits.resume_s:
                        self._find([job])
                    continue
                remote = self.call(self.service.job(job.name))
                given_up = remote is not None and remote.ending is None and self._watch(job, remote)
            except OUT_OF_REACH as error:
                self.missed(error)
                return
            self._missed = 0
            if remote is None or remote.ending is not None:
                yield job, remote
            elif given_up:
                yield job, replace(remote, ending=BatchEnding.STUCK)

    def missed(self, error: ModelUnavailable | QuotaExhausted) -> None:
        """Count a poll that failed; jobs run on without us, so this may pass.

        Raises:
            ModelUnavailable, QuotaExhausted: too many polls in a row failed.
        """
        self._missed += 1
        if self._missed == 1:
            self.report(f"{error.what} The batch jobs keep running; trying again.")
        if self._missed >= self.limits.silent_polls:
            raise error

    def _watch(self, job: BatchJob, remote: RemoteJob) -> bool:
        """Store progress, cancel a job without any; True once a canceled job is given up."""
        now = self.clock()
        if job.cancelled_at is not None:
            return now - job.cancelled_at > self.limits.cancel_s
        seen_at = job.progress_at
        if remote.progress != job.progress:
            self.store.progressed(job.id, remote.progress, at=now)
            seen_at = now
        stuck = now - seen_at > self.limits.stuck_s
        if stuck or now - job.created_at > 2 * self.limits.stuck_s:
            self.call(self.service.cancel(remote.name))
            self.store.cancelling(job.id, at=now)
            hours = (now - (seen_at if stuck else job.created_at)) / 3600
            self.report(f"{remote.name}: not finished after {hours:.1f} h, canceled.")
        return False

    def _find(self, prepared: Sequence[BatchJob]) -> None:
        """Take over prepared jobs that the service knows by display name; close the others."""
        if not prepared:
            return
        wanted = {job.display_name for job in prepared}
        found = self.call(self.service.find(wanted))
        for job in prepared:
            ours = [remote for remote in found if remote.display_name == job.display_name]
            if not ours:
                self.store.close(job.id, BatchEnding.NEVER_SENT, at=self.clock())
                continue
            self._enter(job, ours[0])
            for surplus in ours[1:]:  # created twice by a service that answered too late
                self.call(self.service.cancel(surplus.name))

    def _enter(self, job: BatchJob, remote: RemoteJob) -> bool:
        """Store the service's name; cancel a job that another process closed meanwhile."""
        entered = self.store.submitted(job.id, remote.name, progress="", at=self.clock())
        if not entered:
            self.call(self.service.cancel(remote.name))
        return entered

    def still_running(self) -> str | None:
        """A note on the jobs that are still running; None without any."""
        jobs = self.alive()
        return f"{_amount(jobs)} keep running at the service." if jobs else None


def _amount(jobs: Sequence[BatchJob]) -> str:
    requests = sum(job.outstanding for job in jobs)
    return f"{len(jobs)} batch job(s) with {requests} requests"
