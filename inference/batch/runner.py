"""Takes what an ended job left: replies into the ledger, errors and gaps to whoever asked.

Runs requests as batch jobs: half the price, hours instead of seconds, nothing lost in between.

    for request, reply in BatchRunner(service, store.replies.batch_jobs, store.replies, limits).run(requests):
        ...

It takes the place of `dispatch.Dispatcher`. Each job is written down before it is sent, and each
reply is recorded before the caller sees it: after a kill, also on the next day, the same requests
find their jobs again and are not sent twice. Source of the limits and of the states that jobs end
in: ai.google.dev/gemini-api/docs/batch-api and the reports python-genai#1482, #1901 and #2221.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from inference.batch.desk import (
    OUT_OF_REACH,
    BatchBudget,
    BatchDesk,
    PendingRequest,
    Room,
    next_wave,
)
from inference.batch.jobs import (
    BatchLimits,
    BatchService,
    BatchStore,
    NotTaken,
    RemoteJob,
    RowOutcome,
)
from inference.budget import Purse
from inference.dispatch import CountsHits, DispatchCounters, Outcome
from inference.protocol import GenerationRequest, ResponseStore, TextModel, request_key
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
"""Replies of one transaction."""


class Harvest:
    """One ended job: first its `replies`, then what `close` finds left."""

    def __init__(self, desk: BatchDesk, job: BatchJob, remote: RemoteJob | None) -> None:
        """Nothing is fetched yet.

        Args:
            desk: the service and the store.
            job: the job as we know it.
            remote: the job as the service describes it; None if it does not know it.
        """
        self._desk = desk
        self._job = job
        self._remote = remote
        self._ending = BatchEnding.LOST if remote is None else remote.ending or BatchEnding.LOST
        if self._ending is BatchEnding.CANCELLED and job.cancelled_at is not None:
            self._ending = BatchEnding.STUCK
        self._detail = "the service does not know it" if remote is None else remote.error
        self._recorded = 0
        self.rows: dict[str, BatchRow] = {}
        """Requests of the job that have no reply (yet)."""
        self.errors: dict[str, ModelUnavailable] = {}
        """Of these, the ones that the service answered with an error."""
        self.is_out_of_reach = False
        """Whether its results could not be fetched now: it stays open."""

    def replies(self) -> Iterator[tuple[BatchRow, ModelReply]]:
        """Yield the replies, each recorded before; a repeated or foreign key is passed over."""
        self.rows = self._desk.store.rows(self._job.id)
        if self._remote is None or self._remote.results is None:
            return
        with TemporaryDirectory(prefix="stepgold-") as folder:
            file = Path(folder) / "replies.jsonl"
            try:
                fetched = self._desk.call(self._desk.service.fetch(self._remote.results, file))
            except OUT_OF_REACH as error:
                self.is_out_of_reach = True
                self._desk.missed(error)
                return
            if not fetched:
                self._ending, self._detail = BatchEnding.LOST, "its results are gone"
                return
            with file.open("rb") as lines:
                outcomes = self._desk.service.outcomes(lines)
                while group := list(islice(outcomes, RECORDED_AT_ONCE)):
                    yield from self._record(group)

    def close(self) -> dict[str, int]:
        """Close the job; return the keys without reply and error, with their numbers of jobs.

        Raises:
            ModelRefused: it failed as a whole, and the same job must fail again.
        """
        left = self._desk.store.close(
            self._job.id, self._ending, at=self._desk.clock(), detail=self._detail
        )
        self._desk.store.forget(self.errors)
        for key in self.errors:
            left.pop(key, None)
        self._desk.report(self._summary(len(left)))
        untouched = not self._recorded and self._job.outstanding == self._job.requests
        if self._remote is not None and self._remote.hopeless and untouched:
            raise ModelRefused(
                f'"{self._desk.spec}" gave up the batch job {self._job.name}: {self._detail}',
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
        self._desk.store.record(
            [StoredCall(row.key, row.request, reply, row.meta) for row, reply in answered]
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


# --- The errors that requests of batch jobs end in, in words for a person


def too_large(pending: PendingRequest, limits: BatchLimits) -> ModelUnavailable | None:
    """The error of a request that no job can hold; None if one can."""
    if pending.row.tokens <= limits.enqueued_tokens and pending.size <= limits.file_bytes:
        return None
    return ModelUnavailable(
        f"About {pending.row.tokens} tokens ({pending.size} bytes) are more than one batch job "
        f"of {limits.enqueued_tokens} enqueued tokens may hold.",
        remedy="raise --enqueued-tokens if your tier allows it, or use --service flex",
    )


def left_unanswered(spec: str, jobs: int) -> ModelUnavailable:
    """The error of a request that several jobs ended without answering."""
    return ModelUnavailable(
        f'"{spec}" left this request unanswered in {jobs} batch jobs.',
        remedy="stepgold retry asks it again; --service flex has the same price",
    )


def no_room(spec: str, said: str) -> QuotaExhausted:
    """The error of a service that takes no job though none of ours is on its way."""
    return QuotaExhausted(
        f'"{spec}" takes no batch job: {said}',
        remedy="run the same command again later, with a smaller --enqueued-tokens, "
        "or with --service flex, which has the same price",
    )


# --- What one run of batch jobs was asked for and has not answered: who waits, and for what


class BatchQueue:
    """Requests by key: those that wait for a job, and all that wait for a reply."""

    def __init__(self, requests: Iterable[GenerationRequest]) -> None:
        """Nothing is drawn yet."""
        self._source = iter(requests)
        self._pending: dict[str, PendingRequest] = {}
        self._tokens = 0
        self._size = 0
        self.askers: dict[str, list[GenerationRequest]] = {}
        """Who waits for the reply of a key, in a job or before one."""
        self.is_drawn = False
        """Whether no further requests are to be drawn."""
        self.fatal: Exception | None = None
        """Why no further job is sent; None while all is well."""

    @property
    def pending(self) -> Iterator[PendingRequest]:
        """Those that wait for a job, longest first."""
        return iter(self._pending.values())

    def draw(self) -> GenerationRequest | None:
        """The next request; None if there is none or none is wanted."""
        request = None if self.is_drawn else next(self._source, None)
        self.is_drawn = request is None
        return request

    def is_full(self, tokens: int, size: int, requests: int) -> bool:
        """Whether what waits for a job fills one of these bounds."""
        return self._tokens >= tokens or self._size >= size or len(self._pending) >= requests

    def push(self, pending: PendingRequest) -> None:
        """Let a request wait for a job, behind the others."""
        self._pending[pending.row.key] = pending
        self._tokens += pending.row.tokens
        self._size += pending.size

    def put_back(self, wave: Iterable[PendingRequest]) -> None:
        """Let these wait again, before the others."""
        others = list(self._pending.values())
        self._pending, self._tokens, self._size = {}, 0, 0
        for each in (*wave, *others):
            self.push(each)

    def take(self, wave: Iterable[PendingRequest]) -> None:
        """These do not wait for a job any more."""
        for each in wave:
            del self._pending[each.row.key]
            self._tokens -= each.row.tokens
            self._size -= each.size

    def in_jobs(self) -> set[str]:
        """Keys whose askers wait and that are in no queue: they ought to be in a job."""
        return self.askers.keys() - self._pending.keys()

    def stop(self, error: Exception) -> None:
        """Send nothing more; whoever waits for a job gets no answer in this run."""
        self.fatal = self.fatal or error
        self.is_drawn = True
        for key in self._pending:
            del self.askers[key]
        self._pending, self._tokens, self._size = {}, 0, 0


# --- Runs requests as batch jobs: half the price, hours instead of seconds, nothing lost in


Answers = Iterator[tuple[GenerationRequest, Outcome]]


class BatchRunner:
    """Runs requests through batch jobs with store, caps and budget. One caller at a time."""

    def __init__(
        self,
        service: BatchService,
        store: BatchStore,
        responses: ResponseStore,
        limits: BatchLimits,
        budget_usd: float | Purse | None = None,
        *,
        inspect: Callable[[ModelReply], None] | None = None,
        report: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        today: Callable[[], date] = date.today,
        drain_s: float = 15.0,
    ) -> None:
        """Nothing is sent yet.

        Args:
            service: who runs the jobs; its model is closed with the runner.
            store: where jobs are written down; its `record` writes to `responses`.
            responses: where replies are kept, under the same keys as those of single calls.
            limits: how jobs are packed, watched and given up.
            budget_usd: most US dollars, counting what is on its way at its most, or a purse that is
                shared; None for no limit.
            inspect: sees every reply before the caller does; may raise ModelChanged.
            report: is told what a person may want to know, a line at a time.
            clock: Unix seconds.
            sleep: how to wait between two looks at the jobs.
            today: the day whose prices hold.
            drain_s: seconds that a call on the wire gets when the runner is closed.

        Raises:
            InputError: a budget for a model without a known price.
        """
        self._desk = BatchDesk(service, store, limits, report, clock)
        self._responses = responses
        self._limits = limits
        self._budget = BatchBudget(budget_usd, service.model, today=today)
        self._inspect = inspect
        self._sleep = sleep
        self._drain_s = drain_s
        self._cap = limits.enqueued_tokens
        self._refusals = 0
        self._not_before = 0.0
        self._sent: set[str] = set()
        self.counters = DispatchCounters()
        """What was done so far, over all runs."""

    @property
    def model(self) -> TextModel:
        """Who answers."""
        return self._desk.service.model

    @property
    def retries(self) -> int:
        """Attempts after a first one, over all calls of the service."""
        return self._desk.service.retries

    def __enter__(self) -> BatchRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release connections; jobs on their way go on, and the person is told how to get them."""
        try:
            if running := self._desk.still_running():
                self._desk.report(
                    f"{running} Run the same command again, today or tomorrow: "
                    "it takes their results and sends nothing twice."
                )
        finally:
            self._desk.close(self._drain_s)

    def run(self, requests: Iterable[GenerationRequest]) -> Answers:
        """Yield each request with its reply, or with the ModelUnavailable it ended in.

        Requests are drawn as far as one job reaches, and answered in any order. When the budget or
        the quota forbids further jobs, those on their way are waited for first. Who stops early,
        also by Ctrl-C, leaves the jobs running.

        Raises:
            ModelRefused: key, model or job refused.
            QuotaExhausted: the service takes no further job.
            BudgetExhausted: the next job could pass the budget.
            ModelChanged: `inspect` says so.
            ModelUnavailable: the service has not been reached for too long.
            InputError: jobs of this model are on their way at another endpoint.
            StoreError: a job or a reply could not be recorded.
        """
        self._desk.adopt()
        queue = BatchQueue(requests)
        while True:
            answered = 0
            for answer in self._harvested(queue):
                answered += 1
                yield answer
            yield from self._drawn(queue)
            sent = self._send(queue)
            if not queue.askers and queue.is_drawn:
                break
            if not answered and not sent:
                self._sleep(self._limits.poll_s)
        if queue.fatal is not None:
            raise queue.fatal

    def _harvested(self, queue: BatchQueue) -> Answers:
        """What the jobs that have ended give to those who asked."""
        for job, remote in self._desk.ended():
            harvest = Harvest(self._desk, job, remote)
            for row, reply in harvest.replies():
                self._budget.settle(row, reply)
                self.counters.unpriced += reply.usd is None
                self.counters.usd += reply.usd or 0.0
                yield from self._answer(queue, row.key, reply)
            if harvest.is_out_of_reach:
                return
            left = harvest.close()
            self._cap = min(self._limits.enqueued_tokens, 2 * self._cap)
            for key, error in harvest.errors.items():
                yield from self._answer(queue, key, error)
            for key, jobs in left.items():
                if jobs >= self._limits.jobs_per_request:
                    self._desk.store.forget([key])
                    yield from self._answer(queue, key, left_unanswered(self._desk.spec, jobs))
        yield from self._strayed(queue)

    def _strayed(self, queue: BatchQueue) -> Answers:
        """Requests that ought to be in a job and are in none: answered elsewhere, or to go again."""
        if not queue.askers:
            return
        for key in queue.in_jobs() - self._desk.store.keys(self._desk.spec):
            stored = self._stored(key)
            if stored is not None:
                yield from self._answer(queue, key, stored)
            elif queue.fatal is not None:
                del queue.askers[key]
            else:
                queue.push(self._pending(key, queue.askers[key][0]))

    def _drawn(self, queue: BatchQueue) -> Answers:
        """Draw what one job can hold; yield what needs no job."""
        flying = self._desk.store.keys(self._desk.spec)
        limits = self._limits
        while not queue.is_full(self._tokens_at_once(), limits.file_bytes, limits.requests_per_job):
            request = queue.draw()
            if request is None:
                return
            key = request_key(self._desk.spec, request)
            stored = self._stored(key)
            if stored is not None:
                yield from self._shown(request, stored)
            elif key in queue.askers:
                queue.askers[key].append(request)
            elif key in flying:
                queue.askers[key] = [request]
            else:
                pending = self._pending(key, request)
                queue.askers[key] = [request]
                if error := too_large(pending, limits):
                    yield from self._answer(queue, key, error)
                else:
                    queue.push(pending)

    def _send(self, queue: BatchQueue) -> bool:
        """Send what fits under caps and budget; whether anything was sent."""
        if self._desk.clock() < self._not_before:
            return False
        alive, first = self._desk.alive(), next(queue.pending, None)
        if first is None or len(alive) >= self._limits.jobs_at_once:
            return False
        tokens, usd = sum(job.tokens for job in alive), sum(job.usd for job in alive)
        # a single request is always tried: the cap that refusals taught may be below it
        free = self._tokens_at_once() - tokens
        free = free if alive else max(free, first.row.tokens)
        left = self._budget.left(usd)
        limits = self._limits
        wave = next_wave(
            queue.pending, Room(free, limits.file_bytes, limits.requests_per_job, left)
        )
        if wave:
            return self._submit(queue, wave, tokens)
        if not alive and (first.row.usd or 0.0) > left:
            queue.stop(self._budget.exhausted())
        return False

    def _tokens_at_once(self) -> int:
        """The cap in tokens as we estimate them, which the service may count as more."""
        return int(self._cap / self._budget.input_factor)

    def _submit(self, queue: BatchQueue, wave: list[PendingRequest], tokens_alive: int) -> bool:
        desk = self._desk
        job = BatchJob(uuid.uuid4().hex, desk.spec, desk.service.endpoint, desk.clock())
        taken = desk.store.open(job, [each.row for each in wave])
        queue.take(wave)
        mine = [each for each in wave if each.row.key in taken]
        if not mine:  # another process has them all
            return False
        try:
            desk.send(job, mine)
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
        wave: list[PendingRequest],
        tokens_alive: int,
        refusal: NotTaken,
    ) -> None:
        """The real cap is below the stated one: wait for a job of ours to end, or ask for half."""
        self._refusals += 1
        self._not_before = self._desk.clock() + (refusal.delay_s or 0.0)
        half = sum(each.row.tokens for each in wave) // 2
        estimate = tokens_alive or max(half, wave[0].row.tokens)
        self._cap = math.ceil(estimate * self._budget.input_factor)
        if not tokens_alive and self._refusals >= self._limits.refusals:
            queue.stop(no_room(self._desk.spec, refusal.what))

    def _answer(self, queue: BatchQueue, key: str, outcome: Outcome) -> Answers:
        """The outcome for all who asked for it."""
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
        size = self._desk.service.size(key, request)
        return PendingRequest(request, self._budget.row(key, request), size)

    def _stored(self, key: str) -> ModelReply | None:
        reply = self._responses.get(key)
        return None if reply is None else self._saved(key, reply)

    def _saved(self, key: str, reply: ModelReply) -> ModelReply:
        """A reply that did not have to be bought again, counted."""
        if isinstance(self._responses, CountsHits):
            self._responses.count_hit(key)
        self.counters.cached += 1
        return replace(reply, cached=True)
