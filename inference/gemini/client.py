"""The connection to Gemini: client, error mapping, and the JSON of generateContent.

This is the only place that maps the SDK's errors. The SDK's own retries stay off: `Retrier` is the
only retry layer, because only it waits as long as Retry-After and RetryInfo ask.

Each call in flight uses a connection pool of its own. For every request, an httpx pool checks each
idle connection for a hang-up, which takes a few system calls per connection; with 64 connections
that was a fifth of the client's work.

Bodies are read and written without the SDK's types. That keeps the raw body for the audit, and a
finish reason that Google adds is only a new word. Shapes as served by v1beta:

    {"candidates": [{"content": {"parts": [{"text": ".."}]}, "finishReason": "STOP"}],
     "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20,
                       "thoughtsTokenCount": 5, "cachedContentTokenCount": 64},
     "modelVersion": ".."}
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.request import getproxies

import httpx2
import pydantic
from google import genai
from google.auth import exceptions as auth_errors
from google.genai import errors, types
from google.genai.client import AsyncClient

from inference.destinations import Destination
from inference.images import message_parts
from inference.openai.wire import first_object, mapping, read_object, text_of, token_count
from inference.protocol import GenerationRequest, Message, WireReply
from inference.retries import HttpFault, Subject, TransientFault, exception_for
from inference.specs import GEMINI_BASE_URL_VARIABLE as BASE_URL_VARIABLE
from inference.specs import GEMINI_KEY_VARIABLES as KEY_VARIABLES
from traces import InputError, ModelRefused, Usage

_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=1)


class SpreadTransport(httpx2.AsyncBaseTransport):
    """Gives each request a pool of its own; the caller bounds the requests in flight."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        """No connection is opened yet; `verify` is the TLS context."""
        self._verify = verify
        self._pools: list[httpx2.AsyncHTTPTransport] = []
        self._free: list[httpx2.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send through the pool used last, whose connection is the least likely to be stale."""
        pool = self._free.pop() if self._free else self._opened()
        try:
            response = await pool.handle_async_request(request)
        except BaseException:
            self._free.append(pool)
            raise
        if not isinstance(response.stream, httpx2.AsyncByteStream):
            raise TypeError("an asynchronous transport answers with an asynchronous stream")
        response.stream = _LentStream(response.stream, pool, self._free)
        return response

    async def aclose(self) -> None:
        """Close all pools."""
        await asyncio.gather(*(pool.aclose() for pool in self._pools))

    def _opened(self) -> httpx2.AsyncHTTPTransport:
        pool = httpx2.AsyncHTTPTransport(verify=self._verify, limits=_LIMITS)
        self._pools.append(pool)
        return pool


class _LentStream(httpx2.AsyncByteStream):
    """A body that frees its pool when it is closed."""

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        pool: httpx2.AsyncHTTPTransport,
        free: list[httpx2.AsyncHTTPTransport],
    ) -> None:
        self._stream = stream
        self._pool: httpx2.AsyncHTTPTransport | None = pool
        self._free = free

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        try:
            await self._stream.aclose()
        finally:
            if pool is not None:
                self._free.append(pool)


DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"


@dataclass(frozen=True, slots=True)
class Access:
    """Which service of Google answers, and with what right."""

    server: Destination
    """The server that keys and texts go to."""
    subject: Subject
    """The model and its key, for messages."""
    options: Mapping[str, Any]
    """Arguments of `genai.Client`: the service with key or credentials."""
    api_version: str


def developer_access(
    spec: str, base_url: str | None, environ: Mapping[str, str], *, insecure_http: bool
) -> Access:
    """Access to the Gemini API with a key.

    Raises:
        InputError: no key, or a base URL that cannot be used, such as one of plain http.
    """
    named = key_of(environ)
    if named is None:
        raise InputError(
            "No Gemini key in the environment.",
            remedy="set GEMINI_API_KEY (or GOOGLE_API_KEY), made at https://aistudio.google.com",
        )
    variable, key = named
    server = Destination.chosen(
        base_url, variable=BASE_URL_VARIABLE, environ=environ, default=DEFAULT_BASE_URL
    )
    server.refuse_plain_http(key, key_variable=variable, allowed=insecure_http)
    options = {"api_key": key, "vertexai": False}
    return Access(server, Subject(spec, variable, key), options, "v1beta")


class GeminiClient:
    """A google-genai client whose errors are mapped to ours."""

    def __init__(self, access: Access, *, attempt_s: float, connections: int) -> None:
        """Set up the client; nothing is sent.

        Args:
            access: service, server and key.
            attempt_s: timeout of one HTTP exchange, in seconds.
            connections: maximum number of open connections, at least 1.
        """
        self.subject = access.subject
        self.server = access.server
        """The server that key and texts go to."""
        # A proxy would be another machine that receives the text.
        proxied = bool(getproxies()) and not self.server.is_loopback
        # Our own httpx2 client, so that errors do not depend on whether aiohttp is installed.
        self.http = httpx2.AsyncClient(
            verify=_tls(),
            timeout=attempt_s,
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            ),
            # A custom transport would ignore the environment's proxies.
            transport=None if proxied else SpreadTransport(_tls()),
            follow_redirects=False,
            event_hooks=self.server.hooks(self.subject.spec),
        )
        """The HTTP client underneath."""
        self._client = genai.Client(
            **access.options,
            http_options=types.HttpOptions(
                base_url=self.server.url,
                api_version=access.api_version,
                timeout=int(attempt_s * 1000),
                httpx_async_client=self.http,
                client_args={"verify": _tls()},
                async_client_args={"verify": _tls(), "ssl": _tls()},
            ),
        )

    @property
    def api(self) -> AsyncClient:
        """The SDK's asynchronous interface; call it inside `translated()`."""
        return self._client.aio

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Map every third-party error of the block to our errors.

        Raises:
            TransientFault: the same request may succeed.
            RequestTooLong: the prompt does not fit in the model's window.
            QuotaExhausted, ModelRefused: see `retries.exception_for`.
        """
        try:
            yield
        except errors.APIError as error:
            raise exception_for(_fault(error), self.subject) from error
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise TransientFault("timeout while waiting for the reply") from error
        except (httpx2.HTTPError, OSError) as error:
            what = f"{type(error).__name__} {error}".strip()
            raise TransientFault(f"connection failed: {what}") from error
        except json.JSONDecodeError as error:
            raise TransientFault(f"the reply is not JSON: {error.msg}") from error
        except auth_errors.TransportError as error:
            raise TransientFault(f"no token for the credentials: {error}") from error
        except auth_errors.GoogleAuthError as error:
            said = self.subject.clean(str(error))
            raise ModelRefused(
                f'The credentials of "{self.subject.spec}" were refused: {said}',
                remedy="check the account and its key, or run: gcloud auth application-default "
                "login",
            ) from error
        except pydantic.ValidationError as error:
            raise TransientFault(f"the reply is not a {error.title} of the service") from error
        # The SDK raises any of these for a body that is not UTF-8, is nested too deeply, or has
        # another shape than the service's.
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}"[:200]
            raise TransientFault(f"the reply cannot be read ({what})") from error

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.aio.aclose()
        await self.http.aclose()


@cache
def _tls() -> ssl.SSLContext:
    """One context for all clients, because reading the certificates is slow."""
    return httpx2.create_ssl_context()


def key_of(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The variable that holds the key, and the key; None if there is none."""
    for variable in KEY_VARIABLES:
        key = environ.get(variable, "").strip()
        if key:
            return variable, key
    return None


def _fault(error: errors.APIError) -> HttpFault:
    headers = getattr(error.response, "headers", None) or {}
    return HttpFault(
        # From the body, which may hold anything under these names.
        status=error.code if isinstance(error.code, int) else 0,
        message=str(error.message or error.status or ""),
        headers={name.lower(): value for name, value in headers.items()},
        body=error.details,
    )


BLOCKED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "ESCALATION",
        "MODEL_ARMOR",
    }
)
"""Finish reasons of blocked replies; in practice OTHER is one of them."""

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}

# Only these four can be adjusted: CIVIC_INTEGRITY is retired, the rest are for images or Vertex.
ADJUSTABLE_HARMS = (
    "HARM_CATEGORY_HARASSMENT",
    "HARM_CATEGORY_HATE_SPEECH",
    "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "HARM_CATEGORY_DANGEROUS_CONTENT",
)

_SAFETY_OFF = [{"category": harm, "threshold": "OFF"} for harm in ADJUSTABLE_HARMS]


Uris = Mapping[str, str]
"""URIs of uploaded images by their hash."""


def read_body(body: str) -> WireReply:
    """Read a 200 body.

    Raises:
        TransientFault: not a JSON object (empty, truncated, a gateway's HTML page), an object
            without content, or invalid token counts: the same request may succeed.
    """
    reply = read_object(body)
    candidate = first_object(reply.get("candidates"))
    block_reason = mapping(reply.get("promptFeedback")).get("blockReason")
    usage = mapping(reply.get("usageMetadata"))
    if candidate is None and not block_reason and not usage:
        raise TransientFault("the reply has neither a candidate nor a usage count")
    if candidate is not None:
        said, finish = _text(candidate), _finish(candidate.get("finishReason"))
    else:
        said, finish = None, "blocked" if block_reason else "empty"
    return WireReply(said, finish, text_of(reply.get("modelVersion")), _usage(usage))


def request_body(request: GenerationRequest, uris: Uris, *, model: str) -> dict[str, Any]:
    """The body of a request, the same for a single call and for a row of a batch file.

    The schema is sent verbatim, because the order of its fields counts.

    Args:
        request: the request.
        uris: URIs of uploaded images by hash (`ImageUploads.uris`).
        model: the model's name, which tells the sampling options it accepts.
    """
    system = [message.text for message in request.messages if message.role == "system"]
    body: dict[str, Any] = {
        "contents": [
            {"parts": _parts(message, uris), "role": _role(message)}
            for message in request.messages
            if message.role != "system"
        ],
        "safetySettings": _SAFETY_OFF,
        "generationConfig": _generation_config(
            request, takes_sampling_options=takes_sampling_options(model)
        ),
    }
    if any(system):
        body["systemInstruction"] = {"parts": [{"text": "\n\n".join(system)}], "role": "user"}
    return body


def _parts(message: Message, uris: Uris) -> list[dict[str, Any]]:
    """The parts of a turn as plain JSON."""
    parts: list[dict[str, Any]] = []
    for part in message_parts(message):
        if isinstance(part, str):
            parts.append({"text": part})
        elif part.sha256 in uris:
            parts.append({"fileData": {"fileUri": uris[part.sha256], "mimeType": part.mime}})
        else:
            content = base64.b64encode(part.data).decode("ascii")
            parts.append({"inlineData": {"mimeType": part.mime, "data": content}})
    return parts


def _generation_config(
    request: GenerationRequest, *, takes_sampling_options: bool
) -> dict[str, Any]:
    schema = request.response_json_schema
    wanted = {
        "maxOutputTokens": request.max_tokens,
        "temperature": request.temperature if takes_sampling_options else None,
        "topP": request.top_p if takes_sampling_options else None,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "responseMimeType": None if schema is None else "application/json",
        "responseJsonSchema": schema,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _role(message: Message) -> str:
    return "model" if message.role == "assistant" else "user"


def _text(candidate: Mapping[str, Any]) -> str | None:
    parts = mapping(candidate.get("content")).get("parts")
    shown = [mapping(part) for part in parts] if isinstance(parts, list) else []
    said = [text_of(part.get("text")) for part in shown if not part.get("thought")]
    texts = [each for each in said if each is not None]
    return "".join(texts) if texts else None


def _finish(reason: Any) -> str:
    if reason is None:
        return "unknown"
    word = str(reason)
    return "blocked" if word in BLOCKED else _FINISH.get(word, word.lower())


def _usage(counts: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=token_count(counts.get("promptTokenCount")),
        cached_tokens=token_count(counts.get("cachedContentTokenCount")),
        output_tokens=token_count(counts.get("candidatesTokenCount")),
        thinking_tokens=token_count(counts.get("thoughtsTokenCount")),
    )


def takes_sampling_options(model: str) -> bool:
    """Whether the model accepts temperature and top_p; Gemini 3 and later do not."""
    match = re.match(r"(?:models/)?gemini-(\d+)", model)
    return match is None or int(match.group(1)) < 3
