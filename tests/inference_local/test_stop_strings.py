"""Stop strings: found at once whatever the tokens, also where a character is split over tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.local.token_choice import StopStrings
from tests.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
TEXTS = ["the dose is 6 mg per kg.\n\nStep 2: 180 mg", "ответ: 180 мг.\nда", "a—b → c"]


def test_text_ends_before_the_first_stop_string() -> None:
    stops = StopStrings((" per", "\n\n", ""), TOKENIZER)
    ids = TOKENIZER(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert stops.text(5, ids) == ("the dose is 6 mg", True)
    assert stops.text(5, ids[:3]) == ("the dose is", False)


def test_without_strings_nothing_stops() -> None:
    stops = StopStrings(("",), TOKENIZER)
    ids = TOKENIZER(TEXTS[1], add_special_tokens=False)["input_ids"]
    assert not stops
    assert stops.text(5, ids) == (TEXTS[1], False)


@given(st.sampled_from(TEXTS), st.integers(0, 40), st.integers(1, 6))
@settings(max_examples=80, deadline=None)
def test_the_token_that_completes_a_stop_string_is_a_suspect(
    text: str, start: int, length: int
) -> None:
    stop = text[start % len(text) :][:length]
    stops = StopStrings((stop,), TOKENIZER)
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    first = next(end for end in range(1, len(ids) + 1) if stops.text(5, ids[:end])[1])
    assert bool(stops.suspects(torch.tensor(ids[first - 1])))


def test_few_tokens_are_suspects_and_unknown_ids_are() -> None:
    stops = StopStrings(("mg per kg",), TOKENIZER)
    every = stops.suspects(torch.arange(len(TOKENIZER) + 5))
    plain = TOKENIZER("the dose", add_special_tokens=False)["input_ids"]
    assert not every[plain].any()
    assert every[-5:].all()


@pytest.mark.parametrize("before", ["mg", " the", "\n"])
def test_a_blank_at_the_start_is_kept(before: str) -> None:
    stops = StopStrings((), TOKENIZER)
    anchor = TOKENIZER(before, add_special_tokens=False)["input_ids"][-1]
    ids = TOKENIZER(" dose", add_special_tokens=False)["input_ids"]
    assert stops.text(anchor, ids) == (" dose", False)
