"""Exact numbers with units, against fractions computed otherwise; and where an answer is named."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.answers import AnswerChecker
from labeling.answers.grammar.evaluation import NotExact, exact
from labeling.answers.grammar.reader import read
from labeling.answers.grammar.readings import Collection, Value
from labeling.answers.grammar.tokens import UnreadAnswer, cleaned
from labeling.answers.grammar.units import known_units, raised, unit_named
from labeling.answers.mentions import find_mentions, last_line
from traces.problem import Problem


def value_of(text: str) -> Fraction | None:
    """The number that is all of a text; None if it is none, or can be read in two ways."""
    try:
        # `1,200` may be a list as well.
        [value] = [one for one in read(text) if not isinstance(one, Collection)]
        return exact(value.expr) if isinstance(value, Value) and not value.noun else None
    except (UnreadAnswer, NotExact, ValueError):
        return None


def same(gold: str, answer: str) -> bool | None:
    return AnswerChecker.for_problem(Problem("p", "q", answer=gold)).is_correct(answer)


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
        assert value_of(text) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-999, max_value=999))
def test_decimals_are_exact(number: object) -> None:
    assert value_of(f"{number}") == Fraction(str(number))


@given(st.integers(0, 999), st.integers(1, 999))
def test_fractions(top: int, bottom: int) -> None:
    expected = Fraction(top, bottom)
    for text in (
        f"{top}/{bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"$\dfrac{{{top}}}{{{bottom}}}$",
    ):
        assert value_of(text) == expected
    if 0 < top < bottom:
        assert value_of(f"2 {top}/{bottom}") == 2 + expected
        assert value_of(rf"2\frac{{{top}}}{{{bottom}}}") == 2 + expected


@pytest.mark.parametrize(
    "text",
    ["", "mg", "5-10", "5–10 mg", "5 - 10", "5 to 10", "10:30", "3,5", "5x", "x", "1.2.3", "5/0", r"2\pi", "5 < x",
     "12th", "2 3", "5 +", "4 ±", "5 apples"],
)  # fmt: skip
def test_what_is_no_single_number(text: str) -> None:
    assert value_of(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("5+1", 6), ("2^3", 8), ("2 x 3", 6), ("3!", 6), ("12 dozen", 144), ("1011_2", 11), ("-(-5)", 5), ("7 ½", Fraction(15, 2)),
     (r"0.\overline{3}", Fraction(1, 3)), (r"0.1\overline{6}", Fraction(1, 6)), ("１２．５", Fraction(25, 2))],
)  # fmt: skip
def test_what_is_computed(text: str, value: Fraction) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("one", "other", "equal"),
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
def test_units(one: str, other: str, equal: bool) -> None:
    assert same(one, other) is equal
    assert same(other, one) is equal


def test_every_unit_is_read_and_equals_itself() -> None:
    for name, unit in known_units().items():
        escaped = name.replace("%", r"\%").replace("$", r"\$")
        [value] = read(rf"5 \text{{ {escaped}}}")
        assert isinstance(value, Value)
        assert value.unit == unit_named(name) == unit, name


def test_powers_of_units() -> None:
    meter = known_units()["m"]
    assert raised(meter, 3).same_dimension(known_units()["L"])
    assert raised(raised(meter, -1), -1) == meter


def test_latex_dress() -> None:
    assert cleaned(r"$1{,}200\,\mathrm{mg}$") == "1,200 \x02mg\x03"
    assert cleaned(r"\left(\dfrac{1}{2}\right).").replace(" ", "") == r"(\frac{1}{2})"


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
