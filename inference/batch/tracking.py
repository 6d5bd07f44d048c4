"""Tracks the batch jobs of one model: packs, sends, polls and cancels them, finds lost ones again.

All it knows about a job is in the store, so that another process can take over at any moment.
"""

from __future__ import annotations

import glob
import math
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from inference.batch.jobs import BatchLimits, BatchService, BatchStore, NotTaken, RemoteJob
from inference.budget import Purse, input_bound
from inference.dispatch import LoopThread
from inference.prices import cost
from inference.protocol import GenerationRequest, TextModel, request_text
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
    Usage,
)


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
    for left in Path(tempfile.gettempdir()).glob(f"{glob.escape(mine)}*"):
        pid = left.name.removeprefix(mine).partition("-")[0]
        if pid.isdecimal() and int(pid) != os.getpid() and not _may_run(int(pid)):
            shutil.rmtree(left, ignore_errors=True)  # another user's cannot be removed
    with tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}-") as folder:
        yield Path(folder)


def _may_run(pid: int) -> bool:
    if sys.platform == "win32":  # there signal 0 would be sent as Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
        return BatchRow(key, request_text(request), tokens, usd, meta=request.meta)

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
        return self._thread.submit(coroutine).result()

    def close(self, drain_s: float) -> None:
        """Wait at most `drain_s` seconds for a call in flight, then release everything."""
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
