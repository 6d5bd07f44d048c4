"""Gemini through google-genai as a text model.

The four adjustable safety filters are off: clinical text (doses, self-harm, abuse, anatomy)
triggers them, and a verdict that a filter swallowed is a hole in the data. What Gemini still blocks
has the finish reason `blocked` and becomes an abstention.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Any, ClassVar, Self

from google.genai import types

from inference.gemini import client as wire_format
from inference.gemini.client import Access, GeminiClient, Uris, developer_access
from inference.gemini.images import ImageUploads
from inference.images import about_an_image
from inference.prices import PRICES_AS_OF, Service, cost
from inference.protocol import GenerationRequest, WireReply, over_length_reply
from inference.retries import Pace, RequestTooLong, Retrier, RetryPolicy, Sleep, one_reply
from traces import InputError, ModelRefused, ModelReply

FLEX_ATTEMPT_S = 1200.0
"""By its description, flex answers within 1 to 15 minutes."""


class GeminiModel:
    """A Gemini model as a `TextModel`."""

    kind: ClassVar[str] = "gemini"
    """How a user names the service."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        service: Service = "standard",
        concurrency: int = 16,
        retry: RetryPolicy | None = None,
        sleep: Sleep = asyncio.sleep,
        insecure_http: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Set up the client; nothing is sent.

        Args:
            name: model name, with or without `models/`.
            base_url: another endpoint; None reads GOOGLE_GEMINI_BASE_URL, else Google's own.
            service: `standard`, or `flex` (half the price, minutes instead of seconds).
            concurrency: requests in flight at once, at least 1.
            retry: bounds of the retries; None for the service's defaults.
            sleep: waits between attempts.
            insecure_http: whether the key may go over plain http to another machine.
            environ: environment variables with key and base URL.

        Raises:
            InputError: no key, a base URL that cannot be used, or an unknown service.
        """
        if service not in ("standard", "flex"):
            raise InputError(
                f'The service "{service}" is not available for single calls.',
                remedy="use standard or flex",
            )
        self.name = name.removeprefix("models/")
        self._service: Service = service
        self._concurrency = max(1, concurrency)
        self.environ = environ
        self.closing: list[Callable[[], Awaitable[None]]] = []
        """Closes what shares the model's life, such as a connection to Cloud Storage."""
        self.today: Callable[[], date] = date.today
        """The day whose prices apply."""
        policy = retry or _default_policy(service)
        self._retrier = Retrier(policy, Pace(self._concurrency, sleep=sleep), sleep=sleep)
        self._client = GeminiClient(
            self._access(base_url, environ, insecure_http=insecure_http),
            attempt_s=policy.attempt_s,
            connections=self._concurrency,
        )
        self.uploads = self._uploads()
        """Images that are too large to send inline."""

    def _access(
        self, base_url: str | None, environ: Mapping[str, str], *, insecure_http: bool
    ) -> Access:
        return developer_access(self.spec, base_url, environ, insecure_http=insecure_http)

    def _uploads(self) -> ImageUploads:
        return ImageUploads(self._client)

    @property
    def spec(self) -> str:
        """The model as the user named it."""
        return f"{self.kind}:{self.name}"

    @property
    def service_name(self) -> str:
        """Where texts go."""
        return f"the Gemini API ({self._client.server.host})"

    @property
    def ledger_name(self) -> str | None:
        """Service and region, kept with every reply; None for the Gemini API."""
        return None

    @property
    def hosted(self) -> bool:
        """Always True: texts are sent to Google, or to the base URL."""
        return True

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight at once."""
        return self._concurrency

    @property
    def service(self) -> Service:
        """The service tier that is requested and paid."""
        return self._service

    @property
    def client(self) -> GeminiClient:
        """The connection, for other calls than `generate`."""
        return self._client

    @property
    def pace(self) -> Pace:
        """Limits the calls in flight."""
        return self._retrier.pace

    @property
    def retries(self) -> int:
        """Retries so far."""
        return self._retrier.retries

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request, after bounded retries; see `TextModel.generate`.

        If the service cannot read an image, this request alone raises ModelUnavailable.
        """
        self._refuse_prefix(request)

        async def attempt() -> tuple[str, WireReply]:
            body = await self._send(request)
            with one_reply(self.spec):
                return body, wire_format.read_body(body)

        try:
            body, wire = await self._retrier.run(attempt, subject=self.spec)
        except RequestTooLong as error:
            return over_length_reply(self.spec, str(error))
        except ModelRefused as refusal:
            unreadable = about_an_image(request, refusal)
            if unreadable is None:
                raise
            raise unreadable from refusal
        return self.reply_of(body, wire, self._service)

    def reply_of(self, body: str, wire: WireReply, service: Service) -> ModelReply:
        """The reply in a body, at today's price of the service; without token counts, no price."""
        billed = wire.resolved_model or self.name
        usd = cost(wire.usage, billed, service, on=self.today()) if wire.is_counted else None
        return ModelReply(
            text=wire.text,
            finish_reason=wire.finish_reason,
            model=self.spec,
            resolved_model=wire.resolved_model,
            usage=wire.usage,
            usd=usd,
            prices_as_of=None if usd is None else PRICES_AS_OF.isoformat(),
            raw=body,
            server=self.ledger_name,
        )

    def rest_body(self, request: GenerationRequest, uris: Uris) -> dict[str, Any]:
        """The body of a generateContent call as plain JSON, as used in a row of a batch file.

        Args:
            request: the request.
            uris: URIs of uploaded images by hash (`ImageUploads.uris`).

        Raises:
            ModelRefused: it ends with an assistant turn.
        """
        self._refuse_prefix(request)
        return wire_format.request_body(request, uris, model=self.name)

    def _refuse_prefix(self, request: GenerationRequest) -> None:
        if request.messages[-1].role == "assistant":
            raise ModelRefused(
                f'"{self.spec}" does not continue an assistant turn.',
                remedy="put the prefix in a user turn",
            )

    async def aclose(self) -> None:
        """Release connections."""
        for close in self.closing:
            await close()
        await self._client.aclose()

    async def _send(self, request: GenerationRequest) -> str:
        """One HTTP exchange, after the uploads that it needs."""
        uris = await self.uploads.uris(request)
        body = wire_format.request_body(request, uris, model=self.name)
        if self._service == "flex":
            body["serviceTier"] = "flex"
        with self._client.translated(), self.uploads.in_use(uris):
            response = await self._client.api.models.generate_content(
                model=self.name, contents=_NO_CONTENTS, config=_CONFIG.with_body(body)
            )
        http = response.sdk_http_response
        return self._client.subject.redacted((http.body if http else None) or "")


class _Config(types.GenerateContentConfig):
    """The SDK's config, immutable, so that its copies are the config itself."""

    def __contains__(self, _name: object) -> bool:
        """Always False, fast.

        The SDK checks it for every field, and pydantic would iterate over all fields: a tenth of
        the client's work.
        """
        return False

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        return self

    def with_body(self, body: dict[str, Any]) -> Self:
        """A config that sends this body (`HttpOptions.extra_body`) instead of the SDK's own.

        The SDK would turn every text into an object, validate it, copy it and serialize it again,
        which takes as long as the rest of a call.
        """
        options = _OPTIONS.model_copy(update={"extra_body": body})
        return super().model_copy(update={"http_options": options})


_CONFIG = _Config(
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    should_return_http_response=True,
)
_OPTIONS = types.HttpOptions()
_NO_CONTENTS = types.Content(role="user", parts=[])
"""Required by the SDK and replaced by our body; the service refuses it if it is ever sent."""


def _default_policy(service: Service) -> RetryPolicy:
    if service == "flex":  # 503 and 429 are common
        return RetryPolicy(attempts=10, total_s=3 * FLEX_ATTEMPT_S, attempt_s=FLEX_ATTEMPT_S)
    return RetryPolicy()
