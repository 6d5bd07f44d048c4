"""Retries and pacing: what an HTTP error means, how many calls may be in flight, when to try again.

The backends translate their library's exceptions into `HttpFault` or `TransientFault`; nothing
else leaves them, and all services are read the same way.

Rate limits are not published per project (only a console shows them), so the number of calls in
flight is found the way TCP does it (additive increase, multiplicative decrease; Chiu and Jain
1989): a 429 halves it, a window of successes adds one. If a 429 names a time to wait, no call of
the project starts before that time is over.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar

from inference.destinations import without_key
from traces import ModelRefused, ModelUnavailable, QuotaExhausted, ToolkitError, record_defect

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""


class TransientFault(Exception):
    """A fault after which the same request may succeed; the retry layer decides.

    Args:
        what: what happened, in one sentence.
        delay_s: seconds that the service asks to wait; None if it does not say.
        throttled: whether the rate limit refused the call, which concerns every call of the
            project.
    """

    def __init__(self, what: str, *, delay_s: float | None = None, throttled: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.delay_s = delay_s
        self.throttled = throttled


class RequestTooLong(Exception):
    """The prompt does not fit in the model's window; this concerns one request, not the run."""


@contextmanager
def one_reply(spec: str) -> Iterator[None]:
    """Let a reply that is read in a way nobody foresaw cost its own request, not the run.

    It is not asked for again: it was paid, and would most likely fail again.

    Args:
        spec: the model, for messages.

    Raises:
        ModelUnavailable: instead of an unexpected exception.
    """
    try:
        yield
    except (ToolkitError, TransientFault, RequestTooLong):
        raise
    except Exception as fault:
        why = record_defect(fault, f'a reply of "{spec}"')
        raise ModelUnavailable(f'The reply of "{spec}" cannot be used: {why}.') from fault


@dataclass(frozen=True, slots=True)
class HttpFault:
    """An HTTP response with an error status."""

    status: int
    message: str
    """The service's message."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Response headers, names in lower case."""
    body: Any = None
    """The parsed JSON body; None if it is not JSON."""


class HoldsToken(Protocol):
    """Credentials whose token changes while a command runs."""

    token: str | None


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that the message of a refusal is about."""

    spec: str
    """The model as the user named it."""
    key_variable: str
    """The environment variable that holds the key."""
    secret: str = field(default="", repr=False)
    """The key, to remove it from the service's messages."""
    credentials: HoldsToken | None = field(default=None, repr=False)
    """Their token is removed too; None for a key, or without either."""

    def clean(self, message: str) -> str:
        """The message on one line, without the key, truncated."""
        return _short(self.redacted(message))

    def redacted(self, body: str) -> str:
        """The body of a reply without key and token."""
        token = None if self.credentials is None else self.credentials.token
        return without_key(without_key(body, self.secret), token or "")


_TOO_LONG = re.compile(
    r"exceeds the maximum number of tokens|maximum context length|context_length_exceeded"
    r"|exceed_context_size|exceeds the available context size|prompt is too long",
    re.IGNORECASE,
)
_BAD_KEY = re.compile(r"api[ _]key[ _](?:not[ _]valid|invalid|expired)|incorrect api key", re.I)


def exception_for(fault: HttpFault, subject: Subject, *, now: datetime | None = None) -> Exception:
    """The exception an error status stands for.

    Returns:
        TransientFault for 408, 429 and 5xx; QuotaExhausted for a 429 because of the daily quota or
        an empty account; RequestTooLong for a prompt beyond the window; else, also for a quota of
        0, ModelRefused with a remedy.
    """
    said = subject.clean(fault.message)
    text = fault.message + json.dumps(fault.body, default=str)
    if fault.status == 429 and is_zero_quota(fault):
        return ModelRefused(
            f'The quota of this project for "{subject.spec}" is 0: {said}',
            remedy="use another model, or ask for quota or enable billing in the project's "
            "console; waiting does not help",
        )
    if fault.status == 429 and is_daily_quota(fault.body):
        return QuotaExhausted(
            f'The quota of "{subject.spec}" is used up: {said}',
            remedy="run the same command again once the quota is renewed; what is done is kept",
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
    if disabled := _disabled_service(fault.body):
        return f"enable it once: gcloud services enable {disabled}"
    if fault.status == 401 or _BAD_KEY.search(text):
        return f"check the key in {subject.key_variable}"
    if fault.status == 403:
        return f"check the permissions of the key in {subject.key_variable}, and the region"
    if fault.status == 404:
        return f'check the model name in "{subject.spec}" and the base URL'
    return "the request was not accepted: check the model's limits and the options given"


_LIMIT_OF_ZERO = re.compile(r"\blimit: 0(?!\.?\d)")


def is_zero_quota(fault: HttpFault) -> bool:
    """Whether the quota that a 429 names is 0, which no waiting renews.

    Gemini: a QuotaFailure violation with the `quotaValue` 0, or `limit: 0` in the message.
    """
    values = [
        str(each.get("quotaValue", ""))
        for each in _violations(_error_of(fault.body))
        if isinstance(each, Mapping)
    ]
    return "0" in values or (not any(values) and bool(_LIMIT_OF_ZERO.search(fault.message)))


_SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*\.googleapis\.com")


def _disabled_service(body: Any) -> str | None:
    """The Google service that the project has to enable first; None if it is not about that.

    Source: google.rpc.ErrorInfo with the reason SERVICE_DISABLED.
    """
    for detail in _details_of(_error_of(body)):
        if detail.get("reason") == "SERVICE_DISABLED":
            metadata = detail.get("metadata")
            service = metadata.get("service") if isinstance(metadata, Mapping) else None
            # It becomes a part of a command, and any server may have written it.
            named = isinstance(service, str) and _SERVICE_NAME.fullmatch(service)
            return service if named else "aiplatform.googleapis.com"
    return None


def is_daily_quota(body: Any) -> bool:
    """Whether an error body says that the daily quota, or the account, is used up.

    Gemini: a QuotaFailure violation whose quota id or metric contains `PerDay`. OpenAI: the code
    `insufficient_quota`.
    """
    error = _error_of(body)
    if error.get("code") == "insufficient_quota" or error.get("type") == "insufficient_quota":
        return True
    return any("perday" in json.dumps(each).replace("_", "").lower() for each in _violations(error))


def _violations(error: Mapping[str, Any]) -> list[Any]:
    """What a google.rpc.QuotaFailure says is used up."""
    return [
        violation
        for detail in _details_of(error)
        if str(detail.get("@type", "")).endswith("QuotaFailure")
        for violation in _list_of(detail.get("violations"))
    ]


def retry_after_seconds(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds named by a `Retry-After` header: a number or an HTTP date; None if unreadable.

    Source: RFC 9110, section 10.2.3. A date in the past gives 0.
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
    """The service's clock, to which its dates refer, however wrong ours is."""
    return _moment(headers.get("date", ""))


def _moment(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for a year of twenty digits
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
    """The error object, with or without the wrapper `{"error": ...}`."""
    if isinstance(body, Mapping):
        inner = body.get("error")
        return inner if isinstance(inner, Mapping) else body
    return {}


def _details_of(error: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [one for one in _list_of(error.get("details")) if isinstance(one, Mapping)]


def _list_of(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _short(message: str, limit: int = 200) -> str:
    """The message on one line, truncated (it may be an HTML page or a stack trace)."""
    line = " ".join(message.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


Sleep = Callable[[float], Awaitable[None]]


class Unsent(Exception):
    """A call that was still waiting for a slot when the run had to stop."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to have one call in flight."""

    cuts: int
    """How often the bound had been halved when the call started."""


class Pace:
    """An adaptive bound on calls in flight, and a gate that can be closed for all of them.

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
            most: maximum number of calls in flight, at least 1.
            clock: seconds on a monotonic clock.
            sleep: waits for the gate.
        """
        self._most = max(1, most)
        self._limit = float(self._most)
        self._clock = clock
        self._sleep = sleep
        self._opens_at = clock()
        self._in_flight = 0
        self._is_shut = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.cuts = 0

    @property
    def limit(self) -> int:
        """Calls that may be in flight now, at least 1."""
        return max(1, int(self._limit))

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait until the gate is open and there is room, then hold a slot.

        Raises:
            Unsent: `shut` was called.
        """
        await self._enter()
        try:
            yield Slot(self.cuts)
        finally:
            self._in_flight -= 1
            self._wake()

    def shut(self) -> None:
        """Admit no further calls, including those that wait. Call it on the loop."""
        self._is_shut = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def reopen(self) -> None:
        """Admit calls again."""
        self._is_shut = False

    def succeeded(self) -> None:
        """Note an answered call: the bound grows by one per window of these."""
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def throttled(self, slot: Slot, wait_s: float | None) -> None:
        """Note a 429: halve the bound and, if the service names a time, close the gate.

        Calls that started before the bound was last halved say nothing about the current bound, so
        a burst of refusals halves it once.
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
            elif self._in_flight < self.limit:
                self._in_flight += 1
                return
            else:
                await self._room()

    async def _room(self) -> None:
        """Wait, first come first served, until a slot may be free."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # pass the slot on to the next call
            raise

    def _wake(self) -> None:
        """Wake as many waiting calls as there are free slots."""
        free = self.limit - self._in_flight
        while free > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of the retries."""

    attempts: int = 6
    """Maximum attempts per request, including the first."""
    total_s: float = 900.0
    """Seconds after which no further attempt is started."""
    attempt_s: float = 300.0
    """Timeout of one attempt, in seconds."""
    base_s: float = 1.0
    """Wait before the second attempt unless the service names one; doubles each time."""
    cap_s: float = 60.0
    """Maximum wait, except where the service asks for a longer one."""


@dataclass(slots=True)
class Retrier:
    """Runs calls with bounded retries and counts them; clock and randomness can be replaced."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    pace: Pace = field(default_factory=lambda: Pace(1 << 30))
    """Limits the calls in flight; unlimited by default."""
    sleep: Sleep = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    """A number in [0, 1) that spreads the retries of many clients."""
    retries: int = 0
    """Retries over all calls."""

    async def run(self, call: Callable[[], Awaitable[T]], *, subject: str) -> T:
        """The call's result, after at most as many attempts as the policy allows.

        Args:
            call: one attempt; raises TransientFault for faults that may pass.
            subject: the model, for messages.

        Raises:
            ModelUnavailable: every attempt failed, or the service asks for a longer wait than the
                time left.
            QuotaExhausted: the rate limit asks for a longer wait than the time left; it concerns
                every call, so going on is useless.
            Exception: any other exception of the call, immediately.
        """
        start: float | None = None
        for attempt in range(1, self.policy.attempts + 1):
            async with self.pace.slot() as slot:
                # Time spent in the queue before the first attempt does not count.
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
            if not named:  # else the gate is closed for that long for all calls
                await self.sleep(wait)
            self.retries += 1
        raise ValueError("a retry policy needs at least one attempt")

    def _wait(self, attempt: int, fault: TransientFault) -> float:
        """The wait that the service asks for plus jitter, else exponential, half of it random."""
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
        remedy="run the same command again later; it only sends what is missing",
    )
