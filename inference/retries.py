"""What an HTTP answer that is no reply means: try again, refused, too long, or out of quota.

One reading for all services. The back ends translate their library's exceptions into
`HttpFault` or `TransientFault`; nothing else leaves them.

How many calls may be on the wire, and from when on: learnt from what the service refuses.

Rate limits are not published per project (they stand in a console only), so the bound is found as
TCP finds it (additive increase, multiplicative decrease; Chiu and Jain 1989): a 429 halves it, a
window full of successes adds one. Where a 429 names a time to wait, it speaks for all calls of the
project: none starts before that time is over.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from traces import ModelRefused, ModelUnavailable, QuotaExhausted

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""


class TransientFault(Exception):
    """A fault after which the same request may succeed: the retry layer decides.

    Args:
        what: one sentence.
        delay_s: seconds the service asks to wait before the next attempt; None if it does
            not say.
        throttled: whether the service refused because of its rate limit, which concerns every
            call of the project.
    """

    def __init__(self, what: str, *, delay_s: float | None = None, throttled: bool = False) -> None:
        super().__init__(what)
        self.what = what
        """The fact, in one sentence."""
        self.delay_s = delay_s
        """Seconds to wait; None if the service does not say."""
        self.throttled = throttled
        """Whether it is the rate limit that refused the call."""


class RequestTooLong(Exception):
    """The prompt does not fit into the model's window: a fact about this one request."""


@dataclass(frozen=True, slots=True)
class HttpFault:
    """An HTTP answer with an error status."""

    status: int
    """HTTP status code."""
    message: str
    """What the service says."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Response headers, names in lower case."""
    body: Any = None
    """The parsed JSON body; None if it is none."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom the message of a refusal is about."""

    spec: str
    """The model as the user named it."""
    key_variable: str
    """The environment variable that holds the key."""
    secret: str = field(default="", repr=False)
    """The key, only to be taken out of what the service says."""

    def clean(self, message: str) -> str:
        """The message on one line, without the key, cut where it is endless."""
        if self.secret:
            message = message.replace(self.secret, "[key]")
        return _short(message)


_TOO_LONG = re.compile(
    r"exceeds the maximum number of tokens|maximum context length|context_length_exceeded"
    r"|exceed_context_size|exceeds the available context size|prompt is too long",
    re.IGNORECASE,
)
_BAD_KEY = re.compile(r"api[ _]key[ _](?:not[ _]valid|invalid|expired)|incorrect api key", re.I)


def exception_for(fault: HttpFault, subject: Subject, *, now: datetime | None = None) -> Exception:
    """The exception an error status stands for.

    Returns:
        TransientFault for 408, 429 and 5xx, QuotaExhausted for a 429 over the day's quota or
        an empty account, RequestTooLong for a prompt beyond the window, else ModelRefused
        with a remedy.
    """
    said = subject.clean(fault.message)
    text = fault.message + json.dumps(fault.body, default=str)
    if fault.status == 429 and is_daily_quota(fault.body):
        return QuotaExhausted(
            f'The quota of "{subject.spec}" is used up: {said}',
            remedy="run the same command again when the quota is renewed; what is done is kept",
        )
    if fault.status in TRANSIENT_STATUS:
        delay = retry_after_seconds(
            fault.headers.get("retry-after"), now=now or _server_time(fault.headers)
        )
        if delay is None:
            delay = retry_info_seconds(fault.body)
        throttled = fault.status == 429
        return TransientFault(f"{fault.status} {said}", delay_s=delay, throttled=throttled)
    if fault.status in (400, 413) and _TOO_LONG.search(text):
        return RequestTooLong(said)
    return ModelRefused(
        f'"{subject.spec}" refused the request: {fault.status} {said}',
        remedy=_remedy(fault, subject, text),
    )


def _remedy(fault: HttpFault, subject: Subject, text: str) -> str:
    if fault.status == 401 or _BAD_KEY.search(text):
        return f"check the key in {subject.key_variable}"
    if fault.status == 403:
        return f"check what the key in {subject.key_variable} may use, and the region"
    if fault.status == 404:
        return f'check the model name in "{subject.spec}" and the base URL'
    return "the request itself is not accepted: check the model's limits and the options given"


def is_daily_quota(body: Any) -> bool:
    """Whether an error body says that the day's quota, or the account, is used up.

    Gemini: a QuotaFailure violation whose quota id or metric says `PerDay`. OpenAI: the code
    `insufficient_quota`.
    """
    error = _error_of(body)
    if error.get("code") == "insufficient_quota" or error.get("type") == "insufficient_quota":
        return True
    violations = [
        violation
        for detail in _details_of(error)
        if str(detail.get("@type", "")).endswith("QuotaFailure")
        for violation in detail.get("violations") or ()
    ]
    return any("perday" in json.dumps(each).replace("_", "").lower() for each in violations)


def retry_after_seconds(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds named by a `Retry-After` header: a number or an HTTP date; None if unreadable.

    Source of rule: RFC 9110, section 10.2.3. A date in the past is 0.
    """
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    moment = _moment(value)
    return (
        None if moment is None else max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
    )


def _server_time(headers: Mapping[str, str]) -> datetime | None:
    """The service's own clock: a date it names is meant by that one, however wrong ours is."""
    return _moment(headers.get("date", ""))


def _moment(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def retry_info_seconds(body: Any) -> float | None:
    """Seconds named by a google.rpc.RetryInfo detail (`"7s"`, `"0.5s"`); None if there is none."""
    for detail in _details_of(_error_of(body)):
        if str(detail.get("@type", "")).endswith("RetryInfo"):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay", "")))
            if match:
                return float(match.group(1))
    return None


def _error_of(body: Any) -> Mapping[str, Any]:
    """The error object, whether or not it is wrapped in `{"error": ...}`."""
    if isinstance(body, Mapping):
        inner = body.get("error")
        return inner if isinstance(inner, Mapping) else body
    return {}


def _details_of(error: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    details = error.get("details")
    if not isinstance(details, list):
        return ()
    return [detail for detail in details if isinstance(detail, Mapping)]


def _short(message: str, limit: int = 200) -> str:
    """The message on one line, cut where it is endless (an HTML page, a stack)."""
    line = " ".join(message.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


# --- How many calls may be on the wire, and from when on: learnt from what the service refuses


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


# --- The one retry layer: bounded in attempts and in time, and it waits as long as the service


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
