"""Sends requests to a model: never the same one twice, never more at once than it takes.

    for request, reply in Dispatcher(model, store.responses).run(requests):
        ...

Each reply is recorded durably before the caller sees it, so that after a kill nothing paid is
lost but what was on the wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol, runtime_checkable

from inference.background import BackgroundCalls, is_cut_by_us
from inference.budget import Budget, Purse
from inference.flights import Flight, Window
from inference.keys import key_for
from inference.pace import Unsent
from inference.prices import Service
from inference.protocol import GenerationRequest, ResponseStore, TextModel
from traces.errors import ModelChanged, ModelError, ModelUnavailable
from traces.records import ModelReply

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
