"""Who may ask and what a page may do: hosts, origins, form tokens, logins, limits and headers.

`Guard` wraps the whole application, so that no route can forget a check. A route that changes
something reads its form from `request.state.form`, which exists only once `form_token` accepted it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request

from review.texts import text
from traces import record_defect

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Login = Callable[[str], str | None]
"""From the hash of a token to the code of its owner; None if the token is unknown."""

_SESSION = re.compile(r"[A-Za-z0-9_-]{32,128}")
READING = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_BODY = 1024 * 1024
"""Largest body of a request, in bytes."""
LIFETIME_S = 12 * 3600.0
"""How long a form can be sent after its page was made."""
MAX_CLIENTS = 10_000
"""Addresses whose requests are counted at a time."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with it browsers send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Headers of every response."""


class Refused(Exception):
    """A request that is refused, with its status and the key of its text in the catalog."""

    def __init__(self, status: int, key: str, **headers: str) -> None:
        super().__init__(key)
        self.status, self.key, self.headers = status, key, headers


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks."""

    session: str
    """Hash of the cookie; form tokens are bound to it."""
    name: str | None
    """The code that their login belongs to; None where no login is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the guard accepts."""

    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    """Names that a Host header may have, in lower case."""
    any_address: bool = False
    """Whether it may also be an IP address, which cannot be rebound as a name can."""
    cookie: str = "stepgold"
    """Name of the session cookie."""
    secure: bool = False
    """Whether pages are reached by https."""
    login: Login | None = None
    """Finds the owner of a token; None lets everyone in who reaches the address."""
    lang: str = "en"
    """Language of refusals."""
    per_second: float = 50.0
    """Requests that an address may send in the long run."""
    burst: int = 400
    """Requests that it may send at once."""
    logins_per_minute: float = 10.0
    """Wrong tokens that an address may send in the long run, and at once."""


def hash_of(secret: str) -> str:
    """The hash under which a token of `new_token` is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_token() -> str:
    """A token for a login link: 256 random bits, which need no slow hash."""
    return secrets.token_urlsafe(32)


def single_login(token_hash: str, name: str) -> Login:
    """A login with one token."""

    def login(found: str) -> str | None:
        return name if hmac.compare_digest(found, token_hash) else None

    return login


class Limiter:
    """Limits the requests of each address, at once and per second."""

    def __init__(
        self, per_second: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, client: str, cost: float = 1.0) -> float:
        """Count a request and return 0; or the seconds to wait, without counting it."""
        with self._lock:
            now = self._clock()
            left, since = self._buckets.pop(client, (self._burst, now))
            left = min(self._burst, left + (now - since) * self._rate)
            allowed = left >= max(cost, 1.0)
            self._buckets[client] = (left - cost if allowed else left, now)
            while len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
            return 0.0 if allowed else (1.0 - left) / self._rate


class FormTokens:
    """Tokens of forms: bound to a session, valid once and for a time. Safe between threads."""

    def __init__(
        self, *, lifetime_s: float = LIFETIME_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = secrets.token_bytes(32)
        self._lifetime_s, self._clock = lifetime_s, clock
        self._used: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def issue(self, session: str) -> str:
        """A token for one form on a page of this session."""
        body = f"{secrets.token_urlsafe(16)}.{int(self._clock())}"
        return f"{body}.{self._signature(session, body)}"

    def use(self, session: str, token: str) -> None:
        """Accept a token for the first and last time.

        Raises:
            Refused: 403 if it is not one of this session or too old; 409 if it was used before.
        """
        body, _, signature = token.rpartition(".")
        expected = self._signature(session, body)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            raise Refused(403, "refused.form")
        nonce, _, issued = body.rpartition(".")
        now, ends = self._clock(), int(issued) + self._lifetime_s
        if now > ends:
            raise Refused(403, "refused.form")
        with self._lock:
            while self._used and next(iter(self._used.values())) < now - self._lifetime_s:
                self._used.popitem(last=False)
            if nonce in self._used:
                raise Refused(409, "refused.replay")
            self._used[nonce] = now

    def _signature(self, session: str, body: str) -> str:
        said = f"{session}.{body}".encode()
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()


async def form_token(request: Request) -> None:
    """Accept a changing request only with a fresh form token; puts the form in `state.form`.

    A dependency of the whole application. The token is the field `form_token` or, from a script,
    the header `X-Form-Token`; forms are url-encoded.

    Raises:
        Refused: 403 without a valid token, 409 if it was used before.
    """
    if request.method in READING:
        return
    body = (await request.body()).decode("utf-8", "replace")
    form = dict(parse_qsl(body, keep_blank_values=True, max_num_fields=1000))
    token = form.pop("form_token", "") or request.headers.get("X-Form-Token", "")
    visitor: Visitor = request.state.visitor
    request.app.state.form_tokens.use(visitor.session, token)
    request.state.form = form


class Guard:
    """Wraps an application and refuses what the rules do not accept, before it is asked."""

    def __init__(self, application: Application, rules: Rules) -> None:
        self._application, self._rules = application, rules
        self._limiter = Limiter(rules.per_second, rules.burst)
        per_minute = rules.logins_per_minute
        self._wrong = Limiter(per_minute / 60, per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of the server."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *self._headers(scope, message)]
            await send(message)

        try:
            self._check(scope)
            await self._application(scope, _limited(receive), sending)
        except Refused as refused:
            if started:
                raise
            await _answer(sending, refused, self._rules.lang)
        except Exception as fault:  # a defect ends one request, not the server
            record_defect(fault, f"{scope['method']} {scope['path']}")
            if not started:
                await _answer(sending, Refused(500, "refused.defect"), self._rules.lang)

    def _check(self, scope: Scope) -> None:
        """Let a request pass, and note in its state who sends it.

        Raises:
            Refused: it is refused.
        """
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        client = (scope.get("client") or ("?", 0))[0]
        if wait := self._limiter.wait(client):
            raise Refused(429, "refused.rate", **{"Retry-After": str(int(wait) + 1)})
        host = headers.get("host", "")
        self._check_host(host)
        if scope["method"] not in READING:
            _check_origin(headers, host, secure=self._rules.secure)
        if int(headers.get("content-length") or 0) > MAX_BODY:
            raise Refused(413, "refused.size")
        scope.setdefault("state", {})["visitor"] = self._visitor(scope, headers, client)

    def _check_host(self, host: str) -> None:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = ""
        if name not in self._rules.hosts and not (self._rules.any_address and _is_address(name)):
            raise Refused(421, "refused.host")

    def _visitor(self, scope: Scope, headers: MutableMapping[str, str], client: str) -> Visitor:
        rules, path = self._rules, scope["path"]
        cookie = _cookie(headers.get("cookie", ""), rules.cookie)
        if path == "/login":
            cookie = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        name = None
        if rules.login is not None and not path.startswith("/static/"):
            if cookie and (wait := self._wrong.wait(client, 0.0)):
                raise Refused(429, "refused.rate", **{"Retry-After": str(int(wait) + 1)})
            name = rules.login(hash_of(cookie)) if cookie else None
            if name is None:
                if cookie:
                    self._wrong.wait(client)
                raise Refused(401, "refused.login")
        if rules.login is None and not _SESSION.fullmatch(cookie):
            cookie = new_token()
        scope["state"]["cookie"] = cookie
        return Visitor(hash_of(cookie), name)

    def _headers(
        self, scope: Scope, message: MutableMapping[str, Any]
    ) -> list[tuple[bytes, bytes]]:
        given = {name.lower() for name, _ in message["headers"]}
        found = dict(HEADERS)
        if b"cache-control" not in given:
            found["Cache-Control"] = "no-store"
        if self._rules.secure:
            found["Strict-Transport-Security"] = "max-age=31536000"
        cookie = scope.get("state", {}).get("cookie")
        if cookie and not scope["path"].startswith("/static/"):
            secure = "; Secure" if self._rules.secure else ""
            # Lax: a login link that is opened from a mail has to arrive with its cookie.
            found["Set-Cookie"] = (
                f"{self._rules.cookie}={cookie}; Path=/; HttpOnly; SameSite=Lax;"
                f" Max-Age=2592000{secure}"
            )
        return [(name.lower().encode(), value.encode()) for name, value in found.items()]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(headers: MutableMapping[str, str], host: str, *, secure: bool) -> None:
    """Refuse a changing request of another site; without both headers the form token decides."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if origin is not None:
        scheme, _, name = origin.partition("://")
        foreign = name != host or (secure and scheme != "https")
    else:
        foreign = False
    if foreign or site not in ("same-origin", "none"):
        raise Refused(403, "refused.origin")


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _limited(receive: Receive) -> Receive:
    """The request's messages; a body over the limit is refused, whatever its header says."""
    size = 0

    async def receiving() -> MutableMapping[str, Any]:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise Refused(413, "refused.size")
        return message

    return receiving


async def _answer(send: Send, refused: Refused, lang: str) -> None:
    """A refusal in one line of text."""
    body = f"{text(lang, refused.key)}\n".encode()
    headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body))}
    listed = [(n.lower().encode(), v.encode()) for n, v in (headers | refused.headers).items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
