"""Five hundred pairs of gold answer and solution: no wrong decision on any of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from labeling.answers import TOLERANCE, AnswerChecker, check_golds, unusable_gold
from labeling.answers.grammar.reader import read
from labeling.answers.grammar.tokens import UnreadAnswer
from tests.labeling.answers.answer_pairs import CHOICES, RIGHT, UNDECIDED, WRONG
from tests.labeling.answers.deciding import HERE, checker, decide
from tests.labeling.answers.language_endings import CHINESE, JAPANESE, KOREAN, Ending
from traces.problem import Problem

PAIRS = [
    *((gold, solution, True) for gold, solution in RIGHT),
    *((gold, solution, False) for gold, solution in WRONG),
    *((gold, solution, None) for gold, solution in UNDECIDED),
]


def test_there_are_five_hundred_different_ones() -> None:
    assert len(set(PAIRS)) >= 500


@pytest.mark.parametrize("first", [*"$0123456789-", "other"])
def test_no_pair_is_decided_wrongly(first: str) -> None:
    mine = [
        pair for pair in PAIRS if (pair[0][0] if pair[0][0] in "$0123456789-" else "other") == first
    ]
    decided = [(gold, solution, decide(gold, solution)) for gold, solution, _ in mine]
    assert decided == mine


def test_no_choice_is_decided_wrongly() -> None:
    decided = [
        (gold, end, decide(gold, end, options), options) for gold, end, _, options in CHOICES
    ]
    assert decided == CHOICES


@pytest.mark.parametrize(
    ("endings", "least"), [(KOREAN, 100), (CHINESE, 40), (JAPANESE, 40)], ids=["ko", "zh", "ja"]
)
def test_endings_in_other_languages(endings: list[Ending], least: int) -> None:
    assert len({(gold, ending) for gold, ending, _, _ in endings}) >= least
    decided = [
        (gold, end, decide(gold, end, options), options) for gold, end, _, options in endings
    ]
    assert decided == endings


@pytest.mark.parametrize(
    ("text", "left_over"),
    [
        ("4 ± foo", "foo"),
        ("12 apples or so", "so"),
        ("4 squared", "squared"),
        (r"\frac{1}{", "end"),
        ("12th", "th"),
        ("2 3", "3"),
        ("4 (mod 7)", "7"),
        ("(1, 2", ")"),
        ("x = ", "missing"),
        ("5 + ", "end"),
        (r"\undefined{x}", r"\undefined"),
        ("y = x^2 (x >= 0)", ")"),
        ("", "nothing"),
        ("(" * 60 + "1" + ")" * 60, "nested"),
    ],
)
def test_what_is_left_over_is_named(text: str, left_over: str) -> None:
    with pytest.raises(UnreadAnswer, match=re.escape(left_over)):
        read(text)


def test_a_name_is_part_of_the_answer_only_where_the_gold_answer_has_one() -> None:
    assert checker("8").extract(r"\boxed{x = 8}") == "8"
    assert checker("x = 8").extract(r"\boxed{x = 8}") == "x = 8"
    assert checker("12 apples").extract("The answer is 12 pears.") == "12 pears"


def test_the_tolerance_is_relative_and_can_be_chosen() -> None:
    assert TOLERANCE == 1e-6
    problem = Problem("p", "q", answer="2.000000e-20")
    loose = AnswerChecker.for_problem(problem, tolerance=0.1)
    assert loose.is_correct("2.1e-20") is True
    assert checker("2.000000e-20").is_correct("2.1e-20") is False
    assert checker("2.000000e-20").is_correct("2.0000001e-20") is True
    assert checker("1000000").is_correct("1000001") is False


def test_several_boxes_on_one_line_are_a_list() -> None:
    both = r"So $x = \boxed{3}$ or $x = \boxed{5}$."
    assert decide("3, 5", both) is True
    assert decide("3, 7", both) is False
    assert decide("5", both) is True


# Gold answers --------------------------------------------------------------------------------------


def test_golds_that_cannot_be_compared_are_listed_once_with_their_reason() -> None:
    golds = ["42", r"\frac{1}{", "yes", None, "  ", "appendicitis", r"\undefined{x", "①③"]
    problems = [Problem(f"p{n}", "q", answer=gold) for n, gold in enumerate(golds)]
    problems.append(Problem("o", "q", ("a", "b"), "C"))
    found = check_golds([*problems, *problems], HERE)
    assert [one.problem_id for one in found] == ["p1", "p6", "o"]
    assert "cannot be read as a whole" in found[0].reason
    assert found[2].reason == "The gold answer 'C' is not one of the 2 options."


@pytest.mark.parametrize("gold", sorted({gold for gold, _, _ in PAIRS if len(gold) > 12}))
def test_a_gold_answer_equals_itself(gold: str) -> None:
    assert unusable_gold(Problem("p", "q", answer=gold), HERE) is None


def test_of_real_gold_answers_at_most_three_percent_are_undecided(
    real_data: Path,
) -> None:
    file = real_data / "gold_answers" / "math500.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    golds = [str(json.loads(line)["answer"]) for line in lines]
    decided = [decide(gold, rf"Hence it is $\boxed{{{gold}}}$.") for gold in golds]
    assert False not in decided
    assert decided.count(None) <= 0.03 * len(golds)
