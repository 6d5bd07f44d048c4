"""Runs requests as batch jobs: half the price, hours instead of seconds, nothing lost.

    runner = BatchRunner(service, store.replies.batch_jobs, store.replies, limits)
    for request, reply in runner.run(requests):
        ...

It replaces `dispatch.Dispatcher`. Each job is stored before it is sent, and each reply is recorded
before the caller sees it. After a kill, even on the next day, the same requests find their jobs
again and are not sent twice. Source of the limits and of the states in which jobs end:
ai.google.dev/gemini-api/docs/batch-api and the reports python-genai#1482, #1901 and #2221.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from typing import Any

from inference.batch.jobs import (
    OUT_OF_REACH,
    BatchBudget,
    BatchLimits,
    BatchService,
    BatchStore,
    JobRoom,
    JobTracker,
    NotTaken,
    PendingRequest,
    RemoteJob,
    RowOutcome,
    batch_folder,
    next_job,
)
from inference.budget import Purse
from inference.dispatch import CountsHits, DispatchCounters, Outcome
from inference.protocol import GenerationRequest, ResponseStore, TextModel, key_for
from traces import (
    BatchEnding,
    BatchJob,
    BatchRow,
    ModelRefused,
    ModelReply,
    ModelUnavailable,
    QuotaExhausted,
    StoredCall,
)

RECORDED_AT_ONCE = 200
"""Replies per transaction."""


class JobResults:
    """The results of an ended job: first its `replies`, then `close` returns what is unanswered."""

    def __init__(self, tracker: JobTracker, job: BatchJob, remote: RemoteJob | None) -> None:
        """Nothing is fetched yet; `remote` is None if the service does not know the job."""
        self._tracker = tracker
        self._job = job
        self._remote = remote
        self._ending = BatchEnding.LOST if remote is None else remote.ending or BatchEnding.LOST
        if self._ending is BatchEnding.CANCELLED and job.cancelled_at is not None:
            self._ending = BatchEnding.STUCK
        self._detail = "the service does not know it" if remote is None else remote.error
        self._recorded = 0
        self.rows: dict[str, BatchRow] = {}
        """Requests of the job without a reply (yet)."""
        self.errors: dict[str, ModelUnavailable] = {}
        """Those of them that the service answered with an error."""
        self.is_out_of_reach = False
        """Whether its results could not be fetched now, so that it stays open."""

    def replies(self) -> Iterator[tuple[BatchRow, ModelReply]]:
        """Record and yield the replies; repeated and unknown keys are ignored."""
        self.rows = self._tracker.store.rows(self._job.id)
        if self._remote is None or self._remote.results is None:
            return
        with batch_folder() as folder:
            file = folder / "replies.jsonl"
            try:
                fetched = self._tracker.call(
                    self._tracker.service.fetch(self._remote.results, file)
                )
            except OUT_OF_REACH as error:
                self.is_out_of_reach = True
                self._tracker.missed(error)
                return
            if not fetched:
                self._ending, self._detail = BatchEnding.LOST, "its results are gone"
                return
            with file.open("rb") as lines:
                outcomes = self._tracker.service.outcomes(lines)
                while group := list(islice(outcomes, RECORDED_AT_ONCE)):
                    yield from self._record(group)

    def close(self) -> dict[str, int]:
        """Close the job; return the keys without an outcome, with the number of jobs each was in.

        Raises:
            ModelRefused: it failed as a whole, and the same job would fail again.
        """
        left = self._tracker.store.close(
            self._job.id, self._ending, at=self._tracker.clock(), detail=self._detail
        )
        self._tracker.store.forget(self.errors)
        for key in self.errors:
            left.pop(key, None)
        self._tracker.report(self._summary(len(left)))
        untouched = not self._recorded and self._job.outstanding == self._job.requests
        if self._remote is not None and self._remote.hopeless and untouched:
            raise ModelRefused(
                f'"{self._tracker.spec}" rejected the batch job {self._job.name}: {self._detail}',
                remedy="check the model's limits and the options given; "
                "--service flex has the same price",
            )
        return left

    def _record(self, group: list[RowOutcome]) -> Iterator[tuple[BatchRow, ModelReply]]:
        answered: list[tuple[BatchRow, ModelReply]] = []
        for each in group:
            row = self.rows.get(each.key)
            if row is None:
                continue
            if isinstance(each.outcome, ModelReply):
                answered.append((self.rows.pop(each.key), each.outcome))
                self.errors.pop(each.key, None)
            else:
                self.errors[each.key] = each.outcome
        self._tracker.store.record(
            [StoredCall(row.key, row.request, reply, _meta(row, reply)) for row, reply in answered]
        )
        self._recorded += len(answered)
        yield from answered

    def _summary(self, missing: int) -> str:
        counts = [f"{self._recorded} replies"]
        if self.errors:
            counts.append(f"{len(self.errors)} errors")
        if missing:
            counts.append(f"{missing} without an answer")
        why = f" ({self._detail})" if self._detail else ""
        name = self._job.name or self._job.display_name
        return f"{name}: {self._ending.value}, {', '.join(counts)}{why}."


def _meta(row: BatchRow, reply: ModelReply) -> Mapping[str, Any]:
    return row.meta if reply.server is None else {**row.meta, "server": reply.server}


def too_large(pending: PendingRequest, limits: BatchLimits) -> ModelUnavailable | None:
    """The error of a request that does not fit in any job; None if it does."""
    if pending.row.tokens <= limits.enqueued_tokens and pending.size <= limits.file_bytes:
        return None
    return ModelUnavailable(
        f"The request of about {pending.row.tokens} tokens ({pending.size} bytes) does not fit in "
        f"a batch job of at most {limits.enqueued_tokens} enqueued tokens.",
        remedy="raise --enqueued-tokens if your tier allows it, or use --service flex",
    )


def left_unanswered(spec: str, jobs: int) -> ModelUnavailable:
    """The error of a request that several jobs left unanswered."""
    return ModelUnavailable(
        f'"{spec}" left this request unanswered in {jobs} batch jobs.',
        remedy="run stepgold retry; --service flex has the same price",
    )


def no_room(spec: str, said: str) -> QuotaExhausted:
    """The error of a service that accepts no job although we run none."""
    return QuotaExhausted(
        f'"{spec}" does not accept batch jobs: {said}',
        remedy="run the same command again later, with a smaller --enqueued-tokens, "
        "or with --service flex, which has the same price",
    )


class BatchQueue:
    """The requests of a run by key: those that wait for a job, and all that wait for a reply."""

    def __init__(self, requests: Iterable[GenerationRequest]) -> None:
        self._source = iter(requests)
        self._pending: dict[str, PendingRequest] = {}
        self._tokens = 0
        self._size = 0
        self.askers: dict[str, list[GenerationRequest]] = {}
        """The requests that wait for the reply of a key."""
        self.is_exhausted = False
        """Whether no further requests are read."""
        self.fatal: Exception | None = None
        """Why no further job is sent; None without a fault."""

    @property
    def pending(self) -> Iterator[PendingRequest]:
        """Those that wait for a job, the longest waiting first."""
        return iter(self._pending.values())

    def next(self) -> GenerationRequest | None:
        """The next request; None if there is none or none is wanted."""
        request = None if self.is_exhausted else next(self._source, None)
        self.is_exhausted = request is None
        return request

    def is_full(self, tokens: int, size: int, requests: int) -> bool:
        """Whether the waiting requests reach one of these bounds."""
        return self._tokens >= tokens or self._size >= size or len(self._pending) >= requests

    def push(self, pending: PendingRequest) -> None:
        """Let a request wait for a job, after the others."""
        self._pending[pending.row.key] = pending
        self._tokens += pending.row.tokens
        self._size += pending.size

    def put_back(self, requests: Iterable[PendingRequest]) -> None:
        """Let these wait again, before the others."""
        others = list(self._pending.values())
        self._pending, self._tokens, self._size = {}, 0, 0
        for each in (*requests, *others):
            self.push(each)

    def take(self, requests: Iterable[PendingRequest]) -> None:
        """Remove requests that no longer wait for a job."""
        for each in requests:
            del self._pending[each.row.key]
            self._tokens -= each.row.tokens
            self._size -= each.size

    def in_jobs(self) -> set[str]:
        """Keys that wait for a reply but not for a job: they should be in a job."""
        return self.askers.keys() - self._pending.keys()

    def stop(self, error: Exception) -> None:
        """Send nothing more; requests that wait for a job stay unanswered in this run."""
        self.fatal = self.fatal or error
        self.is_exhausted = True
        for key in self._pending:
            del self.askers[key]
        self._pending, self._tokens, self._size = {}, 0, 0


DRAIN_S = 15.0
"""Seconds that a call in flight gets when the runner is closed."""

Answers = Iterator[tuple[GenerationRequest, Outcome]]


@dataclass(frozen=True, slots=True)
class BatchClock:
    """Time and waiting, which tests replace."""

    now: Callable[[], float] = time.time
    """Unix seconds."""
    sleep: Callable[[float], None] = time.sleep
    """Waits between two polls."""
    today: Callable[[], date] = date.today
    """The day whose prices apply."""


class BatchRunner:
    """Runs requests as batch jobs within caps and a budget. One caller at a time."""

    def __init__(
        self,
        service: BatchService,
        store: BatchStore,
        responses: ResponseStore,
        limits: BatchLimits,
        *,
        budget_usd: float | Purse | None = None,
        inspect: Callable[[ModelReply], None] | None = None,
        report: Callable[[str], None] = lambda _: None,
        clock: BatchClock | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            service: runs the jobs; its model is closed with the runner.
            store: stores jobs; its `record` writes to `responses`.
            responses: stores replies, under the same keys as those of single calls.
            limits: how jobs are packed, polled and given up.
            budget_usd: maximum US dollars, or a shared purse; outstanding requests count at their
                upper bound. None for no limit.
            inspect: is given every reply before the caller; may raise ModelChanged.
            report: receives messages for the user, a line at a time.
            clock: time and waiting; None uses the real clock.

        Raises:
            InputError: a budget for a model without a known price.
        """
        clock = clock or BatchClock()
        self._tracker = JobTracker(service, store, limits, report=report, clock=clock.now)
        self._responses = responses
        self._limits = limits
        self._budget = BatchBudget(budget_usd, service.model, today=clock.today)
        self._inspect = inspect
        self._sleep = clock.sleep
        self._cap = limits.enqueued_tokens
        self._refusals = 0
        self._not_before = 0.0
        self._sent: set[str] = set()
        self.counters = DispatchCounters()
        """Totals over all runs."""

    @property
    def model(self) -> TextModel:
        """The model that answers."""
        return self._tracker.service.model

    @property
    def retries(self) -> int:
        """Retries over all calls of the service."""
        return self._tracker.service.retries

    def __enter__(self) -> BatchRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release connections; running jobs continue, and the user is told how to collect them."""
        try:
            if running := self._tracker.still_running():
                self._tracker.report(
                    f"{running} Run the same command again, today or tomorrow, to collect their "
                    "results; nothing is sent twice."
                )
        finally:
            self._tracker.close(DRAIN_S)

    def run(self, requests: Iterable[GenerationRequest]) -> Answers:
        """Yield each request with its reply, or with its ModelUnavailable.

        Requests are read as far as one job holds, and answered in any order. If the budget or the
        quota forbids further jobs, the running ones are awaited first. A caller that stops early,
        also by Ctrl-C, leaves the jobs running.

        Raises:
            ModelRefused: key, model or job refused.
            QuotaExhausted: the service accepts no further job.
            BudgetExhausted: the next job could exceed the budget.
            ModelChanged: raised by `inspect`.
            ModelUnavailable: the service could not be reached for too long.
            InputError: jobs of this model run at another endpoint.
            StoreError: a job or a reply could not be recorded.
        """
        self._tracker.adopt()
        queue = BatchQueue(requests)
        while True:
            answered = 0
            for answer in self._collected(queue):
                answered += 1
                yield answer
            yield from self._read(queue)
            sent = self._send(queue)
            if not queue.askers and queue.is_exhausted:
                break
            if not answered and not sent:
                self._sleep(self._limits.poll_s)
        if queue.fatal is not None:
            raise queue.fatal

    def _collected(self, queue: BatchQueue) -> Answers:
        """Yield the results of the jobs that have ended."""
        for job, remote in self._tracker.ended():
            results = JobResults(self._tracker, job, remote)
            for row, reply in results.replies():
                self._budget.settle(row, reply)
                self.counters.unpriced += reply.usd is None
                self.counters.usd += reply.usd or 0.0
                yield from self._answer(queue, row.key, reply)
            if results.is_out_of_reach:
                return
            left = results.close()
            self._cap = min(self._limits.enqueued_tokens, 2 * self._cap)
            for key, error in results.errors.items():
                yield from self._answer(queue, key, error)
            for key, jobs in left.items():
                if jobs >= self._limits.jobs_per_request:
                    self._tracker.store.forget([key])
                    yield from self._answer(queue, key, left_unanswered(self._tracker.spec, jobs))
        yield from self._strayed(queue)

    def _strayed(self, queue: BatchQueue) -> Answers:
        """Requests that should be in a job but are not: answered elsewhere, or to be sent again."""
        if not queue.askers:
            return
        for key in queue.in_jobs() - self._tracker.store.keys(self._tracker.spec):
            stored = self._stored(key)
            if stored is not None:
                yield from self._answer(queue, key, stored)
            elif queue.fatal is not None:
                del queue.askers[key]
            else:
                queue.push(self._pending(key, queue.askers[key][0]))

    def _read(self, queue: BatchQueue) -> Answers:
        """Read the requests that one job can hold; yield those that need no job."""
        in_jobs = self._tracker.store.keys(self._tracker.spec)
        limits = self._limits
        while not queue.is_full(self._tokens_at_once(), limits.file_bytes, limits.requests_per_job):
            request = queue.next()
            if request is None:
                return
            key = key_for(self.model, request)
            stored = self._stored(key)
            if stored is not None:
                yield from self._shown(request, stored)
            elif key in queue.askers:
                queue.askers[key].append(request)
            elif key in in_jobs:
                queue.askers[key] = [request]
            else:
                pending = self._pending(key, request)
                queue.askers[key] = [request]
                if error := too_large(pending, limits):
                    yield from self._answer(queue, key, error)
                else:
                    queue.push(pending)

    def _send(self, queue: BatchQueue) -> bool:
        """Send what fits within caps and budget; return whether anything was sent."""
        if self._tracker.clock() < self._not_before:
            return False
        alive, first = self._tracker.alive(), next(queue.pending, None)
        if first is None or len(alive) >= self._limits.jobs_at_once:
            return False
        tokens, usd = sum(job.tokens for job in alive), sum(job.usd for job in alive)
        # Always try a single request: the cap learned from refusals may be smaller.
        free = self._tokens_at_once() - tokens
        free = free if alive else max(free, first.row.tokens)
        left = self._budget.left(usd)
        limits = self._limits
        requests = next_job(
            queue.pending, JobRoom(free, limits.file_bytes, limits.requests_per_job, left)
        )
        if requests:
            return self._submit(queue, requests, tokens)
        if not alive and (first.row.usd or 0.0) > left:
            queue.stop(self._budget.exhausted())
        return False

    def _tokens_at_once(self) -> int:
        """The cap in estimated tokens, of which the service may count more."""
        return int(self._cap / self._budget.input_factor)

    def _submit(self, queue: BatchQueue, requests: list[PendingRequest], tokens_alive: int) -> bool:
        tracker = self._tracker
        job = BatchJob(
            uuid.uuid4().hex,
            tracker.spec,
            endpoint=tracker.service.endpoint,
            created_at=tracker.clock(),
        )
        taken = tracker.store.open(job, [each.row for each in requests])
        queue.take(requests)
        mine = [each for each in requests if each.row.key in taken]
        if not mine:  # another process has them all
            return False
        try:
            tracker.send(job, mine)
        except NotTaken as refusal:
            queue.put_back(mine)
            self._step_back(queue, mine, tokens_alive, refusal)
            return False
        except QuotaExhausted as error:
            queue.put_back(mine)
            queue.stop(error)
            return False
        self._refusals = 0
        self._sent.update(each.row.key for each in mine)
        self.counters.sent = len(self._sent)
        return True

    def _step_back(
        self,
        queue: BatchQueue,
        requests: list[PendingRequest],
        tokens_alive: int,
        refusal: NotTaken,
    ) -> None:
        """The real cap is below the stated one: wait for one of our jobs to end, or halve it."""
        self._refusals += 1
        self._not_before = self._tracker.clock() + (refusal.delay_s or 0.0)
        half = sum(each.row.tokens for each in requests) // 2
        estimate = tokens_alive or max(half, requests[0].row.tokens)
        self._cap = math.ceil(estimate * self._budget.input_factor)
        if not tokens_alive and self._refusals >= self._limits.refusals:
            queue.stop(no_room(self._tracker.spec, refusal.what))

    def _answer(self, queue: BatchQueue, key: str, outcome: Outcome) -> Answers:
        """Yield the outcome for every request that waits for it."""
        for number, request in enumerate(queue.askers.pop(key, ())):
            if isinstance(outcome, ModelReply):
                yield from self._shown(request, self._saved(key, outcome) if number else outcome)
            else:
                self.counters.failed += not number
                yield request, outcome

    def _shown(self, request: GenerationRequest, reply: ModelReply) -> Answers:
        if self._inspect is not None:
            self._inspect(reply)
        yield request, reply

    def _pending(self, key: str, request: GenerationRequest) -> PendingRequest:
        size = self._tracker.service.size(key, request)
        return PendingRequest(request, self._budget.row(key, request), size)

    def _stored(self, key: str) -> ModelReply | None:
        reply = self._responses.get(key)
        return None if reply is None else self._saved(key, reply)

    def _saved(self, key: str, reply: ModelReply) -> ModelReply:
        """A reply that did not have to be paid for again, counted."""
        if isinstance(self._responses, CountsHits):
            self._responses.count_hit(key)
        self.counters.cached += 1
        return replace(reply, cached=True)
