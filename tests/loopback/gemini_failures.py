"""The ways in which Gemini fails to answer, as bytes on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    ending: Literal["whole", "reset", "hang"] = "whole"
    """`reset`: the connection is reset in the middle of the body; `hang`: there is no answer."""

    @property
    def billed(self) -> bool:
        """Whether the service counts the call as delivered: a 200 with a usage count."""
        return self.status == 200 and self.ending == "whole" and b"usageMetadata" in self.body


def ok(reply: dict[str, Any]) -> Answer:
    """A 200 with a JSON body."""
    return Answer(200, json.dumps(reply).encode())


def error(status: int, word: str, message: str, *details: dict[str, Any], **headers: str) -> Answer:
    """An error as google.rpc.Status."""
    fault = {"code": status, "message": message, "status": word, "details": list(details)}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(
        status,
        json.dumps({"error": fault}).encode(),
        {"Content-Type": "application/json", **named},
    )


def _quota(quota_id: str) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaMetric": "generate_content_requests", "quotaId": quota_id}],
    }


def _retry_info(seconds: float) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds:g}s"}


def bad_key() -> Answer:
    """What Google says to a wrong key: a 400, not a 401."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    message = "API key not valid. Please pass a valid API key."
    return error(400, "INVALID_ARGUMENT", message, info)


def no_such_model(model: str) -> Answer:
    """What Google says to an unknown model."""
    message = f"models/{model} is not found for API version v1beta"
    return error(404, "NOT_FOUND", message)


def too_long(tokens: int, limit: int) -> Answer:
    """What Google says to a prompt beyond the window."""
    message = (
        f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({limit})."
    )
    return error(400, "INVALID_ARGUMENT", message)


def _finished(reason: str, *, keep_text: bool = False) -> Callable[[dict[str, Any], float], Answer]:
    def make(reply: dict[str, Any], _: float) -> Answer:
        candidate = dict(reply["candidates"][0], finishReason=reason)
        if keep_text:
            text = candidate["content"]["parts"][0]["text"]
            candidate["content"] = {"parts": [{"text": text[: len(text) // 2]}], "role": "model"}
        else:
            candidate.pop("content")
        return ok(reply | {"candidates": [candidate]})

    return make


def _with_text(change: Callable[[str], str]) -> Callable[[dict[str, Any], float], Answer]:
    def make(reply: dict[str, Any], _: float) -> Answer:
        candidate = reply["candidates"][0]
        text = change(candidate["content"]["parts"][0]["text"])
        content = {"parts": [{"text": text}], "role": "model"}
        return ok(reply | {"candidates": [candidate | {"content": content}]})

    return make


def _with_steps(
    change: Callable[[list[Any]], list[Any]],
) -> Callable[[dict[str, Any], float], Answer]:
    """A judge's reply with other entries; a reply without entries stays."""

    def changed(text: str) -> str:
        try:
            entries = json.loads(text)["steps"]
        except (ValueError, KeyError, TypeError):
            return text
        return json.dumps({"steps": change(entries)})

    return _with_text(changed)


def _dated(wait: float) -> Answer:
    """A 429 whose Retry-After is a date, by a clock that is a day behind ours."""
    behind = datetime.now(UTC) - timedelta(days=1)
    later = behind + timedelta(seconds=wait)
    return error(
        429,
        "RESOURCE_EXHAUSTED",
        "Too many requests.",
        Retry_After=format_datetime(later, usegmt=True),
        Date=format_datetime(behind, usegmt=True),
    )


def _blocked_prompt(reply: dict[str, Any], _: float) -> Answer:
    feedback = {"blockReason": "PROHIBITED_CONTENT"}
    return ok({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 9}})


def _whole(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode()


FAILURES: dict[str, Callable[[dict[str, Any], float], Answer]] = {
    "429_retry_after": lambda _, wait: error(
        429, "RESOURCE_EXHAUSTED", "Too many requests.", Retry_After=f"{wait:.0f}"
    ),
    "429_retry_info": lambda _, wait: error(
        429,
        "RESOURCE_EXHAUSTED",
        "Quota exceeded for requests per minute.",
        _quota("GenerateRequestsPerMinutePerProjectPerModel"),
        _retry_info(wait),
    ),
    "429_daily": lambda _, wait: error(
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota.",
        _quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        _retry_info(wait),
    ),
    "429_dated": lambda _, wait: _dated(wait),
    "408": lambda _, __: error(408, "DEADLINE_EXCEEDED", "Request time-out."),
    "500": lambda _, __: error(500, "INTERNAL", "An internal error has occurred."),
    "503": lambda _, __: error(503, "UNAVAILABLE", "The model is overloaded."),
    "reset": lambda reply, _: Answer(200, _whole(reply), ending="reset"),
    "hang": lambda reply, _: Answer(200, _whole(reply), ending="hang"),
    "html": lambda _, __: Answer(200, HTML, {"Content-Type": "text/html"}),
    "cut_json": lambda reply, _: Answer(200, _whole(reply)[: len(_whole(reply)) // 3]),
    "empty_body": lambda _, __: Answer(200, b""),
    "no_candidates": lambda reply, _: ok(reply | {"candidates": []}),
    "safety": _finished("SAFETY"),
    "recitation": _finished("RECITATION"),
    "prohibited": _finished("PROHIBITED_CONTENT"),
    "blocked_prompt": _blocked_prompt,
    "max_tokens": _finished("MAX_TOKENS", keep_text=True),
    "max_tokens_no_text": _finished("MAX_TOKENS"),
    "fenced": _with_text(lambda text: f"```json\n{text}\n```"),
    "wrong_schema": _with_text(lambda _: '{"verdicts": [1, 1, 0]}'),
    "no_json": _with_text(lambda _: "I would rather not say."),
    "too_few_steps": _with_steps(lambda entries: entries[:-1]),
    "too_many_steps": _with_steps(lambda entries: [*entries, entries[-1] | {"step": 99}]),
    "out_of_order": _with_steps(lambda entries: entries[::-1]),
    "repeated_step": _with_steps(lambda entries: [*entries, entries[0]]),
    "unknown_finish": _finished("SOLAR_FLARE", keep_text=True),
    "400_bad_key": lambda _, __: bad_key(),
    "404": lambda _, __: no_such_model("gone"),
}
"""Every failure by name: takes the reply that would have been sent and the seconds to wait."""

PASSING = ("429_retry_after", "429_retry_info", "500", "503", "408", "reset", "html", "cut_json")
"""Those after which the same request succeeds (and which take no time)."""

ENDING = ("429_daily", "400_bad_key", "404")
"""Those that end a run."""
