"""Sends requests to a model: never the same one twice, never more at once than it accepts.

    for request, reply in Dispatcher(model, store.replies).run(requests):
        ...

Each reply is recorded durably before the caller sees it, so a kill loses no paid reply except those
in flight.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Protocol, runtime_checkable

from inference.background import LOOK_EVERY_S, LoopThread
from inference.budget import Budget, Purse, Reservation
from inference.prices import Service
from inference.protocol import GenerationRequest, ResponseStore, TextModel, key_for, text_for
from inference.retries import Pace, Unsent
from traces import (
    ModelChanged,
    ModelError,
    ModelReply,
    ModelUnavailable,
    StoredCall,
    StoreError,
    interrupt_noted,
    uninterrupted,
)


@runtime_checkable
class PutsMany(Protocol):
    """A response store that records several replies in one durable write."""

    def put_all(self, calls: Sequence[StoredCall]) -> None:
        """Record the replies durably, all or none."""


class Recorder:
    """Records replies from an event loop in a blocking store; one write takes all that wait."""

    def __init__(self, responses: ResponseStore) -> None:
        self._responses = responses
        self._waiting: list[tuple[StoredCall, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, call: StoredCall) -> None:
        """Return when the reply is durable.

        Raises:
            StoreError: it, and all replies of the same write, could not be written.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((call, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            calls = [call for call, _ in batch]
            try:
                # In a worker thread: a store that waits for its lock must not block the network.
                await asyncio.to_thread(self._put, calls)
            except Exception as error:  # handed to every call that waits for this write
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)

    def _put(self, calls: Sequence[StoredCall]) -> None:
        if isinstance(self._responses, PutsMany):
            self._responses.put_all(calls)
            return
        for call in calls:
            self._responses.put(call)


CHECK_EVERY_S = 1.0
"""How often the store is asked, before a call is sent, whether it can be written."""
AHEAD = 2
"""Requests read ahead per call in flight: a free slot is filled at once, and replies are processed
while others are in flight."""


@runtime_checkable
class Paced(Protocol):
    """A model that knows how many calls its service currently accepts."""

    @property
    def pace(self) -> Pace:
        """The adaptive bound."""


class BackgroundCalls:
    """Sends requests to a model, a bounded number at once, and records the replies.

    Used by one thread; the calls run on another thread's event loop.
    """

    def __init__(self, model: TextModel, responses: ResponseStore | None) -> None:
        self._model = model
        self._recorder = None if responses is None else Recorder(responses)
        self._places = Pace(model.concurrency)
        # Two bounds: our own limit, and what the service was found to accept.
        self._paces = [self._places, *([model.pace] if isinstance(model, Paced) else [])]
        self._thread: LoopThread | None = None
        self.sent = 0
        """Requests sent so far."""

    def limit(self) -> int:
        """Requests that may currently wait for a reply, including those not sent yet."""
        return AHEAD * min(pace.limit for pace in self._paces)

    def start(self, key: str, request: GenerationRequest, held: Reservation) -> Future[ModelReply]:
        """Send a request when there is a free slot; the future holds its recorded reply."""
        if self._thread is None:
            self._thread = LoopThread()
        return self._thread.submit(self._ask(key, request, held))

    def halt(self) -> None:
        """Send nothing more: requests that wait for a slot end as `Unsent`."""
        self._tell_paces(Pace.shut)

    def resume(self) -> None:
        """Resume sending."""
        self._tell_paces(Pace.reopen)

    def close(self, drain_s: float) -> None:
        """Give calls in flight `drain_s` seconds, then release the model and the thread."""
        self.halt()
        thread, self._thread = self._thread or LoopThread(), None
        try:
            thread.drain(drain_s)
            thread.submit(self._model.aclose()).result()
        finally:
            thread.close()

    def _tell_paces(self, what: Callable[[Pace], None]) -> None:
        # On the loop, like the calls themselves, so that the order is kept.
        if self._thread is not None:
            for pace in self._paces:
                self._thread.call_soon(partial(what, pace))

    async def _ask(self, key: str, request: GenerationRequest, held: Reservation) -> ModelReply:
        sent = replace(request, max_tokens=held.output_tokens) if held.capped else request
        # Hold the slot until the reply is recorded, so that a kill never loses more than these.
        async with self._places.slot():
            self.sent += 1
            try:
                reply = await self._model.generate(sent)
                await self._record(key, request, sent=sent, held=held, reply=reply)
            except ModelUnavailable:
                raise
            except Exception:  # it ends the run: no other call may take this slot
                for pace in self._paces:
                    pace.shut()
                raise
        return reply

    async def _record(
        self,
        key: str,
        request: GenerationRequest,
        *,
        sent: GenerationRequest,
        held: Reservation,
        reply: ModelReply,
    ) -> None:
        """Record a reply for its request, or for what was sent if our lower limit cut it."""
        if self._recorder is None:
            return
        meta = request.meta
        if is_cut_by_us(held, reply):  # it answers what was sent, not the request
            key, request = key_for(self._model, sent), sent
        elif held.capped:
            meta = {**meta, "max_tokens_sent": held.output_tokens}
        if reply.server is not None:
            meta = {**meta, "server": reply.server}
        await self._recorder.record(StoredCall(key, text_for(self._model, request), reply, meta))


def is_cut_by_us(held: Reservation, reply: ModelReply) -> bool:
    """Whether the reply ended at our limit, which was lower than the request's."""
    return held.capped and reply.finish_reason == "length"


@dataclass(slots=True)
class PendingCall:
    """A call in flight."""

    key: str
    """Content address of the request."""
    askers: list[GenerationRequest]
    """The request sent, and equal ones that wait for the same reply."""
    reservation: Reservation
    """The part of the budget held for it."""
    future: futures.Future[ModelReply]
    """Its recorded reply, or its error."""


class CallWindow:
    """A bounded set of calls in flight. Used by one thread; the calls finish in another."""

    def __init__(self, limit: Callable[[], int]) -> None:
        """An empty window for `limit()` requests, including waiting ones; the limit may change."""
        self._limit = limit
        self._calls: dict[str, PendingCall] = {}
        self._size = 0
        self._finished: queue.SimpleQueue[PendingCall] = queue.SimpleQueue()
        self._deadline: float | None = None
        self.fatal: BaseException | None = None
        """The first error after which nothing more is sent; None without one."""

    @property
    def size(self) -> int:
        """Requests that wait for a reply."""
        return self._size

    @property
    def has_room(self) -> bool:
        """Whether one more request may wait."""
        return self._size < self._limit()

    @property
    def has_finished(self) -> bool:
        """Whether `wait` would return at once."""
        return not self._finished.empty()

    @property
    def is_overdue(self) -> bool:
        """Whether the time left for the other calls after a fatal error is up."""
        return (
            self._deadline is not None
            and not self.has_finished
            and time.monotonic() >= self._deadline
        )

    @property
    def reservations(self) -> list[Reservation]:
        """The parts of the budget held for the calls in flight."""
        return [call.reservation for call in self._calls.values()]

    def join(self, key: str, request: GenerationRequest) -> bool:
        """Let the request wait for an equal one; False if none is in flight."""
        call = self._calls.get(key)
        if call is not None:
            call.askers.append(request)
            self._size += 1
        return call is not None

    def add(
        self,
        key: str,
        request: GenerationRequest,
        reservation: Reservation,
        future: futures.Future[ModelReply],
    ) -> None:
        """Add a call that was just started."""
        call = PendingCall(key, [request], reservation, future)
        self._calls[key] = call
        self._size += 1
        future.add_done_callback(lambda _: self._finished.put(call))

    def wait(self) -> PendingCall | None:
        """Wait a moment for the next call to finish; None if none did."""
        left = LOOK_EVERY_S
        if self._deadline is not None:
            left = min(left, max(0.0, self._deadline - time.monotonic()))
        try:
            call = self._finished.get(timeout=left)
        except queue.Empty:
            return None
        del self._calls[call.key]
        self._size -= len(call.askers)
        return call

    def fail(self, error: BaseException, *, drain_s: float) -> None:
        """Remember the first fatal error and give the other calls `drain_s` seconds."""
        if self.fatal is None:
            self.fatal = error
            self._deadline = time.monotonic() + drain_s

    def drain(self, seconds: float) -> list[PendingCall]:
        """Wait at most `seconds` for the calls left, cancel the rest, return the finished ones."""
        left, self._calls, self._size = list(self._calls.values()), {}, 0
        try:
            futures.wait([call.future for call in left], timeout=seconds)
        finally:  # also after a second Ctrl-C
            for call in left:
                call.future.cancel()
        return [call for call in left if not call.future.cancelled()]


Outcome = ModelReply | ModelError


@runtime_checkable
class CountsHits(Protocol):
    """A response store that counts how often it saved a paid call."""

    def count_hit(self, key: str) -> None:
        """Count one more use of the reply recorded under `key`."""


@runtime_checkable
class ProvesWritable(Protocol):
    """A response store that can tell before a call whether its reply could be recorded."""

    def check(self) -> None:
        """Raise StoreError if it could not."""


@dataclass(slots=True)
class DispatchCounters:
    """Totals of a dispatcher."""

    sent: int = 0
    """Requests sent to the model (a retried one counts once)."""
    cached: int = 0
    """Requests answered by the response store or by an equal request in flight."""
    failed: int = 0
    """Requests that ended as ModelUnavailable."""
    usd: float = 0.0
    """Cost of the replies with a known price, excluding cached ones."""
    unpriced: int = 0
    """Replies of models without a known price."""


class Dispatcher:
    """Runs requests through a model, a response store and a budget. One caller at a time."""

    def __init__(
        self,
        model: TextModel,
        responses: ResponseStore | None,
        budget_usd: float | Purse | None = None,
        *,
        service: Service = "standard",
        inspect: Callable[[ModelReply], None] | None = None,
        drain_s: float = 10.0,
        today: Callable[[], date] = date.today,
    ) -> None:
        """Nothing is sent yet.

        Args:
            model: answers; the dispatcher closes it.
            responses: stores replies; None stores none.
            budget_usd: maximum US dollars of this dispatcher, or a purse shared with others; None
                for no limit.
            service: the service tier whose prices apply.
            inspect: is given every reply, new or stored, before the caller; it may raise
                ModelChanged, which ends the run.
            drain_s: seconds that calls in flight get to finish when the run has to stop.
            today: the day whose prices apply.

        Raises:
            InputError: a budget for a hosted model without a known price.
        """
        self._model = model
        self._responses = responses
        self._calls = BackgroundCalls(model, responses)
        self._budget = Budget(budget_usd, model, service, today=today)
        self._inspect = inspect
        self._drain_s = drain_s
        self._counters = DispatchCounters()
        self._checked_at: float | None = None

    @property
    def model(self) -> TextModel:
        """The model that answers."""
        return self._model

    @property
    def counters(self) -> DispatchCounters:
        """Totals over all runs."""
        self._counters.sent = self._calls.sent
        return self._counters

    @property
    def retries(self) -> int:
        """Retries, as far as the model counts them."""
        return int(getattr(self._model, "retries", 0))

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for calls in flight, release the model's connections and the background thread.

        Calls are still in flight if an error or Ctrl-C hit the caller between two replies. They are
        paid for, so they get time to finish and to be recorded.
        """
        with uninterrupted():
            self._calls.close(self._drain_s)

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Yield each request with its reply, or with its ModelUnavailable.

        Requests are read lazily, twice as many as the model accepts at once, and answered in any
        order. If a call shows that going on is useless, or the next one would exceed the budget, or
        after an interrupt, calls in flight are still awaited, recorded and yielded before the error
        is raised. If the caller stops early, they are awaited and recorded.

        Raises:
            ModelRefused: key, model or request refused.
            QuotaExhausted: the daily quota is used up.
            ModelChanged: raised by `inspect`.
            BudgetExhausted: the next call could exceed the budget.
            StoreError: a reply could not be recorded.
            KeyboardInterrupt: there was an interrupt.
        """
        with uninterrupted():
            yield from self._run(requests)

    def _run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        window = CallWindow(self._calls.limit)
        self._calls.resume()
        drawn, again = iter(requests), deque[GenerationRequest]()
        try:
            while window.fatal is None:
                if interrupt_noted():
                    window.fail(KeyboardInterrupt(), drain_s=self._drain_s)
                    continue
                request = again.popleft() if again else next(drawn, None)
                if request is not None:
                    yield from self._admit(request, window, again)
                elif window.size:
                    yield from self._settle(window, again)
                else:
                    return
                while window.has_finished and window.fatal is None:
                    yield from self._settle(window, again)
            self._calls.halt()
            while window.size and not window.is_overdue:
                yield from self._settle(window, again)
            raise window.fatal
        finally:
            if window.size:
                self._calls.halt()
            grace = 0.0 if window.fatal is not None else self._drain_s
            for call in window.drain(grace):
                self._count(call)

    def _admit(
        self, request: GenerationRequest, window: CallWindow, again: deque[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Answer from the store, join an equal request, or send as soon as there is room."""
        key = key_for(self._model, request)
        while window.fatal is None:
            stored = self._stored(key)
            if stored is not None:
                self._budget.seen(request, stored)
                yield from self._shown(request, stored, window)
                return
            if window.has_room and window.join(key, request):
                return
            held = self._budget.reserve(request, window.reservations) if window.has_room else None
            if held is not None:
                try:
                    self._prove_writable()
                except StoreError as error:
                    self._budget.release(held)
                    window.fail(error, drain_s=self._drain_s)
                    return
                window.add(key, request, held, self._calls.start(key, request, held))
                return
            if not window.size:
                window.fail(self._budget.exhausted(), drain_s=0.0)
                return
            yield from self._settle(window, again)

    def _settle(
        self, window: CallWindow, again: deque[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Wait a moment for a call and yield its outcome for every request that waits for it."""
        if interrupt_noted():
            window.fail(KeyboardInterrupt(), drain_s=self._drain_s)
        call = window.wait()
        if call is None:
            return
        outcome = self._count(call)
        if isinstance(outcome, Unsent):
            return
        if isinstance(outcome, ModelReply) and is_cut_by_us(call.reservation, outcome):
            again.extend(call.askers)
        elif isinstance(outcome, ModelReply):
            for number, request in enumerate(call.askers):
                reply = self._saved(call.key, outcome) if number else outcome
                yield from self._shown(request, reply, window)
        elif isinstance(outcome, ModelUnavailable):
            yield from ((request, outcome) for request in call.askers)
        else:
            window.fail(outcome, drain_s=self._drain_s)

    def _shown(
        self, request: GenerationRequest, reply: ModelReply, window: CallWindow
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Yield the reply, unless inspection ends the run."""
        try:
            if self._inspect is not None:
                self._inspect(reply)
        except ModelChanged as error:
            window.fail(error, drain_s=self._drain_s)
            return
        yield request, reply

    def _count(self, call: PendingCall) -> ModelReply | BaseException:
        """The outcome of a finished call, counted."""
        error = call.future.exception()
        if error is not None:
            self._budget.release(call.reservation)
            self._counters.failed += isinstance(error, ModelUnavailable)
            return error
        reply = call.future.result()
        if reply.usd is None:
            self._counters.unpriced += 1
        else:
            self._counters.usd += reply.usd
        self._budget.settle(call.reservation, reply)
        return reply

    def _prove_writable(self) -> None:
        """Raise StoreError, at most once a second, if a reply could not be recorded."""
        now = time.monotonic()
        if self._checked_at is None or now - self._checked_at >= CHECK_EVERY_S:
            if isinstance(self._responses, ProvesWritable):
                self._responses.check()
            self._checked_at = now

    def _stored(self, key: str) -> ModelReply | None:
        reply = self._responses.get(key) if self._responses is not None else None
        return None if reply is None else self._saved(key, reply)

    def _saved(self, key: str, reply: ModelReply) -> ModelReply:
        """A reply that did not have to be paid for again, counted."""
        if isinstance(self._responses, CountsHits):
            self._responses.count_hit(key)
        self._counters.cached += 1
        return replace(reply, cached=True)
