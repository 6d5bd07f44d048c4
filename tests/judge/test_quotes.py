"""Which quotes stand in a passage, one by one; the rates are in `test_quote_rates.py`."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.quotes import verify_quote

PASSAGE = (
    "Zentide dose is 15 mg/kg. Do not give Zentide in epilepsy. Cap is 1,500 mg, halved below "
    "eGFR 40 (≥ 5 days). Symptomatic hypertension — treat with beta-blockers for 10–14 days."
)


@pytest.mark.parametrize(
    ("quote", "method", "found"),
    [
        ("Zentide dose is 15 mg/kg.", "exact", "Zentide dose is 15 mg/kg"),
        ("ZENTIDE  dose\nis 15 mg/kg", "exact", "Zentide dose is 15 mg/kg"),
        ("“Do not give Zentide”", "exact", "Do not give Zentide"),
        ("1,500", "exact", "1,500"),
        ("hypertension - treat", "exact", "hypertension — treat"),
        ("10-14 days", "exact", "10–14 days"),
        ("…halved below eGFR 40…", "exact", "halved below eGFR 40"),
        ("dose is ... Do not give Zentide", "elided", "dose is 15 mg/kg. Do not give Zentide"),
        ("Zentide dose [...] Cap is 1,500 mg", "elided", PASSAGE[: PASSAGE.index(", halved")]),
        ("Do not gve Zentide in epilepsy", "near", "Do not give Zentide in epilepsy"),
        (
            "treat with the beta-blockers for 10-14 days",
            "near",
            "treat with beta-blockers for 10–14 days",
        ),
    ],
)
def test_quotes_that_stand_there(quote: str, method: str, found: str) -> None:
    match = verify_quote(quote, PASSAGE)
    assert match is not None
    assert match.method == method
    assert PASSAGE[match.start : match.end] == found


@pytest.mark.parametrize(
    "quote",
    [
        "",
        "...",
        "mg",  # nothing to hold on to
        "5 mg",  # half a number
        "15 mg",  # half a unit
        "1,50",
        "500 mg",
        "eGFR 4",
        "10 days",
        "14 days",  # half a range
        "5 days",  # without its comparator
        "treat with beta",  # half a word
        "give Zentide in epilepsy",  # without its negation
        "Do ... give Zentide",  # negation left out
        "Cap is 1,500 mg ... Zentide dose is",  # wrong order
        "Zentide dose is 16 mg/kg. Do not give Zentide",
        "Zentide dose is 15 g/kg. Do not give Zentide",
        "Do never give Zentide in epilepsy. Cap is 1,500 mg",
        "Cap is 1,500 mg, halved above eGFR 40",
        "Symptomatic hypotension — treat with beta-blockers",
        "Asymptomatic hypertension — treat with beta-blockers",
        "Zentide " * 40,
        "a ... b ... c ... d ... e ... f ... g ... h ... i ... j",
    ],
)
def test_quotes_that_do_not(quote: str) -> None:
    assert verify_quote(quote, PASSAGE) is None


def test_empty_passage_holds_no_quote() -> None:
    assert verify_quote("some words", "") is None
    assert verify_quote("some words", " \n ") is None


def test_typo_at_the_edges_of_a_whole_passage() -> None:
    for quote in ("oZentide dose is here", "Zentide dose is heree"):
        match = verify_quote(quote, "Zentide dose is here")
        assert match is not None
        assert (match.start, match.end, match.method) == (0, 20, "near")


@given(st.text(alphabet="abc ﬁ½²\n.-", min_size=1), st.data())
def test_offsets_never_leave_the_passage(passage: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(passage)))
    end = data.draw(st.integers(start, len(passage)))
    match = verify_quote(passage[start:end], passage)
    if match is not None:
        assert 0 <= match.start < match.end <= len(passage)
        again = verify_quote(passage[match.start : match.end], passage)
        assert again is not None
        assert again.method == "exact"


def test_hostile_collage_ends_soon() -> None:
    began = time.perf_counter()
    assert verify_quote("the ... " * 7 + "end", "the " * 2000) is None
    assert time.perf_counter() - began < 10
