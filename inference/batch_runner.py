"""Runs requests as batch jobs: half the price, hours instead of seconds, nothing lost in between.

    for request, reply in BatchRunner(service, store.batch_jobs, store.responses, limits).run(requests):
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

from inference.batch_desk import BatchDesk
from inference.batch_harvest import Harvest
from inference.batch_limits import BatchLimits
from inference.batch_messages import left_unanswered, no_room, too_large
from inference.batch_queue import BatchQueue
from inference.batch_service import BatchService, BatchStore, NotTaken
from inference.batch_waves import BatchBudget, PendingRequest, Room, next_wave
from inference.budget import Purse
from inference.dispatch import CountsHits, DispatchCounters, Outcome
from inference.keys import request_key
from inference.protocol import GenerationRequest, ResponseStore, TextModel
from traces.batches import BatchJob
from traces.errors import QuotaExhausted
from traces.records import ModelReply

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
