"""200 bodies that no service describes: read as far as they go, or asked for again; never a defect."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.gemini import batch as batch_wire
from inference.gemini import client as gemini_wire
from inference.openai import wire as openai_wire
from inference.protocol import WireReply
from inference.retries import TransientFault
from traces.records import Usage

Read = Callable[[str], WireReply]
READERS = (gemini_wire.read_body, openai_wire.read_body)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@pytest.mark.parametrize(
    "candidates",
    ["x", 5, {"a": 1}, [None], ["x"], [{"content": "x"}], [{"content": {"parts": {"text": "x"}}}]]
    + [[{"content": {"parts": [part]}}] for part in (None, "x", {"text": None}, {"text": 5})],
)
def test_a_candidate_of_another_shape_has_no_text_and_is_paid(candidates: Any) -> None:
    body = {"candidates": candidates, "usageMetadata": {"promptTokenCount": 9}, "modelVersion": 5}
    reply = gemini_wire.read_body(json.dumps(body))
    assert reply == WireReply(None, "unknown", None, Usage(9))


@pytest.mark.parametrize("choices", ["x", [None], ["x"], [{"message": "x"}], [{"text": 5}]])
def test_a_choice_of_another_shape_has_no_text_and_is_paid(choices: Any) -> None:
    body = {"choices": choices, "usage": {"prompt_tokens": 9}, "model": ["m"]}
    assert openai_wire.read_body(json.dumps(body)) == WireReply(None, "unknown", None, Usage(9))


def test_content_in_parts_is_joined_without_its_thoughts() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]
    content = [*parts, {"type": "text", "text": "b"}]
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    reply = openai_wire.read_body(json.dumps(body))
    assert (reply.text, reply.is_counted) == ("ab", False)


@pytest.mark.parametrize("count", [-1, 10**30, 1.5, "9", True, [1]])
@pytest.mark.parametrize("read", READERS)
def test_a_count_that_counts_nothing_is_no_price(read: Read, count: Any) -> None:
    body = {
        "candidates": [{}],
        "usageMetadata": {"promptTokenCount": count},
        "choices": [{}],
        "usage": {"prompt_tokens": count},
    }
    with pytest.raises(TransientFault, match="has the token count"):
        read(json.dumps(body))


@pytest.mark.parametrize("body", ["[" * 100_000, '{"usage": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize("read", READERS)
def test_json_that_python_cannot_hold_is_no_reply(read: Read, body: str) -> None:
    with pytest.raises(TransientFault, match="not JSON"):
        read(body)


NAMES = ("candidates", "promptFeedback", "usageMetadata", "modelVersion", "choices", "usage")


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING))
def test_whatever_stands_in_a_field_is_read_or_refused(body: dict[str, Any]) -> None:
    for read in READERS:
        with suppress(TransientFault):
            assert isinstance(read(json.dumps(body)), WireReply)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(("metadata", "error", "response", "done")), ANYTHING))
def test_whatever_describes_a_job_is_a_job(described: dict[str, Any]) -> None:
    job = batch_wire.read_job(json.dumps(described | {"name": "batches/b0"}))
    assert isinstance(job.created, str)
    assert isinstance(job.results, str | None)


def test_a_line_of_another_shape_says_nothing_about_any_request() -> None:
    lines = [b"[" * 100_000, b'{"metadata": "x", "response": {}}', b'{"key": "k", "response": {}}']
    assert [line.key for line in batch_wire.read_results(lines)] == ["k"]
