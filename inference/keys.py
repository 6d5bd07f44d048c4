"""The content address of a request: what it is stored under, and found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from inference.protocol import GenerationRequest, Message, TextModel

if TYPE_CHECKING:
    from formats.images import EncodedImage

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
