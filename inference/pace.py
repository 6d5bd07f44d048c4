"""How many calls may be on the wire, and from when on: learnt from what the service refuses.

Rate limits are not published per project (they stand in a console only), so the bound is found as
TCP finds it (additive increase, multiplicative decrease; Chiu and Jain 1989): a 429 halves it, a
window full of successes adds one. Where a 429 names a time to wait, it speaks for all calls of the
project: none starts before that time is over.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

Sleep = Callable[[float], Awaitable[None]]


class Unsent(Exception):
    """A call that was still waiting for its place when the run had to stop."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to have one call on the wire."""

    cuts: int
    """How often the bound had been cut when the call started."""


class Pace:
    """An adaptive bound on calls at once, and a gate that closes for everyone.

    Calls enter and leave on one event loop; `limit` may be read from any thread.
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """An open gate at the full bound.

        Args:
            most: most calls at once, at least 1.
            clock: seconds on a clock that only goes forward.
            sleep: how to wait for the gate.
        """
        self._most = max(1, most)
        self._limit = float(self._most)
        self._clock = clock
        self._sleep = sleep
        self._opens_at = clock()
        self._flying = 0
        self._is_shut = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.cuts = 0
        """How often the bound was halved."""

    @property
    def limit(self) -> int:
        """Calls that may be on the wire now, at least 1."""
        return max(1, int(self._limit))

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait until the gate is open and there is room, then hold a place.

        Raises:
            Unsent: `shut` was called.
        """
        await self._enter()
        try:
            yield Slot(self.cuts)
        finally:
            self._flying -= 1
            self._wake()

    def shut(self) -> None:
        """Let nobody in any more, those who wait included. To be called on the loop."""
        self._is_shut = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def reopen(self) -> None:
        """Take calls again."""
        self._is_shut = False

    def succeeded(self) -> None:
        """A call was answered: the bound grows by one for every window full of these."""
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def throttled(self, slot: Slot, wait_s: float | None) -> None:
        """A call met a 429: halve the bound and, where the service names a time, close the gate.

        Calls that started before the last cut say nothing about the bound that holds now, so a
        burst of refusals cuts it once.
        """
        if slot.cuts == self.cuts:
            self.cuts += 1
            self._limit = max(1.0, self._limit / 2)
        if wait_s is not None:
            self._opens_at = max(self._opens_at, self._clock() + wait_s)

    async def _enter(self) -> None:
        waited_for = -math.inf
        while True:
            if self._is_shut:
                raise Unsent
            opens_at = self._opens_at
            closed_for = opens_at - self._clock()
            if closed_for > 0 and opens_at > waited_for:
                await self._sleep(closed_for)
                waited_for = opens_at
            elif self._flying < self.limit:
                self._flying += 1
                return
            else:
                await self._room()

    async def _room(self) -> None:
        """Wait, first come first served, until a place may be free."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # the place that was meant for this call goes to the next one
            raise

    def _wake(self) -> None:
        """Let as many look again as there are free places."""
        free = self.limit - self._flying
        while free > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1
