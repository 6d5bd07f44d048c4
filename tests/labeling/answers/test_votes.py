"""Equal answers have one spelling, different ones do not."""

from __future__ import annotations

import doctest

import pytest

import labeling.answers.checker
from labeling.answers import normal_answer


def test_docstring_examples() -> None:
    assert doctest.testmod(labeling.answers.checker).failed == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5.00", "5"),
        ("118,000", "118000"),
        ("\\$29.00", "29"),
        ("25\\%", "25 %"),
        ("1/2", "0.5"),
        ("1.5 h", "90 min"),
        ("(B)", "B"),
        (" Yes. ", "yes"),
        ("\\text{Aspirin}", "aspirin"),
    ],
)
def test_equal_answers_meet(one: str, other: str) -> None:
    assert normal_answer(one) == normal_answer(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "50"),
        ("5", "-5"),
        ("900 mg", "900 g"),
        ("900 mg", "900 ml"),
        ("A", "B"),
        ("x+1", "x-1"),
    ],
)
def test_different_answers_stay_apart(one: str, other: str) -> None:
    assert normal_answer(one) != normal_answer(other)
