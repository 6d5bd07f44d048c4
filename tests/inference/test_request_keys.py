"""Two requests share a key exactly if model and content are equal."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.protocol import GenerationRequest, Message, request_key, request_text

texts = st.text(max_size=6)
messages = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), text=texts)
schemas = st.none() | st.dictionaries(texts, st.integers() | texts, max_size=2)
requests = st.builds(
    GenerationRequest,
    messages=st.lists(messages, min_size=1, max_size=3).map(tuple),
    max_tokens=st.integers(1, 3),
    temperature=st.none() | st.sampled_from([0, 0.0, 0.5, 1, 1.0]),
    top_p=st.none() | st.sampled_from([0.9, 1.0]),
    stop=st.lists(texts, max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 2),
    response_json_schema=schemas,
    sample_index=st.integers(0, 2),
    meta=st.dictionaries(texts, texts, max_size=1),
)


@pytest.mark.slow
@given(requests, requests)
def test_keys_are_equal_exactly_if_the_content_is(
    one: GenerationRequest, other: GenerationRequest
) -> None:
    """Dataclass equality is the reference; it ignores meta, and the order inside the schema."""
    same_order = json.dumps(one.response_json_schema) == json.dumps(other.response_json_schema)
    equal = one == other and same_order
    assert (request_key("gemini:g", one) == request_key("gemini:g", other)) is equal


@given(requests)
def test_a_copy_with_other_meta_has_the_same_key_and_another_model_another(
    request: GenerationRequest,
) -> None:
    copy = replace(request, meta={"trace_id": "t"})
    assert request_key("gemini:g", request) == request_key("gemini:g", copy)
    assert request_key("gemini:g", request) != request_key("openai:g", request)


def test_every_field_but_meta_is_part_of_the_key() -> None:
    """A field added to the request later must not be forgotten here."""
    request = GenerationRequest((Message("user", "q"),), 5)
    changed: dict[str, Any] = {
        "messages": (Message("user", "other"),),
        "max_tokens": 6,
        "temperature": 0.5,
        "top_p": 0.5,
        "stop": ("x",),
        "seed": 1,
        "response_json_schema": {},
        "sample_index": 1,
        "logprobs": 1,
    }
    assert {each.name for each in fields(GenerationRequest)} - {"meta"} == set(changed)
    keys = {request_key("lab", replace(request, **{name: changed[name]})) for name in changed}
    assert len(keys | {request_key("lab", request)}) == len(changed) + 1


def test_texts_cannot_be_moved_between_turns_without_changing_the_key() -> None:
    one = GenerationRequest((Message("user", "ab"), Message("user", "c")), 5)
    other = GenerationRequest((Message("user", "a"), Message("user", "bc")), 5)
    assert request_key("lab", one) != request_key("lab", other)


def test_the_order_of_the_schema_counts() -> None:
    """Gemini writes its fields in this order, and the verdict must come after the reasoning."""
    request = GenerationRequest((Message("user", "q"),), 5)
    one = replace(request, response_json_schema={"required": ["quote", "verdict"], "type": "x"})
    other = replace(request, response_json_schema={"type": "x", "required": ["quote", "verdict"]})
    assert request_key("lab", one) != request_key("lab", other)


def test_a_key_does_not_change_between_releases() -> None:
    """Else every paid reply in every database would be bought again."""
    request = GenerationRequest((Message("user", "q ц \ud800"),), 5, temperature=0.5, stop=("\n",))
    assert request_key("gemini:g", request) == KEY_OF_2026


KEY_OF_2026 = "7f27f1b61d83342d64106695b05dcf0b6c817027d5ea640c7f1b7cc49589f591"


def test_the_ledger_text_shows_the_prompt_as_it_was_sent() -> None:
    request = GenerationRequest((Message("system", "judge"), Message("user", "доза")), 5)
    assert '"доза"' in request_text(request)
    assert json.loads(request_text(request))["messages"] == [["system", "judge"], ["user", "доза"]]
