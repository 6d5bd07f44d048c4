"""What an HTTP answer that is no reply means: try again, refused, too long, or out of quota.

One reading for all services. The back ends translate their library's exceptions into
`HttpFault` or `TransientFault`; nothing else leaves them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from traces.errors import ModelRefused, QuotaExhausted

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
