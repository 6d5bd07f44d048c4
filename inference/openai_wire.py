"""The JSON that OpenAI-compatible servers speak, chat and completions alike.

    {"model": "..", "choices": [{"message": {"content": ".."}, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 9, "completion_tokens": 3,
               "prompt_tokens_details": {"cached_tokens": 0},
               "completion_tokens_details": {"reasoning_tokens": 0}}}

A completions choice holds `text` instead of `message`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inference.faults import TransientFault
from inference.images import message_parts
from inference.protocol import Message
from inference.wire_json import first_object, mapping, read_object, text_of, token_count
from inference.wire_reply import WireReply
from traces.records import Usage

if TYPE_CHECKING:
    from formats.images import EncodedImage

_FINISH = {"stop": "stop", "eos": "stop", "length": "length", "content_filter": "blocked"}


def read_body(body: str) -> WireReply:
    """Read a 200 body.

    Raises:
        TransientFault: not a JSON object, one without choices and usage, or with counts of tokens
            that count nothing.
    """
    reply = read_object(body)
    choice = first_object(reply.get("choices"))
    counts = mapping(reply.get("usage"))
    if choice is None and not counts:
        raise TransientFault("the reply holds neither a choice nor a usage count")
    said, finish = (None, "empty") if choice is None else _first(choice)
    return WireReply(said, finish, text_of(reply.get("model")), _usage(counts))


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation for /chat/completions; a turn with images is a list of parts, with data URIs."""
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
    """The text of a reply; some servers give it as a list of parts, thoughts among them."""
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

    transformers serve leaves the stop string in the text, other servers take it out.

    >>> cut_at_stop("one.\\ntwo", ("\\n",))
    ('one.', True)
    """
    found = [text.find(mark) for mark in stop if mark and mark in text] if text else []
    return (text, False) if text is None or not found else (text[: min(found)], True)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The `response_format` option that asks for JSON of this schema.

    Not strict: OpenAI's strict mode accepts a subset of JSON schema only, and every reply is
    checked on our side anyway.
    """
    return {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": dict(schema), "strict": False},
    }
