"""Any OpenAI-compatible server through the openai client; the only file that imports it.

Servers differ more than the shared name suggests, so this back end assumes little: one request per
continuation (some ignore `n`), stop strings are cut here too (some keep them), and a server that
does not know `response_format` is asked again without it.

A request that ends with an assistant turn is a prefix to continue. With a chat template it is
rendered here, verbatim, and sent to /completions. Without one it is sent to /chat/completions with
the two flags that vLLM and llama.cpp understand. llama.cpp returns the prefix before the new text;
transformers serve refuses the flags and needs the template.

Any gateway may have written a body, and no body may end a run as a defect: fields of another shape
than the service describes count as absent, so that what was paid for is still recorded.

    {"model": "..", "choices": [{"message": {"content": ".."}, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 9, "completion_tokens": 3,
               "prompt_tokens_details": {"cached_tokens": 0},
               "completion_tokens_details": {"reasoning_tokens": 0}}}

A choice of /completions has `text` instead of `message`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import openai

from inference.destinations import Destination, Redirected
from inference.images import about_an_image, has_images, message_parts
from inference.prices import PRICES_AS_OF, cost
from inference.protocol import GenerationRequest, Message, WireReply, over_length_reply
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
)
from inference.specs import OPENAI_BASE_URL_VARIABLE as BASE_URL_VARIABLE
from inference.specs import OPENAI_KEY_VARIABLE as KEY_VARIABLE
from traces import InputError, ModelRefused, ModelReply, Usage

if TYPE_CHECKING:
    from formats import EncodedImage


_MOST_TOKENS = 10**12
"""Upper bound of a token count: a database cannot store every number that JSON can."""


def read_object(body: str, *, called: str = "the reply") -> dict[str, Any]:
    """The JSON object in a 200 body; `called` names it in messages.

    Raises:
        TransientFault: it is not one (empty, truncated, nested too deeply, a gateway's HTML page).
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        start = " ".join(body[:60].split())
        why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise TransientFault(f'{called} is not JSON ("{start}"): {why}') from error
    if not isinstance(reply, dict):
        raise TransientFault(f"{called} is not a JSON object")
    return reply


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty object."""
    return value if isinstance(value, Mapping) else {}


def first_object(value: Any) -> Mapping[str, Any] | None:
    """The first object of a list; None for an absent or empty list, else an empty object."""
    if value is None or value == []:
        return None
    return mapping(value[0] if isinstance(value, list) else None)


def text_of(value: Any) -> str | None:
    """The value if it is a string, else None."""
    return value if isinstance(value, str) else None


def token_count(value: Any) -> int:
    """A token count; 0 if absent.

    Raises:
        TransientFault: not a whole number from 0 up, so that the cost is unknown.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
        raise TransientFault(f"the reply has the token count {str(value)[:40]!r}")
    return value


_FINISH = {"stop": "stop", "eos": "stop", "length": "length", "content_filter": "blocked"}


def read_body(body: str) -> WireReply:
    """Read a 200 body.

    Raises:
        TransientFault: not a JSON object, one without choices and usage, or invalid token counts.
    """
    reply = read_object(body)
    choice = first_object(reply.get("choices"))
    counts = mapping(reply.get("usage"))
    if choice is None and not counts:
        raise TransientFault("the reply has neither a choice nor a usage count")
    said, finish = (None, "empty") if choice is None else _first(choice)
    return WireReply(said, finish, text_of(reply.get("model")), _usage(counts))


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation for /chat/completions; a turn with images is a list with data URIs."""
    return [{"role": message.role, "content": _content(message)} for message in messages]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.text
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_uri(part)}}
        for part in message_parts(message)
    ]


def _data_uri(image: EncodedImage) -> str:
    return f"data:{image.mime};base64,{base64.b64encode(image.data).decode('ascii')}"


def _first(choice: Mapping[str, Any]) -> tuple[str | None, str]:
    message = mapping(choice.get("message"))
    if message.get("refusal"):
        return None, "blocked"
    said = _said(choice["text"] if "text" in choice else message.get("content"))
    reason = choice.get("finish_reason")
    return said, "unknown" if reason is None else _FINISH.get(str(reason), str(reason).lower())


def _said(content: Any) -> str | None:
    """The text of a reply; some servers return a list of parts, including thinking."""
    if not isinstance(content, list):
        return text_of(content)
    texts = [
        text_of(part.get("text")) for part in map(mapping, content) if part.get("type") == "text"
    ]
    return "".join(each for each in texts if each is not None) if texts else None


def _usage(counts: Mapping[str, Any]) -> Usage:
    written = token_count(counts.get("completion_tokens"))
    of_them = mapping(counts.get("completion_tokens_details"))
    thinking = token_count(of_them.get("reasoning_tokens"))
    read = mapping(counts.get("prompt_tokens_details"))
    return Usage(
        input_tokens=token_count(counts.get("prompt_tokens")),
        cached_tokens=token_count(read.get("cached_tokens")),
        output_tokens=max(0, written - thinking),
        thinking_tokens=thinking,
    )


def cut_at_stop(text: str | None, stop: Sequence[str]) -> tuple[str | None, bool]:
    """The text up to the first stop string, and whether one was found.

    transformers serve keeps the stop string in the text, other servers remove it.

    >>> cut_at_stop("one.\\ntwo", ("\\n",))
    ('one.', True)
    """
    found = [text.find(mark) for mark in stop if mark and mark in text] if text else []
    return (text, False) if text is None or not found else (text[: min(found)], True)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The `response_format` option that asks for JSON of this schema.

    Not strict: OpenAI's strict mode accepts only a subset of JSON schema, and every reply is
    checked here anyway.
    """
    return {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": dict(schema), "strict": False},
    }


DEFAULT_BASE_URL = "https://api.openai.com/v1"
Template = Callable[[Sequence[Message]], str]
"""Renders a conversation to the text that a model reads; a final assistant turn stays open."""


class OpenAIModel:
    """A model on an OpenAI-compatible server as a `TextModel`."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        template: Template | None = None,
        concurrency: int = 8,
        retry: RetryPolicy | None = None,
        sleep: Sleep = asyncio.sleep,
        insecure_http: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Set up the client; nothing is sent.

        Args:
            name: the model's name as the server lists it.
            base_url: the server; None reads OPENAI_BASE_URL, else OpenAI's own.
            template: renders conversations for /completions; None uses /chat/completions.
            concurrency: requests in flight at once, at least 1.
            retry: bounds of the retries; None for the defaults.
            sleep: waits between attempts.
            insecure_http: whether a key may go over plain http to another machine.
            environ: environment variables with key and base URL.

        Raises:
            InputError: no key for OpenAI's own service, or a base URL that cannot be used.
        """
        self.name = name
        self._template = template
        self._concurrency = max(1, concurrency)
        self.server = Destination.chosen(
            base_url, variable=BASE_URL_VARIABLE, environ=environ, default=DEFAULT_BASE_URL
        )
        """The server that keys and texts go to."""
        key = environ.get(KEY_VARIABLE, "").strip()
        if not key and self.server.is_default:
            raise InputError(
                "No OpenAI key in the environment.",
                remedy=f"set {KEY_VARIABLE}, or {BASE_URL_VARIABLE} for a server without keys",
            )
        self.server.refuse_plain_http(key, key_variable=KEY_VARIABLE, allowed=insecure_http)
        self._subject = Subject(self.spec, KEY_VARIABLE, key)
        policy = retry or RetryPolicy()
        self._retrier = Retrier(policy, Pace(self._concurrency, sleep=sleep), sleep=sleep)
        self._schema_refused = False
        self._echoes_prefix = True  # until a reply shows that this server does not
        self._client = openai.AsyncOpenAI(
            # The client requires a key; a server without keys ignores it.
            api_key=key or "none",
            base_url=self.server.url,
            max_retries=0,
            timeout=policy.attempt_s,
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=policy.attempt_s,
                follow_redirects=False,
                event_hooks=self.server.hooks(self.spec),
                # A proxy would be another machine that receives the text.
                trust_env=not self.server.is_loopback,
            ),
        )

    @property
    def spec(self) -> str:
        """The model as the user named it."""
        return f"openai:{self.name}"

    @property
    def hosted(self) -> bool:
        """True unless the server runs on this machine."""
        return not self.server.is_loopback

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight at once."""
        return self._concurrency

    @property
    def pace(self) -> Pace:
        """Limits the calls in flight."""
        return self._retrier.pace

    @property
    def retries(self) -> int:
        """Retries so far."""
        return self._retrier.retries

    def rendered(self, request: GenerationRequest) -> str | None:
        """The rendered prefix; None for a request to /chat/completions."""
        if self._template is None or not _is_prefix(request):
            return None
        return self._template(request.messages)

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request, after bounded retries; see `TextModel.generate`.

        If the server cannot read an image, this request alone raises ModelUnavailable.
        """
        if self._template is not None and _is_prefix(request) and has_images(request):
            raise ModelRefused(
                f'"{self.spec}" is called through /completions, which takes no images.',
                remedy="leave --template out",
            )

        async def attempt() -> tuple[str, WireReply]:
            body = self._subject.redacted(await self._exchange(request))
            return body, read_body(body)

        try:
            body, wire = await self._retrier.run(attempt, subject=self.spec)
        except RequestTooLong as error:
            return over_length_reply(self.spec, str(error))
        except ModelRefused as refusal:
            unreadable = about_an_image(request, refusal)
            if unreadable is None:
                raise
            raise unreadable from refusal
        fresh = self._without_prefix(request, wire.text)
        text, was_cut = cut_at_stop(fresh, request.stop)
        billed = wire.resolved_model or self.name
        priced = cost(wire.usage, billed) if wire.is_counted else None
        usd = priced if self.hosted else 0.0
        return ModelReply(
            text=text,
            finish_reason="stop" if was_cut else wire.finish_reason,
            model=self.spec,
            resolved_model=wire.resolved_model,
            usage=wire.usage,
            usd=usd,
            prices_as_of=PRICES_AS_OF.isoformat() if self.hosted and usd is not None else None,
            raw=body,
        )

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.close()

    async def _exchange(self, request: GenerationRequest) -> str:
        """Send the request in a form that this server accepts."""
        if _is_prefix(request):
            return await self._continue(request)
        options = self._options(request, messages=turns(request.messages))
        if request.response_json_schema is None or self._schema_refused:
            return await self._post("/chat/completions", options)
        wanted = response_format(request.response_json_schema)
        try:
            return await self._post("/chat/completions", options | {"response_format": wanted})
        except ModelRefused as refusal:
            if not _is_about_fields(refusal):
                raise
        body = await self._post("/chat/completions", options)
        self._schema_refused = True
        return body

    async def _continue(self, request: GenerationRequest) -> str:
        """Send a request whose last turn is a prefix."""
        prompt = self.rendered(request)
        if prompt is not None:
            return await self._post("/completions", self._options(request, prompt=prompt))
        flags = {"add_generation_prompt": False, "continue_final_message": True}
        options = self._options(request, messages=turns(request.messages)) | flags
        try:
            return await self._post("/chat/completions", options)
        except ModelRefused as refusal:
            if not _is_about_fields(refusal):
                raise
            raise ModelRefused(
                f"{refusal.what} (asked to continue an assistant turn)",
                remedy="give the model's tokenizer folder with --template, so that the prefix can "
                "be sent to /completions",
            ) from refusal

    def _without_prefix(self, request: GenerationRequest, text: str | None) -> str | None:
        """The new text without the prefix, which some chat servers repeat before it."""
        if text is None or self._template is not None or not _is_prefix(request):
            return text
        prefix = request.messages[-1].text
        self._echoes_prefix = self._echoes_prefix and text.startswith(prefix)
        return text.removeprefix(prefix) if self._echoes_prefix else text

    def _options(self, request: GenerationRequest, **content: Any) -> dict[str, Any]:
        # OpenAI's own service refuses max_tokens for newer models; others know only max_tokens.
        own = self.server.is_default and "messages" in content
        options = {
            "model": self.name,
            **content,
            "max_completion_tokens" if own else "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop": list(request.stop) or None,
            "seed": request.seed,
            **_listed(request.logprobs, chat="messages" in content),
        }
        return {name: value for name, value in options.items() if value is not None}

    async def _post(self, path: str, options: Mapping[str, Any]) -> str:
        """One HTTP exchange; every third-party error is mapped here and nowhere else."""
        try:
            return await self._client.post(path, body=options, cast_to=str)
        except openai.APIStatusError as error:
            raise exception_for(_fault(error), self._subject) from error
        except openai.APITimeoutError as error:
            raise TransientFault("timeout while waiting for the reply") from error
        except openai.APIError as error:
            cause = error.__cause__
            if isinstance(cause, Redirected):
                raise cause from None
            raise TransientFault(f"connection failed: {cause or error}") from error
        except OSError as error:
            raise TransientFault(f"connection failed: {error}") from error


def _listed(candidates: int, *, chat: bool) -> dict[str, Any]:
    """The options that ask for log-probabilities; the two endpoints name them differently."""
    if not candidates:
        return {}
    return {"logprobs": True, "top_logprobs": candidates} if chat else {"logprobs": candidates}


def _is_prefix(request: GenerationRequest) -> bool:
    return request.messages[-1].role == "assistant"


def _is_about_fields(refusal: ModelRefused) -> bool:
    """Whether a field of the request may have been refused, rather than the key or the model."""
    cause = refusal.__cause__
    return isinstance(cause, openai.BadRequestError | openai.UnprocessableEntityError)


def _fault(error: openai.APIStatusError) -> HttpFault:
    return HttpFault(
        status=error.status_code,
        message=_server_message(error),
        headers={name.lower(): value for name, value in error.response.headers.items()},
        body=error.body,
    )


def _server_message(error: openai.APIStatusError) -> str:
    """The server's message: `message` (OpenAI's shape) or `detail` (FastAPI's), else the body."""
    body = error.body
    if isinstance(body, Mapping):
        for name in ("message", "detail"):
            if body.get(name):
                return str(body[name])
    return error.response.text or error.message
