"""Sends requests to a model: never the same one twice, never more at once than it takes.

    for request, reply in Dispatcher(model, store.responses).run(requests):
        ...

Each reply is recorded durably before the caller sees it, so that after a kill nothing paid is
lost but what was on the wire.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol, runtime_checkable

from inference.flights import Flight, Window
from inference.keys import request_key, request_text
from inference.loop_thread import LoopThread
from inference.prices import Service, cost, price_of
from inference.protocol import GenerationRequest, ResponseStore, TextModel
from inference.specs import ModelSpec
from traces.errors import BudgetExhausted, InputError, ModelError, ModelUnavailable
from traces.records import ModelReply, StoredCall, Usage

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
        budget_usd: float | None = None,
        *,
        service: Service = "standard",
        drain_s: float = 15.0,
        today: Callable[[], date] = date.today,
    ) -> None:
        """Nothing is sent yet.

        Args:
            model: who answers; the dispatcher closes it.
            responses: where replies are kept; None keeps none.
            budget_usd: most US dollars this dispatcher may spend; None for no limit.
            service: whose prices hold for the budget.
            drain_s: seconds that calls on the wire get to arrive when the run has to stop.
            today: the day whose prices hold.

        Raises:
            InputError: a budget for a hosted model without a known price: it could not be kept.
        """
        self._model = model
        self._responses = responses
        self._budget = budget_usd
        self._service: Service = service
        self._drain_s = drain_s
        self._today = today
        self._thread: LoopThread | None = None
        self._spent = 0.0
        self.counters = DispatchCounters()
        """What was done so far, over all runs."""
        self._priced_as = ModelSpec.parse(model.spec).name if model.hosted else None
        unknown = self._priced_as and price_of(self._priced_as, service, on=today()) is None
        if budget_usd is not None and unknown:
            raise InputError(
                f'No price is known for "{model.spec}": a budget cannot be kept.',
                remedy="leave --budget out, or take a model of the price table",
            )

    @property
    def model(self) -> TextModel:
        """Who answers."""
        return self._model

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
        thread, self._thread = self._thread or LoopThread(), None
        try:
            thread.drain(self._drain_s)
            thread.submit(self._model.aclose()).result()
        finally:
            thread.close()

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Yield each request with its reply, or with the ModelUnavailable it ended in.

        Requests are drawn lazily, no more than the model's concurrency ahead, and answered in
        any order. When a call proves that going on is useless, or the next one would pass the
        budget, what is on the wire is still waited for, recorded and yielded; then the error is
        raised. The same holds, without the yielding, when the caller stops early.

        Raises:
            ModelRefused: key, model or request refused.
            QuotaExhausted: the day's quota is used up.
            BudgetExhausted: the next call could pass the budget.
            StoreError: a reply could not be recorded.
        """
        window = Window(max(1, self._model.concurrency))
        try:
            for request in requests:
                yield from self._admit(request, window)
                if window.fatal is not None:
                    break
                while window.has_landed:
                    yield from self._settle(window)
            while window.size and not window.is_overdue:
                yield from self._settle(window)
            if window.fatal is not None:
                raise window.fatal
        finally:
            grace = 0.0 if window.fatal is not None else self._drain_s
            for flight in window.drain(grace):
                self._count(flight)

    def _admit(
        self, request: GenerationRequest, window: Window
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Answer from the store, join an equal request, or send, waiting for room before."""
        key = request_key(self._model.spec, request)
        estimate = self._worst_case(request) if self._budget is not None else 0.0
        while window.fatal is None:
            stored = self._stored(key)
            if stored is not None:
                yield request, stored
                return
            if window.has_room and window.join(key, request):
                return
            if window.has_room and self._affordable(estimate, window):
                window.launch(key, request, estimate, self._start(key, request))
                return
            if not window.size:
                window.fail(self._budget_error(), drain_s=0.0)
                return
            yield from self._settle(window)

    def _settle(self, window: Window) -> Iterator[tuple[GenerationRequest, Outcome]]:
        """Wait for one call and yield it to all who asked for it."""
        flight = window.land()
        if flight is None:  # overdue after a fatal error: drain() cancels it
            return
        outcome = self._count(flight)
        if isinstance(outcome, ModelReply | ModelUnavailable):
            for number, request in enumerate(flight.askers):
                yield request, self._repeated(flight.key, outcome) if number else outcome
        else:
            window.fail(outcome, drain_s=self._drain_s)

    def _count(self, flight: Flight) -> ModelReply | BaseException:
        """The outcome of a finished call, counted."""
        error = flight.future.exception()
        if error is not None:
            self.counters.failed += isinstance(error, ModelUnavailable)
            return error
        reply = flight.future.result()
        if reply.usd is None:
            self.counters.unpriced += 1
            # of unknown price (another model answered): held against the budget at its most
            self._spent += flight.estimate_usd
        else:
            self.counters.usd += reply.usd
            self._spent += reply.usd
        return reply

    def _repeated(self, key: str, outcome: Outcome) -> Outcome:
        """The outcome for an equal request that was not sent."""
        return self._saved(key, outcome) if isinstance(outcome, ModelReply) else outcome

    def _stored(self, key: str) -> ModelReply | None:
        reply = self._responses.get(key) if self._responses is not None else None
        return None if reply is None else self._saved(key, reply)

    def _saved(self, key: str, reply: ModelReply) -> ModelReply:
        """A reply that did not have to be bought again, counted."""
        if isinstance(self._responses, CountsHits):
            self._responses.count_hit(key)
        self.counters.cached += 1
        return replace(reply, cached=True)

    def _start(self, key: str, request: GenerationRequest) -> Future[ModelReply]:
        if self._thread is None:
            self._thread = LoopThread()
        self.counters.sent += 1
        return self._thread.submit(self._ask(key, request))

    async def _ask(self, key: str, request: GenerationRequest) -> ModelReply:
        reply = await self._model.generate(request)
        if self._responses is not None:
            call = StoredCall(key, request_text(request), reply, request.meta)
            # in a worker thread: a store that waits for its lock must not stop the network
            await asyncio.to_thread(self._responses.put, call)
        return reply

    def _affordable(self, estimate: float, window: Window) -> bool:
        if self._budget is None:
            return True
        return self._spent + window.committed_usd + estimate <= self._budget

    def _worst_case(self, request: GenerationRequest) -> float:
        """What a request costs at most: its whole input uncached, its whole output limit used."""
        if self._priced_as is None:
            return 0.0
        usage = Usage(input_tokens=_input_bound(request), output_tokens=request.max_tokens)
        known = cost(usage, self._priced_as, self._service, on=self._today())
        return math.inf if known is None else known

    def _budget_error(self) -> BudgetExhausted:
        return BudgetExhausted(
            f"The next call could pass the budget of {self._budget:g} USD "
            f"({self._spent:.4f} USD spent).",
            remedy="run the same command again with a larger --budget: what is done is kept",
        )


def _input_bound(request: GenerationRequest) -> int:
    """Tokens of the input, estimated from above: a third of its UTF-8 bytes, schema included."""
    texts = [message.text for message in request.messages]
    if request.response_json_schema is not None:
        texts.append(json.dumps(request.response_json_schema))
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return math.ceil(size / 3) + 8 * len(request.messages)
