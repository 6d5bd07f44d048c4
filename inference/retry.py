"""The one retry layer: bounded in attempts and in time, and it waits as long as the service asks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from inference.faults import TransientFault
from inference.pace import Pace, Sleep
from traces.errors import ModelUnavailable, QuotaExhausted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on trying."""

    attempts: int = 6
    """Most attempts of one request, the first included."""
    total_s: float = 900.0
    """Seconds after which no further attempt is started."""
    attempt_s: float = 300.0
    """Seconds one attempt may take."""
    base_s: float = 1.0
    """Wait before the second attempt where the service names none; it doubles each time."""
    cap_s: float = 60.0
    """Longest wait of our own; what the service asks for is not cut."""


@dataclass(slots=True)
class Retrier:
    """Runs calls under a policy and counts the retries.

    Clock, sleep and randomness are given from outside, so that tests do not wait.
    """

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    """The bounds."""
    pace: Pace = field(default_factory=lambda: Pace(1 << 30))
    """How many calls may be on the wire, and from when on; without bound where none is given."""
    sleep: Sleep = asyncio.sleep
    """How to wait."""
    clock: Callable[[], float] = time.monotonic
    """Seconds on a clock that only goes forward."""
    jitter: Callable[[], float] = random.random
    """A number in [0, 1): spreads the retries of many clients."""
    retries: int = 0
    """Attempts after a first one, over all calls."""

    async def run(self, call: Callable[[], Awaitable[T]], *, subject: str) -> T:
        """The call's outcome after as many attempts as the policy allows.

        Args:
            call: one attempt; raises TransientFault for what may pass.
            subject: the model, for the message.

        Raises:
            ModelUnavailable: every attempt failed, or the service asks for a longer wait than
                the time that is left.
            QuotaExhausted: the rate limit asks for a longer wait than the time that is left: it
                concerns every call, so going on is useless.
            Exception: whatever else the call raises, at once.
        """
        start: float | None = None
        for attempt in range(1, self.policy.attempts + 1):
            async with self.pace.slot() as slot:
                # the time spent in the queue before the first attempt is no trouble of this call
                start = self.clock() if start is None else start
                try:
                    async with asyncio.timeout(self.policy.attempt_s):
                        outcome = await call()
                except TimeoutError:
                    fault = TransientFault(f"no reply within {self.policy.attempt_s:g} s")
                except TransientFault as error:
                    fault = error
                else:
                    self.pace.succeeded()
                    return outcome
                wait = self._wait(attempt, fault)
                left = self.policy.total_s - (self.clock() - start)
                if attempt == self.policy.attempts or wait > left:
                    asked = wait if wait > left else None
                    raise _given_up(subject, fault, attempt, asked) from fault
                named = fault.throttled and fault.delay_s is not None
                if fault.throttled:
                    self.pace.throttled(slot, wait if named else None)
            if not named:  # else the gate is closed for that long, for this call as for all
                await self.sleep(wait)
            self.retries += 1
        raise ValueError("a retry policy needs at least one attempt")

    def _wait(self, attempt: int, fault: TransientFault) -> float:
        """What the service asks for plus a little spread, else exponential, half of it random."""
        if fault.delay_s is not None:
            return fault.delay_s + self.jitter() * min(0.5, fault.delay_s)
        ceiling = min(self.policy.cap_s, self.policy.base_s * 2.0 ** (attempt - 1))
        return ceiling * (0.5 + 0.5 * self.jitter())


def _given_up(
    subject: str, fault: TransientFault, attempts: int, asked: float | None
) -> ModelUnavailable | QuotaExhausted:
    if fault.throttled and asked is not None and fault.delay_s:
        return QuotaExhausted(
            f'"{subject}" asks all calls to wait {asked:.0f} s: {fault.what}',
            remedy="run the same command again later; what is done is kept",
        )
    tried = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    why = f" and asks to wait {asked:.0f} s" if asked is not None and fault.delay_s else ""
    return ModelUnavailable(
        f'"{subject}" gave no reply in {tried}{why}: {fault.what}',
        remedy="run the same command again later: only what is missing is asked",
    )
