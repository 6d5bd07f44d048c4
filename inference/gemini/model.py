"""Gemini through google-genai: what is asked of a model and what comes back.

The connection and its errors are `gemini_client`'s; the raw body is read by `gemini_wire`.

The four adjustable safety filters are switched off: clinical text (doses, self-harm, abuse,
anatomy) trips them, and a verdict that a filter swallowed is a hole in the data. What Gemini
blocks all the same comes back as the finish reason `blocked` and becomes an abstention.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Self

from google.genai import types

from inference.gemini import client as gemini_wire
from inference.gemini.client import GeminiClient, Uris
from inference.gemini.images import ImageUploads
from inference.images import about_an_image
from inference.prices import PRICES_AS_OF, Service, cost
from inference.protocol import GenerationRequest, WireReply, over_length_reply
from inference.retries import Pace, RequestTooLong, Retrier, RetryPolicy, Sleep
from traces import InputError, ModelRefused, ModelReply

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
        policy = retry or _default_policy(service)
        self._retrier = Retrier(policy, Pace(self._concurrency, sleep=sleep), sleep=sleep)
        self._client = GeminiClient(
            self.spec,
            base_url=base_url,
            attempt_s=policy.attempt_s,
            connections=self._concurrency,
            environ=environ,
        )
        self.uploads = ImageUploads(self._client)
        """The images that are too large to travel in a request."""

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
    def client(self) -> GeminiClient:
        """The connection, for what is no single call."""
        return self._client

    @property
    def pace(self) -> Pace:
        """How many calls it lets onto the wire now."""
        return self._retrier.pace

    @property
    def retries(self) -> int:
        """Attempts after a first one, so far."""
        return self._retrier.retries

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request, after bounded retries; see `TextModel.generate`.

        An image that the service cannot read is a ModelUnavailable of this request alone.
        """
        self._refuse_prefix(request)

        async def attempt() -> tuple[str, WireReply]:
            body = await self._send(request)
            return body, gemini_wire.read_body(body)

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
        """The reply in a body, at today's price of the service that brought it; without counts, none."""
        billed = wire.resolved_model or self.name
        usd = cost(wire.usage, billed, service, on=self._today()) if wire.is_counted else None
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

    def rest_body(self, request: GenerationRequest, uris: Uris) -> dict[str, Any]:
        """The body of a generateContent call as plain JSON, as a row of a batch file holds it.

        Args:
            request: what is asked.
            uris: of the images that were uploaded, by hash (`ImageUploads.uris`).

        Raises:
            ModelRefused: it ends with an assistant turn.
        """
        self._refuse_prefix(request)
        return gemini_wire.request_body(request, uris, model=self.name)

    def _refuse_prefix(self, request: GenerationRequest) -> None:
        if request.messages[-1].role == "assistant":
            raise ModelRefused(
                f'"{self.spec}" does not continue an assistant turn.',
                remedy="put the prefix into a user turn",
            )

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.aclose()

    async def _send(self, request: GenerationRequest) -> str:
        """One HTTP exchange, behind the uploads that it needs."""
        uris = await self.uploads.uris(request)
        body = gemini_wire.request_body(request, uris, model=self.name)
        if self._service == "flex":
            body["serviceTier"] = "flex"
        with self._client.translated(), self.uploads.in_use(uris):
            response = await self._client.api.models.generate_content(
                model=self.name, contents=_NO_CONTENTS, config=_CONFIG.with_body(body)
            )
        http = response.sdk_http_response
        return (http.body if http else None) or ""


class _Config(types.GenerateContentConfig):
    """The SDK's config, of which nobody changes anything: its copies are the config itself."""

    def __contains__(self, _name: object) -> bool:
        """Answer `name in config` at once.

        The SDK asks it for every field, and pydantic would go through all fields to say no: a
        tenth of the client's work.
        """
        return False

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        return self

    def with_body(self, body: dict[str, Any]) -> Self:
        """Another one, that sends this body (`HttpOptions.extra_body`) in place of the SDK's own.

        The SDK would turn every text into an object, check it, copy it and turn it into JSON
        again, which takes as long as all the rest of a call.
        """
        options = _OPTIONS.model_copy(update={"extra_body": body})
        return super().model_copy(update={"http_options": options})


_CONFIG = _Config(
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    should_return_http_response=True,
)
_OPTIONS = types.HttpOptions()
_NO_CONTENTS = types.Content(role="user", parts=[])
"""What the SDK asks for and our body replaces; the service refuses it, should it ever be sent."""


def _default_policy(service: Service) -> RetryPolicy:
    if service == "flex":  # sheddable: 503 and 429 are to be expected
        return RetryPolicy(attempts=10, total_s=3 * FLEX_ATTEMPT_S, attempt_s=FLEX_ATTEMPT_S)
    return RetryPolicy()
