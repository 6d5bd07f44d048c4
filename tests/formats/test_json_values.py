"""Strict JSON, and the difference between a cut text and a wrong one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.files.json import DEPTH_LIMIT, JsonFault, StrictDecoder, text_fault

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
documents = st.lists(json_values, max_size=4) | st.dictionaries(
    st.text("abc", max_size=3), json_values, max_size=4
)


@pytest.mark.slow
@given(documents, st.booleans())
def test_decodes_what_json_wrote(document: Any, ascii_only: bool) -> None:
    value, fault = StrictDecoder().decode(f" {json.dumps(document, ensure_ascii=ascii_only)}\r\n")
    assert value == document
    assert fault is None


@pytest.mark.slow
@given(documents, st.booleans(), st.data())
def test_every_beginning_of_a_document_counts_as_cut(
    document: Any, ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)
    length = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(JsonFault) as caught:
        StrictDecoder().decode_at(text[:length], 0)
    assert caught.value.cut


@pytest.mark.parametrize(
    "text",
    [
        "nope",
        '{"a": 1,}',
        '{"a" 1}',
        '{"a": tru1}',
        "[1 2]",
        "{'a': 1}",
        '["\\q"      , 1, 2]',
        '{"a": 1} {"b": 2}',
        "12 x",
    ],
)
def test_a_wrong_text_is_not_a_cut_one(text: str) -> None:
    with pytest.raises(JsonFault) as caught:
        StrictDecoder().decode(text)
    assert not caught.value.cut


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_json_does_not_know_make_the_row_unusable(word: str) -> None:
    decoder = StrictDecoder()
    _, fault = decoder.decode(f'{{"score": [{word}]}}')
    assert fault is not None
    assert word in fault
    # The next row is not blamed for it.
    assert decoder.decode("[1.5]") == ([1.5], None)


def test_text_that_cannot_be_stored_is_named() -> None:
    assert StrictDecoder().decode(r'{"a": ["x\u0000y"]}')[1] == "contains a NUL character"
    assert "UTF-8" in str(StrictDecoder().decode(r'{"\ud800": 1}')[1])
    assert StrictDecoder().decode(r'["\ud83d\ude00"]') == (["\N{GRINNING FACE}"], None)
    assert text_fault({"a": ["é", 1, None]}) is None


def test_a_raw_nul_byte_is_named() -> None:
    with pytest.raises(JsonFault, match="NUL"):
        StrictDecoder().decode('{"a": "x\x00y"}')


def test_depth_and_digits_have_ends() -> None:
    with pytest.raises(JsonFault, match="nested"):
        StrictDecoder().decode("[" * 200_000)
    with pytest.raises(JsonFault, match="number"):
        StrictDecoder().decode("1" * 5000)


def test_a_key_that_stands_twice_makes_the_row_unusable() -> None:
    assert StrictDecoder().decode('{"id": "a", "steps": [], "id": "b"}')[1] == (
        "contains the key 'id' twice"
    )
    assert StrictDecoder().decode('[{"a": {"b": 1, "b": 1}}]')[1] == "contains the key 'b' twice"
    assert StrictDecoder().decode('[{"a": 1}, {"a": 2}]')[1] is None


def test_nesting_has_an_end_below_what_the_interpreter_can_do() -> None:
    deep = "[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT
    assert StrictDecoder().decode(deep)[1] is None
    assert "nested deeper than" in str(StrictDecoder().decode(f"[[{deep}]]")[1])
