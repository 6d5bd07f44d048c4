"""The JSON that Gemini's generateContent speaks, read and written without the SDK's types.

Reading the raw body ourselves keeps it to the letter for the audit, and a finish reason that
Google adds next month is only a new word. Shapes as served by v1beta:

    {"candidates": [{"content": {"parts": [{"text": ".."}]}, "finishReason": "STOP"}],
     "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20,
                       "thoughtsTokenCount": 5, "cachedContentTokenCount": 64},
     "modelVersion": ".."}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from inference.faults import TransientFault
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

_TOP_LEVEL = ("systemInstruction", "safetySettings", "cachedContent", "tools", "toolConfig")
_SDK_ONLY = ("automaticFunctionCalling", "shouldReturnHttpResponse", "httpOptions", "serviceTier")


def read_body(body: str) -> WireReply:
    """Read a 200 body.

    Raises:
        TransientFault: not a JSON object (empty, cut, an HTML page of some gateway), or an
            object with nothing in it: nothing was paid for, the same request may succeed.
    """
    try:
        reply = json.loads(body)
    except json.JSONDecodeError as error:
        start = " ".join(body[:60].split())
        raise TransientFault(f'the reply is not JSON ("{start}"): {error.msg}') from error
    if not isinstance(reply, dict):
        raise TransientFault("the reply is no JSON object")
    candidates = reply.get("candidates") or []
    block_reason = (reply.get("promptFeedback") or {}).get("blockReason")
    usage = reply.get("usageMetadata") or {}
    if not candidates and not block_reason and not usage:
        raise TransientFault("the reply holds neither a candidate nor a usage count")
    if candidates:
        text, finish = _text(candidates[0]), _finish(candidates[0].get("finishReason"))
    else:
        text, finish = None, "blocked" if block_reason else "empty"
    return WireReply(text, finish, reply.get("modelVersion"), _usage(usage))


def rest_body(
    contents: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A generateContent body out of the SDK's flat configuration.

    A batch file holds bodies as the service reads them, and the SDK converts those of single calls
    only: what is flat in its configuration stands in `generationConfig` there.

    Args:
        contents: the turns, in camelCase.
        config: the SDK's GenerateContentConfig, in camelCase.
        schema: the response schema, passed on to the letter: the order of its fields counts.
    """
    own = {name: config[name] for name in _TOP_LEVEL if name in config}
    if isinstance(system := config.get("systemInstruction"), str):
        own["systemInstruction"] = {"parts": [{"text": system}], "role": "user"}
    left_out = (*_TOP_LEVEL, *_SDK_ONLY, "responseJsonSchema")
    generation = {name: value for name, value in config.items() if name not in left_out}
    if schema is not None:
        generation["responseJsonSchema"] = schema
    return {"contents": list(contents), **own, "generationConfig": generation}


def _text(candidate: Mapping[str, Any]) -> str | None:
    parts = (candidate.get("content") or {}).get("parts") or []
    texts = [part["text"] for part in parts if "text" in part and not part.get("thought")]
    return "".join(texts) if texts else None


def _finish(reason: str | None) -> str:
    if reason is None:
        return "unknown"
    return "blocked" if reason in BLOCKED else _FINISH.get(reason, reason.lower())


def _usage(counts: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=counts.get("promptTokenCount") or 0,
        cached_tokens=counts.get("cachedContentTokenCount") or 0,
        output_tokens=counts.get("candidatesTokenCount") or 0,
        thinking_tokens=counts.get("thoughtsTokenCount") or 0,
    )


def takes_sampling_knobs(model: str) -> bool:
    """Whether the model still takes temperature and top_p: Gemini 3 and later do not."""
    match = re.match(r"(?:models/)?gemini-(\d+)", model)
    return match is None or int(match.group(1)) < 3
