"""Bodies of generateContent, read without the SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai.types import FinishReason
from hypothesis import given
from hypothesis import strategies as st

from inference.gemini.client import BLOCKED, read_body, takes_sampling_options
from inference.retries import TransientFault
from traces.records import Usage


def body(candidate: dict[str, Any] | None = None, **rest: Any) -> str:
    candidates = [] if candidate is None else [candidate]
    return json.dumps({"candidates": candidates, **rest})


def test_a_whole_reply() -> None:
    counts = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 5,
        "cachedContentTokenCount": 64,
    }
    content = {"parts": [{"text": "a"}, {"text": "b"}], "role": "model"}
    candidate = {"content": content, "finishReason": "STOP"}
    reply = read_body(body(candidate, usageMetadata=counts, modelVersion="gemini-x-001"))
    assert (reply.text, reply.finish_reason) == ("ab", "stop")
    assert reply.resolved_model == "gemini-x-001"
    assert reply.usage == Usage(100, 64, 20, 5)


def test_thoughts_are_not_part_of_the_answer() -> None:
    parts = [{"text": "let me see", "thought": True}, {"text": "correct"}]
    assert read_body(body({"content": {"parts": parts}})).text == "correct"
    assert read_body(body({"content": {"parts": parts[:1]}})).text is None


@pytest.mark.parametrize(
    "candidate",
    [
        {"finishReason": "MAX_TOKENS"},
        {"finishReason": "MAX_TOKENS", "content": {}},
        {"finishReason": "MAX_TOKENS", "content": {"parts": []}},
        {"finishReason": "MAX_TOKENS", "content": {"parts": [{"inlineData": {}}]}},
    ],
)
def test_no_text_stays_none(candidate: dict[str, Any]) -> None:
    reply = read_body(body(candidate))
    assert (reply.text, reply.finish_reason) == (None, "length")


def test_an_empty_text_is_a_text() -> None:
    assert read_body(body({"content": {"parts": [{"text": ""}]}})).text == ""


def test_every_finish_reason_of_the_sdk_has_a_word_of_ours() -> None:
    """A reason that Google adds is kept as its own word, and not taken for a stop."""
    ours = {
        reason.value: read_body(body({"finishReason": reason.value})).finish_reason
        for reason in FinishReason
    }
    assert [reason for reason, word in ours.items() if word == "stop"] == ["STOP"]
    assert {reason for reason, word in ours.items() if word == "length"} == {
        "MAX_TOKENS",
        "CONTINUATION",
    }
    assert {reason for reason, word in ours.items() if word == "blocked"} == BLOCKED
    assert read_body(body({"finishReason": "SOLAR_FLARE"})).finish_reason == "solar_flare"
    assert read_body(body({})).finish_reason == "unknown"


def test_a_blocked_prompt_and_an_empty_list_are_told_apart() -> None:
    counts = {"promptTokenCount": 3}
    blocked = read_body(body(promptFeedback={"blockReason": "OTHER"}, usageMetadata=counts))
    assert (blocked.text, blocked.finish_reason) == (None, "blocked")
    assert read_body(body(usageMetadata=counts)).finish_reason == "empty"


@pytest.mark.parametrize("text", ["", "<html>", "{", "null", "[]", '"a"', "{}", '{"a": 1}'])
def test_what_is_no_reply_may_be_asked_for_again(text: str) -> None:
    with pytest.raises(TransientFault):
        read_body(text)


@given(st.integers(0, 200))
def test_a_body_cut_anywhere_is_never_taken_for_a_reply(cut: int) -> None:
    whole = body({"content": {"parts": [{"text": "x" * 100}]}, "finishReason": "STOP"})
    if cut < len(whole):
        with pytest.raises(TransientFault):
            read_body(whole[:cut])


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("gemini-2.5-flash-lite", True),
        ("gemini-3.5-flash-lite", False),
        ("models/gemini-3.8-flash", False),
        ("gemini-4-argon", False),
        ("gemini-10-x", False),
        ("gemma-3", True),
    ],
)
def test_knobs(model: str, takes: bool) -> None:
    assert takes_sampling_options(model) is takes
