"""Folding keeps the way back to the original, and keeps different numbers different."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.decisive import decisive_tokens, same_decisive_tokens
from judge.quotes import _compatibility, _fold_cluster, fold


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("  Two\n\twords ", "two words"),
        ("ﬁrst e\u0301tude", "first étude"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("“quoted” ‘it’s’", "\"quoted\" 'it's'"),
        ("10–15 mg—daily", "10-15 mg - daily"),
        ("10² and 10²³ and 10⁻³", "10^2 and 10^23 and 10^-3"),
        ("5½ mg, ½ mg", "5 1/2 mg, 1/2 mg"),
        ("５㎎ … Straße", "5mg ... strasse"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_folded_forms(text: str, folded: str) -> None:
    assert fold(text).text == folded


@given(st.text())
def test_every_character_knows_where_it_came_from(text: str) -> None:
    folded = fold(text)
    assert len(folded.text) == len(folded.starts) == len(folded.ends)
    assert list(folded.starts) == sorted(folded.starts)
    for start, end in zip(folded.starts, folded.ends, strict=True):
        assert 0 <= start < end <= len(text)


@given(st.text(alphabet=st.characters(codec="latin-1")))
def test_ascii_shortcut_folds_like_the_long_way(text: str) -> None:
    ascii_only = "".join(c for c in text if c.isascii() and c.isprintable() and c != "`")
    expected = " ".join(unicodedata.normalize("NFKC", ascii_only).casefold().split())
    assert fold(ascii_only).text == expected


@given(st.text(alphabet="ab \n", min_size=1))
def test_spans_point_at_the_original(text: str) -> None:
    folded = fold("«" + text + "»")
    start, end = folded.original_span(0, len(folded.text))
    assert (start, end) == (0, len(text) + 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 mg", "15 mg"),
        ("5 mg", "5 g"),
        ("5 mg/kg", "5 mg"),
        ("5 mg per kg", "5 mg per day"),
        ("1.5 mg", "15 mg"),
        ("-5 mmol", "5 mmol"),
        ("10^2 cells", "102 cells"),
        ("above 5", "below 5"),
        ("<5", "≤5"),
        ("at least 5", "at most 5"),
        ("less than 5", "more than 5"),
        ("is given", "is not given"),
        ("can be", "can't be"),
        ("allergic", "non-allergic"),
        ("with food", "without food"),
        ("two doses", "three doses"),
        ("5 mg then 10 mg", "10 mg then 5 mg"),
        ("b12", "b6"),
    ],
)
def test_decisive_differences(one: str, other: str) -> None:
    assert not same_decisive_tokens(one, other)
    assert same_decisive_tokens(one, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,500 mg", "1500 mg"),
        ("5.0 mg", "5 mg"),
        ("5mg", "5 mg"),
        ("<= 5", "≤ 5"),
        ("5 mg / kg", "5 mg/kg"),
        ("aspirin tablet", "asprin tablet"),
    ],
)
def test_indecisive_differences(one: str, other: str) -> None:
    assert same_decisive_tokens(one, other)


def test_tokens_have_kinds_and_offsets() -> None:
    text = "give not more than 5 mg/kg, never mg"
    found = [(t.kind, t.value, text[t.start : t.end]) for t in decisive_tokens(text)]
    assert found == [
        ("comparator", "not more than", "not more than"),
        ("number", "5 mg/kg", "5 mg/kg"),
        ("negation", "never", "never"),
        ("unit", "mg", "mg"),
    ]


def folded_slowly(text: str) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Every character by itself, as the rule is written; `fold` takes ASCII in long pieces."""
    folded: list[tuple[str, int, int]] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and unicodedata.combining(text[end]):
            continue
        before = "^" if start and _compatibility(text[start - 1]) == "<super>" else ""
        before = before or (folded[-1][0] if folded else " ")
        for character in _fold_cluster(text[start:end], before):
            blank = character.isspace()
            if not (blank and (not folded or folded[-1][0] == " ")):
                folded.append((" " if blank else character, start, end))
        start = end
    if folded and folded[-1][0] == " ":
        folded.pop()
    text = "".join(character for character, _, _ in folded)
    return text, tuple(one for _, one, _ in folded), tuple(one for _, _, one in folded)


@given(
    st.text(
        st.sampled_from("abXY01 .,`'\"\n\t\x00\x1c\x7f-²½é\u0301\u200b–—“µ×⩾ﬁ…①㎎😀İß"), max_size=20
    )
)
def test_folding_in_pieces_is_folding_character_by_character(text: str) -> None:
    folded = fold(text)
    assert (folded.text, tuple(folded.starts), tuple(folded.ends)) == folded_slowly(text)
