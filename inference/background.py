"""The calls of a dispatcher, on a loop of their own: placed, sent, recorded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

from inference.budget import Reservation
from inference.keys import key_for, request_text
from inference.loop_thread import LoopThread
from inference.pace import Pace
from inference.protocol import GenerationRequest, ResponseStore, TextModel
from inference.recorder import Recorder
from traces.errors import ModelUnavailable
from traces.records import ModelReply, StoredCall

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
