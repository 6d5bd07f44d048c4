"""What a text model is: one request in, one reply out. Every back end keeps this and nothing more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from traces import ModelError, ModelReply, StoredCall, Usage

if TYPE_CHECKING:
    from formats.files.images import EncodedImage


Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    """Who speaks."""
    text: str
    """What is said. An assistant turn that comes last is a prefix to be continued."""
    images: tuple[EncodedImage, ...] = ()
    """What a user turn shows before its text: to services each under a line "Image 1:" and so on, to a
    model on this machine as its template does. Equal by their hashes."""

    def __post_init__(self) -> None:
        """Refuse images where no service takes them.

        Raises:
            ValueError: images of a system or assistant turn, which would be lost on the way.
        """
        if self.images and self.role != "user":
            raise ValueError(f"a {self.role} turn shows no images")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to a text model. Frozen and hashable content: it is the key of the response store."""

    messages: tuple[Message, ...]
    """The conversation so far."""
    max_tokens: int
    """Limit of the reply, thinking included."""
    temperature: float | None = None
    """Sampling temperature; None leaves the service's default (Gemini 3.x ignores it)."""
    top_p: float | None = None
    """Nucleus; None leaves the default."""
    stop: tuple[str, ...] = ()
    """Stop strings; a server may or may not leave them in the text."""
    seed: int | None = None
    """Sampling seed where the service takes one."""
    response_json_schema: Mapping[str, Any] | None = None
    """JSON schema the reply must follow; None for free text."""
    sample_index: int = 0
    """0-based number of the sample among equal requests: part of the key, so that samples differ."""
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What the call is for (trace id, step, vote); stored with it, not part of the key."""


class TextModel(Protocol):
    """A language model that answers requests."""

    @property
    def spec(self) -> str:
        """The model as the user named it, e.g. `gemini:gemini-3.5-flash-lite`."""

    @property
    def hosted(self) -> bool:
        """True if texts leave this machine's control (Gemini, a remote server)."""

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight at once, at least 1."""

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request, after bounded retries.

        Raises:
            ModelUnavailable: overload, time-out or connection fault outlasted the retries.
            ModelRefused: key, model or request refused.
            QuotaExhausted: the day's quota is used up.
        """

    async def aclose(self) -> None:
        """Release connections."""


class ResponseStore(Protocol):
    """Where paid replies are kept, addressed by content. `put` returns only when it is durable."""

    def get(self, key: str) -> ModelReply | None:
        """The reply recorded under `key`; None if there is none."""

    def put(self, call: StoredCall) -> None:
        """Record a reply durably; a second put of the same key is a no-op."""


class Runner(Protocol):
    """What the stages need of a `Dispatcher`: a batch runner and a dry run are runners too."""

    @property
    def model(self) -> TextModel:
        """The model that answers."""

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, ModelReply | ModelError]]:
        """Answer requests in any order, each recorded before it is yielded."""


# --- The content address of a request: what it is stored under, and found again


KEY_VERSION = 1
"""Part of every key: to be raised when a change of ours makes equal requests differ in meaning."""


@runtime_checkable
class Renders(Protocol):
    """A model that may write a conversation out itself instead of leaving that to its server."""

    def rendered(self, request: GenerationRequest) -> str | None:
        """The prompt sent in place of the messages; None where the messages themselves are sent."""


def key_for(model: TextModel, request: GenerationRequest) -> str:
    """The key of a request to a model, the prompt included that the model makes of it.

    The same messages are another question when a template of the user's writes them out: what a
    server without one made of them is no answer to it.
    """
    prompt = model.rendered(request) if isinstance(model, Renders) else None
    return request_key(model.spec, request, prompt=prompt)


def request_key(spec: str, request: GenerationRequest, *, prompt: str | None = None) -> str:
    """The key of a request: equal exactly if model and content are equal, the meta left out.

    The order inside the response schema counts, because the model writes its fields in that
    order. The service tier does not: the same model answers, only slower or cheaper.

    Args:
        spec: the model as the user named it.
        request: what is asked.
        prompt: what is sent in place of the messages; None for the messages themselves.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    asked = {"version": KEY_VERSION, "model": spec, **request_content(request)}
    if prompt is not None:  # keys of before there were prompts stay as they are
        asked["prompt"] = prompt
    text = json.dumps(asked, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def request_content(request: GenerationRequest) -> dict[str, Any]:
    """Everything of a request that can change its reply, as plain JSON values in a fixed order.

    An image counts by its hash: not by its path, nor by how its bytes travel.
    """
    return _content(request, lambda image: [image.mime, image.sha256])


def request_text(request: GenerationRequest) -> str:
    """The request as JSON text for the ledger: the prompt really sent, readable.

    Images are named by type, hash and path; their bytes are never stored.
    """
    content = _content(
        request,
        lambda image: {"mime": image.mime, "sha256": image.sha256, "path": image.path},
    )
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def _content(request: GenerationRequest, named: Callable[[EncodedImage], Any]) -> dict[str, Any]:
    return {
        "messages": [_turn(message, named) for message in request.messages],
        "max_tokens": request.max_tokens,
        # 0 and 0.0 are one temperature, but two JSON texts
        "temperature": None if request.temperature is None else float(request.temperature),
        "top_p": None if request.top_p is None else float(request.top_p),
        "stop": list(request.stop),
        "seed": request.seed,
        "response_json_schema": request.response_json_schema,
        "sample_index": request.sample_index,
    }


def _turn(message: Message, named: Callable[[EncodedImage], Any]) -> list[Any]:
    """A turn; one without images stays the pair that it was before there were any."""
    turn: list[Any] = [message.role, message.text]
    return [*turn, [named(image) for image in message.images]] if message.images else turn


# --- Replies that no model wrote, but that are facts worth recording


OVER_LENGTH = "over_length"
"""Finish reason of a request whose prompt does not fit into the model's window."""


def over_length_reply(spec: str, detail: str) -> ModelReply:
    """The record of a prompt that the service refused because of its length; costs nothing.

    It is a fact about one request, not about the run: recorded, it is not sent again, and the
    caller turns it into the abstention `over_length`.
    """
    return ModelReply(
        text=None,
        finish_reason=OVER_LENGTH,
        model=spec,
        resolved_model=None,
        usd=0.0,
        raw=detail,
    )


# --- What a 200 body of any service says, before it becomes a `ModelReply`


@dataclass(frozen=True, slots=True)
class WireReply:
    """What a reply body says."""

    text: str | None
    """The answer without thoughts; None if there is none."""
    finish_reason: str
    """`stop`, `length`, `blocked`, `empty` (no candidate at all), or the service's word in lower case."""
    resolved_model: str | None
    """The model version as the service names it; None if it does not."""
    usage: Usage
    """Tokens as billed."""

    @property
    def is_counted(self) -> bool:
        """Whether the service said what it bills: no text comes from nothing, some proxies drop the counts."""
        return self.text is None or self.usage.input_tokens > 0
