"""A client of servers that answer JSON with JSON: bounded retries, pacing, many calls at once.

It is for calls that are not text generation (PRM scores). Replies are not recorded, because asking
again costs no money. Faults are classified as for all other services, see `inference.retries`.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import queue
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from itertools import islice
from typing import Any, Generic, TypeVar

import httpx2

from inference.background import LOOK_EVERY_S, LoopThread
from inference.destinations import Destination
from inference.retries import (
    HttpFault,
    Pace,
    RequestTooLong,
    Retrier,
    RetryPolicy,
    Sleep,
    Subject,
    TransientFault,
    exception_for,
    one_reply,
)
from inference.specs import OPENAI_BASE_URL_VARIABLE, OPENAI_KEY_VARIABLE
from traces import InputError, ModelUnavailable, interrupt_noted, uninterrupted

T = TypeVar("T")
JsonObject = dict[str, Any]
Answer = JsonObject | ModelUnavailable | RequestTooLong
"""A reply, or the error of this call."""
DEFAULT_CONCURRENCY = 16
_AHEAD = 2
"""Calls read ahead per call in flight."""
_DRAIN_S = 10.0
"""Seconds that calls in flight get to finish when the run has to stop."""


class _Calls(Generic[T]):
    """The calls in flight. Used by one thread; they finish in another."""

    def __init__(self) -> None:
        self._calls: set[Future[JsonObject]] = set()
        self._finished: queue.SimpleQueue[tuple[T, Future[JsonObject]]] = queue.SimpleQueue()

    @property
    def size(self) -> int:
        """Calls that wait for an answer, or to be processed."""
        return len(self._calls)

    def add(self, known_by: T, future: Future[JsonObject]) -> None:
        """Add a call that was just started."""
        self._calls.add(future)
        future.add_done_callback(lambda done: self._finished.put((known_by, done)))

    def wait(self) -> tuple[T, JsonObject | BaseException] | None:
        """Wait a moment for the next call to finish; None if none did."""
        try:
            known_by, done = self._finished.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            return None
        self._calls.discard(done)
        return known_by, done.exception() or done.result()

    def cancel(self) -> None:
        """Cancel the calls in flight."""
        for future in self._calls:
            future.cancel()


class JsonClient:
    """Calls to one server; a context manager. One caller at a time."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        concurrency: int | None = None,
        retry: RetryPolicy | None = None,
        sleep: Sleep = asyncio.sleep,
        insecure_http: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Set up the client; nothing is sent.

        Args:
            model: the model's name as the server lists it.
            base_url: the server, with or without `/v1`; None reads OPENAI_BASE_URL.
            concurrency: requests in flight at once; None for 16.
            retry: bounds of the retries; None for the defaults.
            sleep: waits between attempts.
            insecure_http: whether a key may go over plain http to another machine.
            environ: environment variables with base URL and key (OPENAI_API_KEY, sent if set).

        Raises:
            InputError: no base URL, or one that cannot be used.
        """
        if not (base_url or environ.get(OPENAI_BASE_URL_VARIABLE)):
            raise InputError(
                f'There is no server for "openai:{model}".',
                remedy=f"give it with --base-url, or set {OPENAI_BASE_URL_VARIABLE}",
            )
        self.server = server = Destination.chosen(
            base_url, variable=OPENAI_BASE_URL_VARIABLE, environ=environ, default=""
        )
        """The server that keys and texts go to."""
        self.root = server.url.removesuffix("/v1")
        """The URL prefix of all routes, without a trailing slash."""
        self.model = model
        key = environ.get(OPENAI_KEY_VARIABLE, "").strip()
        server.refuse_plain_http(key, key_variable=OPENAI_KEY_VARIABLE, allowed=insecure_http)
        self._subject = Subject(self.spec, OPENAI_KEY_VARIABLE, key)
        policy = retry or RetryPolicy()
        self._most = max(1, concurrency or DEFAULT_CONCURRENCY)
        self._pace = Pace(self._most, sleep=sleep)
        self._retrier = Retrier(policy, self._pace, sleep=sleep)
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=policy.attempt_s,
            limits=httpx2.Limits(max_connections=self._most, max_keepalive_connections=self._most),
            follow_redirects=False,
            event_hooks=server.hooks(self.spec),
            # A proxy would be another machine that receives the text.
            trust_env=not server.is_loopback,
        )
        self._thread: LoopThread | None = None

    @property
    def spec(self) -> str:
        """The model as the user named it."""
        return f"openai:{self.model}"

    @property
    def hosted(self) -> bool:
        """True unless the server runs on this machine."""
        return not self.server.is_loopback

    @property
    def retries(self) -> int:
        """Retries so far."""
        return self._retrier.retries

    def __enter__(self) -> JsonClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel calls in flight, release connections and the background thread."""
        with uninterrupted():
            thread, self._thread = self._thread or LoopThread(), None
            try:
                thread.submit(self._http.aclose()).result()
            finally:
                thread.close()

    def get(self, path: str) -> JsonObject:
        """The answer to one GET.

        Raises:
            ModelUnavailable: no answer after all attempts.
            ModelRefused, QuotaExhausted: see `inference.retries.exception_for`.
        """
        return self._started().result(self._call("GET", path, None))

    def run(self, calls: Iterable[tuple[T, str, Mapping[str, Any]]]) -> Iterator[tuple[T, Answer]]:
        """Send calls concurrently; yield each with its answer, in any order.

        Args:
            calls: (identifier, path, body) of each call; read as slots become free.

        Raises:
            ModelRefused, QuotaExhausted: the first such answer, once the calls in flight have
                finished and were yielded; no further calls are read.
            ModelUnavailable: more consecutive calls than are in flight at once had no answer, so
                the server is gone.
            KeyboardInterrupt: there was an interrupt; as for the first such answer.
        """
        with uninterrupted():
            yield from self._run(calls)

    def _run(self, calls: Iterable[tuple[T, str, Mapping[str, Any]]]) -> Iterator[tuple[T, Answer]]:
        rest, calls_in_flight = iter(calls), _Calls[T]()
        fatal: BaseException | None = None
        unanswered, until = 0, math.inf
        try:
            while time.monotonic() < until:
                if fatal is None and interrupt_noted():
                    fatal = KeyboardInterrupt()
                if fatal is not None:
                    until = min(until, time.monotonic() + _DRAIN_S)
                room = _AHEAD * self._pace.limit - calls_in_flight.size if fatal is None else 0
                for known_by, path, body in islice(rest, max(0, room)):
                    calls_in_flight.add(
                        known_by, self._started().submit(self._call("POST", path, body))
                    )
                if not calls_in_flight.size:
                    break
                ended = calls_in_flight.wait()
                if ended is None:
                    continue
                known_by, outcome = ended
                lost = isinstance(outcome, ModelUnavailable)
                unanswered = unanswered + 1 if lost else 0
                if (
                    isinstance(outcome, dict | ModelUnavailable | RequestTooLong)
                    and unanswered <= self._most
                ):
                    yield known_by, outcome
                elif fatal is None and isinstance(outcome, BaseException):
                    fatal = outcome
            if fatal is not None:
                raise fatal
        finally:
            calls_in_flight.cancel()

    def _started(self) -> LoopThread:
        if self._thread is None:
            self._thread = LoopThread()
        return self._thread

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> JsonObject:
        """One call with its retries."""

        async def attempt() -> JsonObject:
            return await self._attempt(method, path, body)

        return await self._retrier.run(attempt, subject=self.spec)

    async def _attempt(self, method: str, path: str, body: Mapping[str, Any] | None) -> JsonObject:
        """One exchange; every network error is mapped here."""
        try:
            reply = await self._http.request(method, f"{self.root}{path}", json=body)
        except httpx2.TimeoutException as error:
            raise TransientFault("timeout while waiting for the reply") from error
        except (httpx2.HTTPError, OSError) as error:
            raise TransientFault(f"connection failed: {error or type(error).__name__}") from error
        with one_reply(self.spec):
            text = self._subject.redacted(reply.text)
            read = _object(text)
        if reply.status_code != 200:
            raise exception_for(_fault(reply, read, path), self._subject)
        if read is None:
            start = " ".join(text[:60].split())
            raise TransientFault(f'the reply to {path} is not a JSON object ("{start}")')
        return read


def _object(text: str) -> JsonObject | None:
    """The body as a JSON object; None if it is not one."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):  # a number of 5,000 digits is a plain ValueError
        return None
    return read if isinstance(read, dict) else None


def _fault(reply: httpx2.Response, read: JsonObject | None, path: str) -> HttpFault:
    said = read or {}
    inner = said.get("error")
    words = inner.get("message") if isinstance(inner, Mapping) else inner
    message = words or said.get("message") or said.get("detail") or reply.text
    return HttpFault(
        status=reply.status_code,
        message=f"for {path}: {message}",
        headers={name.lower(): value for name, value in reply.headers.items()},
        body=read,
    )
