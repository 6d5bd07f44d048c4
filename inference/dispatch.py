"""Sends requests to a model: never the same one twice, never more at once than it takes.

    for request, reply in Dispatcher(model, store.replies).run(requests):
        ...

Each reply is recorded durably before the caller sees it, so that after a kill nothing paid is
lost but what was on the wire.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

from inference.budget import Budget, Purse, Reservation
from inference.prices import Service
from inference.protocol import GenerationRequest, ResponseStore, TextModel, key_for, request_text
from inference.retries import Pace, Unsent
from traces import ModelChanged, ModelError, ModelReply, ModelUnavailable, StoredCall

T = TypeVar("T")


class LoopThread:
    """Runs coroutines in the background until it is closed.

    The thread is a daemon: a program that forgets to close it, or dies of an exception, still
    ends.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="stepgold-calls", daemon=True
        )
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; its future can be waited for, or cancelled, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a function on the loop, soon."""
        self._loop.call_soon_threadsafe(callback)

    def drain(self, seconds: float) -> None:
        """Wait at most `seconds` for what runs now."""
        self.submit(self._settled(seconds)).result()

    def close(self) -> None:
        """Cancel what still runs, wait for its end, and stop the thread."""
        self.submit(self._wind_down()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _settled(self, seconds: float) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=seconds)

    async def _wind_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        # a store write that a cancelled call had begun in a worker thread still completes here
        await self._loop.shutdown_default_executor()


# --- Records replies durably; those that arrive while one write runs go into the next one


@runtime_checkable
class PutsMany(Protocol):
    """A response store that records several replies in one durable write."""

    def put_all(self, calls: Sequence[StoredCall]) -> None:
        """Record the replies durably, all or none."""


class Recorder:
    """Between the calls on an event loop and a store that blocks. Used on one loop."""

    def __init__(self, responses: ResponseStore) -> None:
        """Nothing is written yet."""
        self._responses = responses
        self._waiting: list[tuple[StoredCall, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, call: StoredCall) -> None:
        """Return when the reply is durable.

        Raises:
            StoreError: it could not be written (nor could those that were to be written with it).
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
                # in a worker thread: a store that waits for its lock must not stop the network
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


# --- The calls of a dispatcher, on a loop of their own: placed, sent, recorded


AHEAD = 2
"""Requests drawn for each one on the wire: a place that becomes free is taken at once, and replies
are read while others are on their way."""


@runtime_checkable
class Paced(Protocol):
    """A model that knows how many calls its service takes at the moment."""

    @property
    def pace(self) -> Pace:
        """The bound, which falls and rises."""


class BackgroundCalls:
    """Sends requests to a model, so many at once, and records what comes back.

    Used by one thread; the calls live on another one's event loop.
    """

    def __init__(self, model: TextModel, responses: ResponseStore | None) -> None:
        """Nothing is sent and no thread is started yet."""
        self._model = model
        self._recorder = None if responses is None else Recorder(responses)
        self._places = Pace(model.concurrency)
        # what bounds the calls at once: our places, and what the service was found to take
        self._paces = [self._places, *([model.pace] if isinstance(model, Paced) else [])]
        self._thread: LoopThread | None = None
        self.sent = 0
        """Requests that got a place, so far."""

    def limit(self) -> int:
        """Requests that may wait for a reply at the moment, those not yet sent included."""
        return AHEAD * min(pace.limit for pace in self._paces)

    def start(self, key: str, request: GenerationRequest, held: Reservation) -> Future[ModelReply]:
        """Send a request when there is a place; the future holds its reply, recorded."""
        if self._thread is None:
            self._thread = LoopThread()
        return self._thread.submit(self._ask(key, request, held))

    def halt(self) -> None:
        """Send nothing more: what waits for a place ends as `Unsent`."""
        self._tell_paces(Pace.shut)

    def resume(self) -> None:
        """Send again."""
        self._tell_paces(Pace.reopen)

    def close(self, drain_s: float) -> None:
        """Give calls on the wire `drain_s` seconds, then release the model and the thread."""
        self.halt()
        thread, self._thread = self._thread or LoopThread(), None
        try:
            thread.drain(drain_s)
            thread.submit(self._model.aclose()).result()
        finally:
            thread.close()

    def _tell_paces(self, what: Callable[[Pace], None]) -> None:
        # On the loop, like the calls themselves: the order in which this is said is the order in
        # which it happens.
        if self._thread is not None:
            for pace in self._paces:
                self._thread.call_soon(partial(what, pace))

    async def _ask(self, key: str, request: GenerationRequest, held: Reservation) -> ModelReply:
        sent = replace(request, max_tokens=held.output_tokens) if held.capped else request
        # the place is held until the reply is recorded: a kill never loses more than the places
        async with self._places.slot():
            self.sent += 1
            try:
                reply = await self._model.generate(sent)
                await self._record(key, request, sent, held, reply)
            except ModelUnavailable:
                raise
            except Exception:  # it ends the run: nobody may take this place meanwhile
                for pace in self._paces:
                    pace.shut()
                raise
        return reply

    async def _record(
        self,
        key: str,
        request: GenerationRequest,
        sent: GenerationRequest,
        held: Reservation,
        reply: ModelReply,
    ) -> None:
        """Keep a reply under its request, or under what was sent if that was cut by us."""
        if self._recorder is None:
            return
        meta = request.meta
        if is_cut_by_us(held, reply):  # no answer to the request, but to what was sent
            key, request = key_for(self._model, sent), sent
        elif held.capped:
            meta = {**meta, "max_tokens_sent": held.output_tokens}
        await self._recorder.record(StoredCall(key, request_text(request), reply, meta))


def is_cut_by_us(held: Reservation, reply: ModelReply) -> bool:
    """Whether the reply ended at a limit that is lower than the one asked for."""
    return held.capped and reply.finish_reason == "length"


# --- The calls on the wire: how many, what they may cost, and which of them has landed


@dataclass(slots=True)
class Flight:
    """One call on the wire."""

    key: str
    """Content address of the request."""
    askers: list[GenerationRequest]
    """The request sent, and equal ones that wait for the same reply."""
    reservation: Reservation
    """What of the budget is held for it."""
    future: futures.Future[ModelReply]
    """Its reply, recorded, or the error it ended in."""


class Window:
    """A bounded set of flights. Used by one thread; the flights land in another."""

    def __init__(self, limit: Callable[[], int]) -> None:
        """An empty window for `limit()` requests, waiting ones included; it may change meanwhile."""
        self._limit = limit
        self._flying: dict[str, Flight] = {}
        self._size = 0
        self._landed: queue.SimpleQueue[Flight] = queue.SimpleQueue()
        self._deadline: float | None = None
        self.fatal: BaseException | None = None
        """The first error after which nothing more is sent; None while all is well."""

    @property
    def size(self) -> int:
        """Requests that wait for a reply."""
        return self._size

    @property
    def has_room(self) -> bool:
        """Whether one more request may wait."""
        return self._size < self._limit()

    @property
    def has_landed(self) -> bool:
        """Whether `land` would return at once."""
        return not self._landed.empty()

    @property
    def is_overdue(self) -> bool:
        """Whether the time that a fatal error left for the other flights is up."""
        return (
            self._deadline is not None
            and not self.has_landed
            and time.monotonic() >= self._deadline
        )

    @property
    def reservations(self) -> list[Reservation]:
        """What of the budget is held for the calls on the wire."""
        return [flight.reservation for flight in self._flying.values()]

    def join(self, key: str, request: GenerationRequest) -> bool:
        """Let the request wait for an equal one; False if none is on the wire."""
        flight = self._flying.get(key)
        if flight is not None:
            flight.askers.append(request)
            self._size += 1
        return flight is not None

    def launch(
        self,
        key: str,
        request: GenerationRequest,
        reservation: Reservation,
        future: futures.Future[ModelReply],
    ) -> None:
        """Watch a call that was just started."""
        flight = Flight(key, [request], reservation, future)
        self._flying[key] = flight
        self._size += 1
        future.add_done_callback(lambda _: self._landed.put(flight))

    def land(self) -> Flight | None:
        """Wait for the next flight to land; None if the time after a fatal error is up."""
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            flight = self._landed.get(timeout=left)
        except queue.Empty:
            return None
        del self._flying[flight.key]
        self._size -= len(flight.askers)
        return flight

    def fail(self, error: BaseException, *, drain_s: float) -> None:
        """Remember the first fatal error and give the other flights `drain_s` seconds."""
        if self.fatal is None:
            self.fatal = error
            self._deadline = time.monotonic() + drain_s

    def drain(self, seconds: float) -> list[Flight]:
        """Wait for what is left at most `seconds`, cancel the rest, return what has landed."""
        left, self._flying, self._size = list(self._flying.values()), {}, 0
        try:
            futures.wait([flight.future for flight in left], timeout=seconds)
        finally:  # also when the person presses Ctrl-C a second time
            for flight in left:
                flight.future.cancel()
        return [flight for flight in left if not flight.future.cancelled()]


# --- Sends requests to a model: never the same one twice, never more at once than it takes


Outcome = ModelReply | ModelError


@runtime_checkable
class CountsHits(Protocol):
    """A response store that keeps count of the replies it saved from being bought again."""

    def count_hit(self, key: str) -> None:
        """One more use of the reply recorded under `key`."""


@dataclass(slots=True)
class DispatchCounters:
    """What a dispatcher did so far."""

    sent: int = 0
    """Requests sent to the model (a retried one counts once)."""
    cached: int = 0
    """Requests answered by the response store or by an equal one on its way."""
    failed: int = 0
    """Requests that ended as ModelUnavailable."""
    usd: float = 0.0
    """Cost of the replies with a known price, cached ones not counted."""
    unpriced: int = 0
    """Replies of a model whose price is not known."""


class Dispatcher:
    """Runs requests through a model with store, window and budget. One caller at a time."""

    def __init__(
        self,
        model: TextModel,
        responses: ResponseStore | None,
        budget_usd: float | Purse | None = None,
        *,
        service: Service = "standard",
        inspect: Callable[[ModelReply], None] | None = None,
        drain_s: float = 15.0,
        today: Callable[[], date] = date.today,
    ) -> None:
        """Nothing is sent yet.

        Args:
            model: who answers; the dispatcher closes it.
            responses: where replies are kept; None keeps none.
            budget_usd: most US dollars this dispatcher may spend, or a purse that it shares with
                others; None for no limit.
            service: whose prices hold for the budget.
            inspect: sees every reply, bought or stored, before the caller does; it may raise
                ModelChanged, which ends the run.
            drain_s: seconds that calls on the wire get to arrive when the run has to stop.
            today: the day whose prices hold.

        Raises:
            InputError: a budget for a hosted model without a known price: it could not be kept.
        """
        self._model = model
        self._responses = responses
        self._calls = BackgroundCalls(model, responses)
        self._budget = Budget(budget_usd, model, service, today=today)
        self._inspect = inspect
        self._drain_s = drain_s
        self._counters = DispatchCounters()

    @property
    def model(self) -> TextModel:
        """Who answers."""
        return self._model

    @property
    def counters(self) -> DispatchCounters:
        """What was done so far, over all runs."""
        self._counters.sent = self._calls.sent
        return self._counters

    @property
    def retries(self) -> int:
        """Attempts after a first one, as far as the model counts them."""
        return int(getattr(self._model, "retries", 0))

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for calls on the wire, release the model's connections and the background thread.

        Calls are still on the wire when an error, or Ctrl-C, met the caller between two replies:
        they are paid for, so they get their time to arrive and to be recorded.
        """
        self._calls.close(self._drain_s)

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Yield each request with its reply, or with the ModelUnavailable it ended in.

        Requests are drawn lazily, as many again as the model takes at once, and answered in any
        order. When a call proves that going on is useless, or the next one would pass the
        budget, what is on the wire is still waited for, recorded and yielded; then the error is
        raised. The same holds, without the yielding, when the caller stops early.

        Raises:
            ModelRefused: key, model or request refused.
            QuotaExhausted: the day's quota is used up.
            ModelChanged: `inspect` says so.
            BudgetExhausted: the next call could pass the budget.
            StoreError: a reply could not be recorded.
        """
        window = Window(self._calls.limit)
        self._calls.resume()
        drawn, again = iter(requests), deque[GenerationRequest]()
        try:
            while window.fatal is None:
                request = again.popleft() if again else next(drawn, None)
                if request is not None:
                    yield from self._admit(request, window, again)
                elif window.size:
                    yield from self._settle(window, again)
                else:
                    return
                while window.has_landed and window.fatal is None:
                    yield from self._settle(window, again)
            self._calls.halt()
            while window.size and not window.is_overdue:
                yield from self._settle(window, again)
            raise window.fatal
        finally:
            if window.size:
                self._calls.halt()
            grace = 0.0 if window.fatal is not None else self._drain_s
            for flight in window.drain(grace):
                self._count(flight)

    def _admit(
        self, request: GenerationRequest, window: Window, again: deque[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Answer from the store, join an equal request, or send, waiting for room before."""
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
                window.launch(key, request, held, self._calls.start(key, request, held))
                return
            if not window.size:
                window.fail(self._budget.exhausted(), drain_s=0.0)
                return
            yield from self._settle(window, again)

    def _settle(
        self, window: Window, again: deque[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Wait for one call and yield it to all who asked for it."""
        flight = window.land()
        if flight is None:  # overdue after a fatal error: drain() cancels it
            return
        outcome = self._count(flight)
        if isinstance(outcome, Unsent):
            return
        if isinstance(outcome, ModelReply) and is_cut_by_us(flight.reservation, outcome):
            again.extend(flight.askers)
        elif isinstance(outcome, ModelReply):
            for number, request in enumerate(flight.askers):
                reply = self._saved(flight.key, outcome) if number else outcome
                yield from self._shown(request, reply, window)
        elif isinstance(outcome, ModelUnavailable):
            yield from ((request, outcome) for request in flight.askers)
        else:
            window.fail(outcome, drain_s=self._drain_s)

    def _shown(
        self, request: GenerationRequest, reply: ModelReply, window: Window
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """The reply, unless inspection finds that the run must not go on."""
        try:
            if self._inspect is not None:
                self._inspect(reply)
        except ModelChanged as error:
            window.fail(error, drain_s=self._drain_s)
            return
        yield request, reply

    def _count(self, flight: Flight) -> ModelReply | BaseException:
        """The outcome of a finished call, counted."""
        error = flight.future.exception()
        if error is not None:
            self._budget.release(flight.reservation)
            self._counters.failed += isinstance(error, ModelUnavailable)
            return error
        reply = flight.future.result()
        if reply.usd is None:
            self._counters.unpriced += 1
        else:
            self._counters.usd += reply.usd
        self._budget.settle(flight.reservation, reply)
        return reply

    def _stored(self, key: str) -> ModelReply | None:
        reply = self._responses.get(key) if self._responses is not None else None
        return None if reply is None else self._saved(key, reply)

    def _saved(self, key: str, reply: ModelReply) -> ModelReply:
        """A reply that did not have to be bought again, counted."""
        if isinstance(self._responses, CountsHits):
            self._responses.count_hit(key)
        self._counters.cached += 1
        return replace(reply, cached=True)
