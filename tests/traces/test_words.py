"""Words of any script: what is searched for in a text must be a term of it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.words import detect_language, search_terms, search_words, words

LETTERS = "가나다라혈압高血圧患者不カナひらภาษไม่ก้กา abc 12é"


def test_words_of_latin_and_other_spaced_scripts() -> None:
    text = "Give 0.5 mg/m² to naïve पेशी رَجُل"
    assert [term.text for term in words(text)] == [
        "give", "0.5", "mg", "m²", "to", "naïve", "पेशी", "رَجُل",
    ]  # fmt: skip


def test_runs_are_searched_by_characters_and_pairs() -> None:
    assert search_words("혈압은 140") == ["혈", "압", "은", "혈압", "압은", "140"]
    assert search_words("혈압", query=True) == ["혈압"]
    assert search_words("열", query=True) == ["열"]
    assert [term.text for term in words("皮疹 CT촬영")] == ["皮", "疹", "ct", "촬영"]


def test_marks_stay_with_their_letter() -> None:
    assert search_words("แพ้", query=True) == ["แพ้"]
    assert [term.text for term in words("แพ้")] == ["แ", "พ้"]


@pytest.mark.parametrize("text", ["혈압", "ガス", "naïve"])
def test_decomposed_text_has_the_terms_of_composed_text(text: str) -> None:
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    assert search_words(decomposed) == search_words(text)


def test_full_width_and_half_width_forms_are_one() -> None:
    assert search_words("１０ｍｇ ｶﾞ") == ["10mg", "ガ"]
    assert search_words("10⁹") == ["10⁹"], "a power does not become a digit"


@given(st.text(alphabet=LETTERS, max_size=30), st.text(alphabet=LETTERS, max_size=30))
def test_terms_have_their_places_and_queries_are_part_of_texts(before: str, after: str) -> None:
    text = before + after
    for term in search_terms(text):
        assert unicodedata.normalize("NFC", text[term.start : term.end].lower()) == term.text


@given(
    st.text(alphabet="가나다라혈압은을", min_size=1, max_size=6)
    | st.text(alphabet="高血圧患者は", min_size=1, max_size=6),
    st.text(alphabet="가나高血 ,.", max_size=6),
    st.text(alphabet="가나高血 ,.", max_size=6),
)
def test_whatever_stands_in_a_text_is_found_in_it(word: str, before: str, after: str) -> None:
    assert set(search_words(word, query=True)) <= set(search_words(before + word + after))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("고혈압은 hypertension의 번역이다", "ko"),
        ("血圧が高い患者", "ja"),
        ("高血压患者应停药", "zh"),
        ("หากมีการแพ้ยา", "th"),
        ("Артериальное давление", "ru"),
        ("High blood pressure", "latin"),
        ("Ein Patient mit Bluthochdruck, see 表", "latin"),
        ("140/90", "latin"),
    ],
)
def test_the_language_of_a_text(text: str, language: str) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize("query", [False, True])
@given(st.text(st.sampled_from("ab 5.カガｶﾞ゙々〇一二不豈가한\u1100\u1161\u11a8กี่é"), max_size=12))
def test_words_alone_are_those_of_the_terms(query: bool, text: str) -> None:
    """Runs of plain characters take a shorter way."""
    assert search_words(text, query=query) == [t.text for t in search_terms(text, query=query)]
