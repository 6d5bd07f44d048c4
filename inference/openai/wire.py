"""The JSON of chat completions, read and written, and what single servers accept of it.

Any gateway may have written a body, and no body may end a run as a defect: fields of another shape
than the service describes count as absent, so that what was paid for is still recorded.

    {"model": "..", "choices": [{"message": {"content": "..", "reasoning_content": ".."},
                                 "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 9, "completion_tokens": 3,
               "prompt_tokens_details": {"cached_tokens": 0},
               "completion_tokens_details": {"reasoning_tokens": 0}}}

A choice of /completions has `text` instead of `message`. vLLM names the reasoning
`reasoning_content`, later `reasoning`; servers without a parser leave it in the content, between
`<think>` and `</think>`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inference.images import message_parts
from inference.protocol import GenerationRequest, Message, WireReply
from inference.retries import TransientFault
from traces import Usage

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
    said, thought, finish = (None, "", "empty") if choice is None else _first(choice)
    usage = _usage(counts, said or "", thought)
    return WireReply(said, finish, text_of(reply.get("model")), usage)


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


def _first(choice: Mapping[str, Any]) -> tuple[str | None, str, str]:
    """Text, reasoning and finish reason of a choice."""
    message = mapping(choice.get("message"))
    if message.get("refusal"):
        return None, "", "blocked"
    reason = choice.get("finish_reason")
    finish = "unknown" if reason is None else _FINISH.get(str(reason), str(reason).lower())
    if "text" in choice:
        return _parts_of(choice["text"], "text"), "", finish
    content = message.get("content")
    said = _parts_of(content, "text")
    thoughts = [
        text_of(message.get("reasoning_content")) or text_of(message.get("reasoning")),
        _parts_of(content, "thinking", "reasoning") if isinstance(content, list) else None,
    ]
    said, inline = without_thought(said)
    return said, "".join(filter(None, [*thoughts, inline])), finish


def _parts_of(content: Any, *kinds: str) -> str | None:
    """The text of a reply; some servers return a list of parts, including thinking."""
    if not isinstance(content, list):
        return text_of(content)
    texts = [
        text_of(part.get(kind) if kind in part else part.get("text"))
        for part in map(mapping, content)
        for kind in kinds
        if part.get("type") == kind
    ]
    return "".join(each for each in texts if each is not None) if texts else None


def without_thought(text: str | None) -> tuple[str | None, str]:
    """A reply without the thought before it, and that thought.

    The opening tag may be missing, because some templates put it into the prompt.

    >>> without_thought("<think>2+3</think>\\n5")
    ('5', '2+3')
    """
    if text is None:
        return None, ""
    start = text.lstrip()
    thought, closed, answer = start.partition("</think>")
    if closed and thought.count("<think>") <= start.startswith("<think>"):
        return answer.lstrip() or None, thought.removeprefix("<think>").strip()
    if start.startswith("<think>"):
        return None, thought.removeprefix("<think>")
    return text, ""


def _usage(counts: Mapping[str, Any], said: str, thought: str) -> Usage:
    written = token_count(counts.get("completion_tokens"))
    of_them = mapping(counts.get("completion_tokens_details"))
    thinking = token_count(of_them.get("reasoning_tokens"))
    if thought and not thinking:  # vLLM counts it with the text: share by characters
        thinking = round(written * len(thought) / (len(said) + len(thought)))
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


def chat_options(
    request: GenerationRequest, *, model: str, limit_named: str = "max_tokens", **content: Any
) -> dict[str, Any]:
    """The body of a call: `content` (messages, or a prompt) and what the request asks for.

    Args:
        request: the request.
        model: the model's name as the server lists it.
        limit_named: the name of the token limit.
        **content: the fields with the text.
    """
    options = {
        "model": model,
        **content,
        limit_named: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "seed": request.seed,
        **_listed(request.logprobs, chat="messages" in content),
    }
    return {name: value for name, value in options.items() if value is not None}


def _listed(candidates: int, *, chat: bool) -> dict[str, Any]:
    """The options that ask for log-probabilities; the two endpoints name them differently."""
    if not candidates:
        return {}
    return {"logprobs": True, "top_logprobs": candidates} if chat else {"logprobs": candidates}


_DROPPABLE = ("temperature", "top_p", "stop", "seed")
"""Fields without which a reply is still one: reasoning models accept their defaults only."""
_UNSUPPORTED = re.compile(
    r"unsupported|not support|only the default|not permitted|not allowed|unrecognized|unknown"
    r"|deprecated|extra inputs",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Dialect:
    """What a server was found to accept; what was changed once stays changed for the run."""

    renamed: dict[str, str] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)

    def fitted(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options as this server accepts them."""
        return {
            self.renamed.get(name, name): value
            for name, value in options.items()
            if name not in self.dropped
        }

    def learn(self, error: Mapping[str, Any], sent: Mapping[str, Any]) -> Iterator[str]:
        """Change what an error names; yield the change in words, also if it is known already.

        Args:
            error: `message` and, if the server names it, `param`.
            sent: the options that it is about.
        """
        said = str(error.get("message", ""))
        if "max_completion_tokens" in said and "max_tokens" in sent:
            self.renamed["max_tokens"] = "max_completion_tokens"
            yield "takes max_completion_tokens instead of max_tokens"
            return
        for name in _DROPPABLE:
            named = error.get("param") == name or re.search(rf"\b{name}\b", said)
            if name in sent and named and _UNSUPPORTED.search(f"{said} {error.get('code')}"):
                self.dropped.add(name)
                yield f"does not take {name}={sent[name]}: its own default is used"
