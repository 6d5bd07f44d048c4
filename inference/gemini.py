"""Gemini through google-genai: the only file that imports it, and the one that maps its errors.

The SDK's own retries stay off: `retry.Retrier` is the one retry layer, because only it waits as
long as Retry-After and RetryInfo ask. The raw body is read by `gemini_wire`.

The four adjustable safety filters are switched off: clinical text (doses, self-harm, abuse,
anatomy) trips them, and a verdict that a filter swallowed is a hole in the data. What Gemini
blocks all the same comes back as the finish reason `blocked` and becomes an abstention.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import date

import httpx2
from google import genai
from google.genai import errors, types

from inference import gemini_wire
from inference.faults import (
    HttpFault,
    RequestTooLong,
    Subject,
    TransientFault,
    exception_for,
)
from inference.prices import PRICES_AS_OF, Service, cost
from inference.protocol import GenerationRequest
from inference.replies import over_length_reply
from inference.retry import Retrier, RetryPolicy, Sleep
from inference.specs import checked_base_url
from inference.wire_reply import WireReply
from traces.errors import InputError, ModelRefused
from traces.records import ModelReply

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
BASE_URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"
FLEX_ATTEMPT_S = 1200.0
"""Flex answers within 1 to 15 minutes by its description."""


class GeminiModel:
    """A Gemini model as a `TextModel`."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        service: Service = "standard",
        concurrency: int = 16,
        retry: RetryPolicy | None = None,
        sleep: Sleep = asyncio.sleep,
        today: Callable[[], date] = date.today,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Set up the client; nothing is sent.

        Args:
            name: model name, with or without `models/`.
            base_url: another endpoint; None reads GOOGLE_GEMINI_BASE_URL, else Google's own.
            service: `standard`, or `flex` (half the price, minutes instead of seconds).
            concurrency: requests in flight at once, at least 1.
            retry: bounds of the retries; None for the defaults of the service.
            sleep: how to wait between attempts.
            today: the day whose prices hold.
            environ: where key and base URL are looked up.

        Raises:
            InputError: no key, a base URL that cannot be used, or an unknown service.
        """
        if service not in ("standard", "flex"):
            raise InputError(
                f'The service "{service}" is not offered for single calls.',
                remedy="use standard or flex",
            )
        self.name = name.removeprefix("models/")
        self._service: Service = service
        self._concurrency = max(1, concurrency)
        self._today = today
        variable, key = _key(environ)
        self._subject = Subject(self.spec, variable, key)
        named = "--base-url" if base_url else BASE_URL_VARIABLE
        url = base_url or environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
        policy = retry or _default_policy(service)
        self._retrier = Retrier(policy, sleep=sleep)
        # an own httpx2 client: whether aiohttp happens to be installed must not change the errors
        self._http = httpx2.AsyncClient(
            timeout=policy.attempt_s,
            limits=httpx2.Limits(
                max_connections=self._concurrency, max_keepalive_connections=self._concurrency
            ),
            follow_redirects=True,
        )
        self._client = genai.Client(
            api_key=key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=checked_base_url(url, named_by=named),
                api_version="v1beta",
                timeout=int(policy.attempt_s * 1000),
                httpx_async_client=self._http,
            ),
        )

    @property
    def spec(self) -> str:
        """The model as the user named it."""
        return f"gemini:{self.name}"

    @property
    def hosted(self) -> bool:
        """Always True: texts go to Google, or to whoever answers at the base URL."""
        return True

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight at once."""
        return self._concurrency

    @property
    def service(self) -> Service:
        """The service tier that is asked for and paid."""
        return self._service

    @property
    def retries(self) -> int:
        """Attempts after a first one, so far."""
        return self._retrier.retries

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request, after bounded retries; see `TextModel.generate`."""
        if request.messages[-1].role == "assistant":
            raise ModelRefused(
                f'"{self.spec}" does not continue an assistant turn.',
                remedy="put the prefix into a user turn",
            )

        async def attempt() -> tuple[str, WireReply]:
            body = await self._send(request)
            return body, gemini_wire.read_body(body)

        try:
            body, wire = await self._retrier.run(attempt, subject=self.spec)
        except RequestTooLong as error:
            return over_length_reply(self.spec, str(error))
        billed = wire.resolved_model or self.name
        usd = cost(wire.usage, billed, self._service, on=self._today())
        return ModelReply(
            text=wire.text,
            finish_reason=wire.finish_reason,
            model=self.spec,
            resolved_model=wire.resolved_model,
            usage=wire.usage,
            usd=usd,
            prices_as_of=None if usd is None else PRICES_AS_OF.isoformat(),
            raw=body,
        )

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.aio.aclose()
        await self._http.aclose()

    async def _send(self, request: GenerationRequest) -> str:
        """One HTTP exchange; every third-party error is translated here and nowhere else."""
        try:
            response = await self._client.aio.models.generate_content(
                model=self.name, contents=list(_contents(request)), config=self._config(request)
            )
        except errors.APIError as error:
            raise exception_for(_fault(error), self._subject) from error
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise TransientFault("time-out while waiting for the reply") from error
        except (httpx2.HTTPError, OSError) as error:
            what = f"{type(error).__name__} {error}".strip()
            raise TransientFault(f"connection fault: {what}") from error
        http = response.sdk_http_response
        return (http.body if http else None) or ""

    def _config(self, request: GenerationRequest) -> types.GenerateContentConfig:
        knobs = gemini_wire.takes_sampling_knobs(self.name)
        system = [message.text for message in request.messages if message.role == "system"]
        schema = request.response_json_schema
        return types.GenerateContentConfig(
            system_instruction="\n\n".join(system) or None,
            max_output_tokens=request.max_tokens,
            temperature=request.temperature if knobs else None,
            top_p=request.top_p if knobs else None,
            stop_sequences=list(request.stop) or None,
            seed=request.seed,
            response_mime_type=None if schema is None else "application/json",
            response_json_schema=schema,
            service_tier=types.ServiceTier.FLEX if self._service == "flex" else None,
            safety_settings=[
                types.SafetySetting(
                    category=types.HarmCategory(harm), threshold=types.HarmBlockThreshold.OFF
                )
                for harm in gemini_wire.ADJUSTABLE_HARMS
            ],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            should_return_http_response=True,
        )


def _contents(request: GenerationRequest) -> list[types.Content]:
    return [
        types.Content(
            role="model" if message.role == "assistant" else "user",
            parts=[types.Part(text=message.text)],
        )
        for message in request.messages
        if message.role != "system"
    ]


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


def _default_policy(service: Service) -> RetryPolicy:
    if service == "flex":  # sheddable: 503 and 429 are to be expected
        return RetryPolicy(attempts=10, total_s=3 * FLEX_ATTEMPT_S, attempt_s=FLEX_ATTEMPT_S)
    return RetryPolicy()


def _fault(error: errors.APIError) -> HttpFault:
    headers = getattr(error.response, "headers", None) or {}
    return HttpFault(
        status=error.code or 0,
        message=error.message or error.status or "",
        headers={name.lower(): value for name, value in headers.items()},
        body=error.details,
    )
