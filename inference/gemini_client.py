"""The connection to Gemini: the client with its key and address, and the one place that maps its errors.

The SDK's own retries stay off: `retry.Retrier` is the one retry layer, because only it waits as
long as Retry-After and RetryInfo ask.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from urllib.request import getproxies

import httpx2
import pydantic
from google import genai
from google.genai import errors, types
from google.genai.client import AsyncClient

from inference.faults import HttpFault, Subject, TransientFault, exception_for
from inference.specs import checked_base_url
from inference.spread_transport import SpreadTransport
from traces.errors import InputError

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
BASE_URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"


class GeminiClient:
    """A google-genai client whose errors are ours."""

    def __init__(
        self,
        spec: str,
        *,
        base_url: str | None,
        attempt_s: float,
        connections: int,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Set up the client; nothing is sent.

        Args:
            spec: the model as the user named it, for messages.
            base_url: another endpoint; None reads GOOGLE_GEMINI_BASE_URL, else Google's own.
            attempt_s: seconds one HTTP exchange may take.
            connections: connections open at once, at least 1.
            environ: where key and base URL are looked up.

        Raises:
            InputError: no key, or a base URL that cannot be used.
        """
        variable, key = _key(environ)
        self.subject = Subject(spec, variable, key)
        """Whom messages are about."""
        named = "--base-url" if base_url else BASE_URL_VARIABLE
        url = base_url or environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
        self.base_url = checked_base_url(url, named_by=named)
        """The endpoint, without a trailing slash."""
        # an own httpx2 client: whether aiohttp happens to be installed must not change the errors
        self.http = httpx2.AsyncClient(
            verify=_tls(),
            timeout=attempt_s,
            limits=httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            ),
            # a transport of our own would pass by the proxies of the environment
            transport=None if getproxies() else SpreadTransport(_tls()),
            follow_redirects=True,
        )
        """The HTTP client underneath."""
        self._client = genai.Client(
            api_key=key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=self.base_url,
                api_version="v1beta",
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
        """Turn every third-party error of the block into one of ours, here and nowhere else.

        Raises:
            TransientFault: the same request may succeed.
            RequestTooLong: the prompt does not fit into the model's window.
            QuotaExhausted, ModelRefused: see `faults.exception_for`.
        """
        try:
            yield
        except errors.APIError as error:
            raise exception_for(_fault(error), self.subject) from error
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise TransientFault("time-out while waiting for the reply") from error
        except (httpx2.HTTPError, OSError) as error:
            what = f"{type(error).__name__} {error}".strip()
            raise TransientFault(f"connection fault: {what}") from error
        except json.JSONDecodeError as error:
            raise TransientFault(f"the reply is not JSON: {error.msg}") from error
        except pydantic.ValidationError as error:
            raise TransientFault(f"the reply is no {error.title} of the service") from error

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.aio.aclose()
        await self.http.aclose()


@cache
def _tls() -> ssl.SSLContext:
    """One context for all clients: reading the certificates takes longer than anything else here."""
    return httpx2.create_ssl_context()


def _key(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that holds the key, and the key."""
    for variable in KEY_VARIABLES:
        key = environ.get(variable, "").strip()
        if key:
            return variable, key
    raise InputError(
        "No Gemini key in the environment.",
        remedy="set GEMINI_API_KEY (or GOOGLE_API_KEY); make one at https://aistudio.google.com",
    )


def _fault(error: errors.APIError) -> HttpFault:
    headers = getattr(error.response, "headers", None) or {}
    return HttpFault(
        status=error.code or 0,
        message=error.message or error.status or "",
        headers={name.lower(): value for name, value in headers.items()},
        body=error.details,
    )
