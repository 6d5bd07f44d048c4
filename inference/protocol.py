"""The protocol of text models: one request in, one reply out; and the key of a request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from traces import ModelError, ModelReply, StoredCall, Usage

if TYPE_CHECKING:
    from formats import EncodedImage


Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    text: str
    """The text. A final assistant turn is a prefix to continue."""
    images: tuple[EncodedImage, ...] = ()
    """Images shown before the text of a user turn: services get each after a line "Image 1:" and
    so on, a local model as its template has it. Compared by their hashes."""

    def __post_init__(self) -> None:
        """Refuse images of a system or assistant turn, which no service takes.

        Raises:
            ValueError: there are such images.
        """
        if self.images and self.role != "user":
            raise ValueError(f"a {self.role} turn shows no images")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to a text model; its content is the key in the response store."""

    messages: tuple[Message, ...]
    """The conversation so far."""
    max_tokens: int
    """Token limit of the reply, including thinking."""
    temperature: float | None = None
    """Sampling temperature; None uses the service's default (Gemini 3.x ignores it)."""
    top_p: float | None = None
    """Nucleus sampling; None uses the default."""
    stop: tuple[str, ...] = ()
    """Stop strings; servers differ in whether they keep them in the text."""
    seed: int | None = None
    """Sampling seed, where the service accepts one."""
    response_json_schema: Mapping[str, Any] | None = None
    """JSON schema the reply must follow; None for free text."""
    sample_index: int = 0
    """0-based number among equal requests; part of the key, so that samples differ."""
    logprobs: int = 0
    """Candidates of each token whose log-probabilities are asked for, at most 20; they are in the
    reply's `raw` body, in the form of OpenAI's API. 0 asks for none."""
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The purpose of the call (trace id, step, vote); stored with it, not part of the key."""


class TextModel(Protocol):
    """A language model that answers requests."""

    @property
    def spec(self) -> str:
        """The model as the user named it, e.g. `gemini:gemini-3.5-flash-lite`."""

    @property
    def hosted(self) -> bool:
        """Whether texts leave this machine (Gemini, a remote server)."""

    @property
    def concurrency(self) -> int:
        """Maximum number of requests in flight, at least 1."""

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request, after bounded retries.

        Raises:
            ModelUnavailable: overload, timeout or connection failure outlasted the retries.
            ModelRefused: key, model or request refused.
            QuotaExhausted: the daily quota is used up.
        """

    async def aclose(self) -> None:
        """Release connections."""


class ResponseStore(Protocol):
    """Stores paid replies by content address. `put` returns only when the reply is durable."""

    def get(self, key: str) -> ModelReply | None:
        """The reply recorded under `key`; None if there is none."""

    def put(self, call: StoredCall) -> None:
        """Record a reply durably; a second `put` of the same key is a no-op."""


class Runner(Protocol):
    """What the stages need of a `Dispatcher`; a batch runner and a dry run are runners too."""

    @property
    def model(self) -> TextModel:
        """The model that answers."""

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, ModelReply | ModelError]]:
        """Answer requests in any order, each recorded before it is yielded."""


KEY_VERSION = 1
"""Part of every key; increase it if a code change makes equal requests differ in meaning."""


@runtime_checkable
class Renders(Protocol):
    """A model that may render a conversation itself instead of leaving that to its server."""

    def rendered(self, request: GenerationRequest) -> str | None:
        """The prompt sent instead of the messages; None if the messages themselves are sent."""


def options_of(model: TextModel) -> Mapping[str, Any]:
    """The fields that a model adds to every request, such as `reasoning_effort`."""
    options: Mapping[str, Any] = getattr(model, "options", {})
    return options


def key_for(model: TextModel, request: GenerationRequest) -> str:
    """The key of a request to a model, with the prompt and the fields that the model adds to it.

    The same messages rendered by a user's template are a different request from the messages that
    a server renders itself.
    """
    prompt = model.rendered(request) if isinstance(model, Renders) else None
    return request_key(model.spec, request, prompt=prompt, options=options_of(model))


def request_key(
    spec: str,
    request: GenerationRequest,
    *,
    prompt: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """The key of a request: equal iff model and content are equal; the meta does not count.

    The order within the response schema counts, because the model writes its fields in that
    order. The service tier does not: the same model answers, only slower or cheaper.

    Args:
        spec: the model as the user named it.
        request: the request.
        prompt: what is sent instead of the messages; None for the messages themselves.
        options: fields that the model adds to the request.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    asked = {"version": KEY_VERSION, "model": spec, **request_content(request)}
    if prompt is not None:  # keys without a prompt stay what they were
        asked["prompt"] = prompt
    if options:
        asked["options"] = dict(sorted(options.items()))
    text = json.dumps(asked, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def request_content(request: GenerationRequest) -> dict[str, Any]:
    """Everything in a request that can change its reply, as plain JSON values in a fixed order.

    An image counts by its hash, not by its path or how its bytes are sent.
    """
    return _content(request, lambda image: [image.mime, image.sha256])


def request_text(request: GenerationRequest, options: Mapping[str, Any] | None = None) -> str:
    """The request, with the fields that the model adds, as readable JSON text for the ledger.

    Images are listed by type, hash and path; their bytes are never stored.
    """
    content = _content(
        request,
        lambda image: {"mime": image.mime, "sha256": image.sha256, "path": image.path},
    )
    if options:
        content["options"] = dict(options)
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def text_for(model: TextModel, request: GenerationRequest) -> str:
    """The request to a model as `request_text`, with the fields that the model adds."""
    return request_text(request, options_of(model))


def _content(request: GenerationRequest, named: Callable[[EncodedImage], Any]) -> dict[str, Any]:
    # Keys of requests without log-probabilities stay what they were.
    listed = {"logprobs": request.logprobs} if request.logprobs else {}
    return {
        **listed,
        "messages": [_turn(message, named) for message in request.messages],
        "max_tokens": request.max_tokens,
        # 0 and 0.0 are the same temperature, but different JSON.
        "temperature": None if request.temperature is None else float(request.temperature),
        "top_p": None if request.top_p is None else float(request.top_p),
        "stop": list(request.stop),
        "seed": request.seed,
        "response_json_schema": request.response_json_schema,
        "sample_index": request.sample_index,
    }


def _turn(message: Message, named: Callable[[EncodedImage], Any]) -> list[Any]:
    """A turn; without images a pair, as in keys older than images."""
    turn: list[Any] = [message.role, message.text]
    return [*turn, [named(image) for image in message.images]] if message.images else turn


OVER_LENGTH = "over_length"
"""Finish reason of a request whose prompt does not fit in the model's window."""


def over_length_reply(spec: str, detail: str) -> ModelReply:
    """The record of a prompt that the service refused because of its length; costs nothing.

    It concerns one request, not the run. Because it is recorded, the request is not sent again, and
    the caller turns it into the abstention `over_length`.
    """
    return ModelReply(
        text=None,
        finish_reason=OVER_LENGTH,
        model=spec,
        resolved_model=None,
        usd=0.0,
        raw=detail,
    )


@dataclass(frozen=True, slots=True)
class WireReply:
    """The content of a 200 body of any service, before it becomes a `ModelReply`."""

    text: str | None
    """The text without thinking; None if there is none."""
    finish_reason: str
    """`stop`, `length`, `blocked`, `empty` (no candidate), or the service's word in lower case."""
    resolved_model: str | None
    """The model version that the service reports; None if it reports none."""
    usage: Usage
    """Tokens as billed."""

    @property
    def is_counted(self) -> bool:
        """Whether the service reported token counts with its text; some proxies drop them."""
        return self.text is None or self.usage.input_tokens > 0
