"""The calls on the wire: how many, what they may cost, and which of them has landed."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass

from inference.budget import Reservation
from inference.protocol import GenerationRequest
from traces.records import ModelReply


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
