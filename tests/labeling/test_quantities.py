"""Exact numbers with units, against fractions computed otherwise; and where an answer is named."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.mentions import find_mentions, last_line
from labeling.quantities import (
    Quantity,
    read_quantity,
    same_quantity,
    whole_quantity,
    without_latex,
)


def read(text: str) -> Quantity:
    found = read_quantity(text)
    assert found is not None, text
    return found[0]


@given(st.integers(-(10**12), 10**12))
def test_integers_in_every_dress(number: int) -> None:
    for text in (
        str(number),
        f"{number:,}",
        f"${number}$",
        f"{number}.0",
        f"= {number}",
        f"**{number}**",
    ):
        assert read(text).value == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-999, max_value=999))
def test_decimals_are_exact(number: object) -> None:
    assert read(f"{number}").value == Fraction(str(number))


@given(st.integers(0, 999), st.integers(1, 999))
def test_fractions(top: int, bottom: int) -> None:
    expected = Fraction(top, bottom)
    for text in (
        f"{top}/{bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"$\dfrac{{{top}}}{{{bottom}}}$",
    ):
        assert read(text).value == expected
    assert read(f"2 {top}/{bottom}").value == 2 + expected


@pytest.mark.parametrize(
    "text",
    ["", "mg", "5-10", "5–10 mg", "5 - 10", "5 to 10", "10:30", "1/2/2024", "3,5", "5+1", "5x", "x", "2^3",
     "1.2.3", "5/0", r"2\pi", "5 < x", "12th", "2 x 3"],
)  # fmt: skip
def test_what_is_no_single_number(text: str) -> None:
    assert read_quantity(text) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1 g", "1000 mg", True),
        ("1 mg", "1000 mcg", True),
        ("1 mcg", "1 μg", True),
        ("1 mcg", "1 µg", True),
        ("1 microgram", "1000 nanograms", True),
        ("1 L", "1000 ml", True),
        ("1 litre", "10 dl", True),
        ("1 h", "60 min", True),
        ("1 week", "7 days", True),
        ("1 year", "12 months", True),
        ("1 mg/kg", "1000 mcg per kg", True),
        ("1 mg/kg/day", "1 mg/kg", False),
        ("24 mg/day", "1 mg/h", True),
        ("1 mmol/l", "1 mg/l", False),
        ("1 month", "30 days", False),
        ("37 °C", "37 °F", False),
        ("5 units", "5 IU", True),
        ("5", "5 tablets", True),
        ("5 mg", "6", False),
        ("25%", "1/4", True),
        ("25%", "25", True),
        ("25%", "4", False),
        ("5 euros", "€5", True),
        ("5 euros", "$5", False),
    ],
)
def test_units(one: str, other: str, same: bool) -> None:
    assert same_quantity(read(one), read(other)) is same
    assert same_quantity(read(other), read(one)) is same


@pytest.mark.parametrize(
    ("text", "whole"),
    [("5 mg", True), ("5 mg.", True), ("**5**", True), ("5 apples", False), ("a", False)],
)
def test_whole_quantity(text: str, whole: bool) -> None:
    assert (whole_quantity(text) is not None) is whole


def test_latex_dress() -> None:
    assert without_latex(r"$1{,}200\,\mathrm{mg}$") == "1,200 mg"
    assert without_latex(r"\left(\frac{1}{2}\right)").replace(" ", "") == "(1/2)"


# Where answers are named -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("The answer is 5. The answer is 6.", ["5", "6"]),
        (r"\boxed{1} and \boxed{\frac{1}{2}}", ["1", r"\frac{1}{2}"]),
        (r"The answer is \boxed{\{1\}}.", [r"\boxed{\{1\}}", r"\{1\}"]),
        ("The answer is: **5 mg**\nmore", ["5 mg"]),
        ("The answer is 3.5 mg; so", ["3.5 mg"]),
        ("the answer key is B", ["B"]),
        ("Answer: approx. 5", ["approx. 5"]),
        ("My answers are few", []),
        ("The answer island", []),
        ("We doubt whether the answer is 5.", []),
        ("The answer is not 5 but 6.", ["6"]),
        ("The answer is not 5.", []),
        ("The answer is", []),
        (r"\boxed{5", []),
        ("(B) is correct. If (C) is correct", ["(B)"]),
        ("#### 7", ["7"]),
    ],
)
def test_mentions(text: str, named: list[str]) -> None:
    assert [mention.text for mention in find_mentions(text)] == named


@given(st.text(alphabet="The answer is 5.{}\\boxed\n", max_size=80))
def test_mentions_come_in_order_and_from_the_text(text: str) -> None:
    found = find_mentions(text)
    assert [m.position for m in found] == sorted(m.position for m in found)
    assert all(mention.text in text for mention in found)


def test_last_line() -> None:
    assert last_line("a\n b \n\n") == "b"
    assert last_line(" \n") == ""
