"""The JSON that Gemini's generateContent speaks, read and written without the SDK's types.

Reading the raw body ourselves keeps it to the letter for the audit, and a finish reason that
Google adds next month is only a new word. Shapes as served by v1beta:

    {"candidates": [{"content": {"parts": [{"text": ".."}]}, "finishReason": "STOP"}],
     "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20,
                       "thoughtsTokenCount": 5, "cachedContentTokenCount": 64},
     "modelVersion": ".."}
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from inference.faults import TransientFault
from inference.images import message_parts
from inference.protocol import GenerationRequest, Message
from inference.wire_json import first_object, mapping, read_object, text_of, token_count
from inference.wire_reply import WireReply
from traces.records import Usage

BLOCKED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "ESCALATION",
        "MODEL_ARMOR",
    }
)
"""Finish reasons that mean: the service would not say it. OTHER is one of them in practice."""

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}

# these four are all that can be adjusted; CIVIC_INTEGRITY is retired, the rest is image or Vertex
ADJUSTABLE_HARMS = (
    "HARM_CATEGORY_HARASSMENT",
    "HARM_CATEGORY_HATE_SPEECH",
    "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "HARM_CATEGORY_DANGEROUS_CONTENT",
)

_SAFETY_OFF = [{"category": harm, "threshold": "OFF"} for harm in ADJUSTABLE_HARMS]


Uris = Mapping[str, str]
"""URIs of uploaded images by their hash."""


def read_body(body: str) -> WireReply:
    """Read a 200 body.

    Raises:
        TransientFault: not a JSON object (empty, cut, an HTML page of some gateway), or an
            object with nothing in it: nothing was paid for, the same request may succeed. Also
            counts of tokens that count nothing.
    """
    reply = read_object(body)
    candidate = first_object(reply.get("candidates"))
    block_reason = mapping(reply.get("promptFeedback")).get("blockReason")
    usage = mapping(reply.get("usageMetadata"))
    if candidate is None and not block_reason and not usage:
        raise TransientFault("the reply holds neither a candidate nor a usage count")
    if candidate is not None:
        said, finish = _text(candidate), _finish(candidate.get("finishReason"))
    else:
        said, finish = None, "blocked" if block_reason else "empty"
    return WireReply(said, finish, text_of(reply.get("modelVersion")), _usage(usage))


def request_body(request: GenerationRequest, uris: Uris, *, model: str) -> dict[str, Any]:
    """The body that asks for a request, the same for a single call and a row of a batch file.

    The schema goes out to the letter: the order of its fields counts.

    Args:
        request: what is asked.
        uris: of the images that were uploaded, by hash (`ImageUploads.uris`).
        model: the model's name: which sampling knobs it takes follows from it.
    """
    system = [message.text for message in request.messages if message.role == "system"]
    body: dict[str, Any] = {
        "contents": [
            {"parts": _parts(message, uris), "role": _role(message)}
            for message in request.messages
            if message.role != "system"
        ],
        "safetySettings": _SAFETY_OFF,
        "generationConfig": _generation_config(request, takes_sampling_knobs(model)),
    }
    if any(system):
        body["systemInstruction"] = {"parts": [{"text": "\n\n".join(system)}], "role": "user"}
    return body


def _parts(message: Message, uris: Uris) -> list[dict[str, Any]]:
    """The parts of a turn as plain JSON."""
    parts: list[dict[str, Any]] = []
    for part in message_parts(message):
        if isinstance(part, str):
            parts.append({"text": part})
        elif part.sha256 in uris:
            parts.append({"fileData": {"fileUri": uris[part.sha256], "mimeType": part.mime}})
        else:
            content = base64.b64encode(part.data).decode("ascii")
            parts.append({"inlineData": {"mimeType": part.mime, "data": content}})
    return parts


def _generation_config(request: GenerationRequest, knobs: bool) -> dict[str, Any]:
    schema = request.response_json_schema
    wanted = {
        "maxOutputTokens": request.max_tokens,
        "temperature": request.temperature if knobs else None,
        "topP": request.top_p if knobs else None,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "responseMimeType": None if schema is None else "application/json",
        "responseJsonSchema": schema,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _role(message: Message) -> str:
    return "model" if message.role == "assistant" else "user"


def _text(candidate: Mapping[str, Any]) -> str | None:
    parts = mapping(candidate.get("content")).get("parts")
    shown = [mapping(part) for part in parts] if isinstance(parts, list) else []
    said = [text_of(part.get("text")) for part in shown if not part.get("thought")]
    texts = [each for each in said if each is not None]
    return "".join(texts) if texts else None


def _finish(reason: Any) -> str:
    if reason is None:
        return "unknown"
    word = str(reason)
    return "blocked" if word in BLOCKED else _FINISH.get(word, word.lower())


def _usage(counts: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=token_count(counts.get("promptTokenCount")),
        cached_tokens=token_count(counts.get("cachedContentTokenCount")),
        output_tokens=token_count(counts.get("candidatesTokenCount")),
        thinking_tokens=token_count(counts.get("thoughtsTokenCount")),
    )


def takes_sampling_knobs(model: str) -> bool:
    """Whether the model still takes temperature and top_p: Gemini 3 and later do not."""
    match = re.match(r"(?:models/)?gemini-(\d+)", model)
    return match is None or int(match.group(1)) < 3
