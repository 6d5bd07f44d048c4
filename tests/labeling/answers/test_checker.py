"""Reading and checking answers: the right decision on every tricky pair, and none by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.answers import AnswerChecker, MathProcess, unusable_gold
from labeling.answers.words import option_letter
from tests.labeling.answers.answer_cases import CHOICES, MATHEMATICS, NUMBERS, OPTIONS
from traces.errors import InputError
from traces.problem import Problem


class NoMath(MathProcess):
    """Fails where a plain answer should not have needed mathematics."""

    def _started(self) -> object:  # type: ignore[override]
        raise AssertionError("started a process for a plain answer")


def checker(gold: str, *options: str, math: MathProcess | None = None) -> AnswerChecker:
    return AnswerChecker.for_problem(Problem("p", "q", options, gold), math or NoMath())


@pytest.mark.parametrize(("solution", "letter"), CHOICES)
def test_multiple_choice(solution: str, letter: str | None) -> None:
    assert checker("B", *OPTIONS).extract(solution) == letter


def test_choice_is_right_or_wrong() -> None:
    one = checker("(b)", *OPTIONS)
    assert one.kind == "choice"
    assert one.gold == "B"
    assert one.is_correct("B") is True
    assert one.is_correct("A") is False


@given(st.text(alphabet="The answer is(ABCDEFX).\\boxed{} not\n", max_size=60))
def test_no_letter_beyond_the_options(solution: str) -> None:
    assert checker("A", "one", "two").extract(solution) in {None, "A", "B"}


@pytest.mark.parametrize(
    ("gold", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("b.", "B"),
        ("Aspirin.", "A"),
        ("E", None),
        ("x y", None),
    ],
)
def test_gold_as_letter_or_text(gold: str, letter: str | None) -> None:
    assert option_letter(gold, OPTIONS) == letter


def test_options_that_read_alike_are_told_apart_by_letter_only() -> None:
    alike = checker("A", "10 mg", "10 mg", "100 mg")
    assert alike.extract("The answer is 10 mg.") is None
    assert alike.extract("The answer is 100 mg.") == "C"
    assert alike.extract("The answer is B.") == "B"
    assert checker("A", "1", "1.5").extract("The answer is 1.5") == "B"
    assert checker("A", "10 mg", "10 mg/kg").extract("The answer is 10 mg/kg") == "B"


@pytest.mark.parametrize(
    ("gold", "solution", "word", "right"),
    [
        ("yes", "The answer is yes.", "yes", True),
        ("Yes", "Answer: **Yes**, because", "yes", True),
        ("no", "The answer is no", "no", True),
        ("no", "The answer is yes", "yes", False),
        ("maybe", "It is open.\nmaybe", "maybe", True),
        ("no", "The answer is not yes", None, None),
        ("no", "There is no answer", None, None),
        ("yes", "The answer is nothing", None, None),
        ("yes", r"\boxed{\text{yes}}", "yes", True),
    ],
)
def test_yes_no_maybe(gold: str, solution: str, word: str | None, right: bool | None) -> None:
    one = checker(gold)
    assert one.kind == "word"
    found = one.extract(solution)
    assert found == word
    assert (None if found is None else one.is_correct(found)) is right


@pytest.mark.parametrize(("gold", "solution", "answer", "right"), NUMBERS)
def test_numbers_need_no_process(
    gold: str, solution: str, answer: str | None, right: bool | None
) -> None:
    one = checker(gold)
    assert one.kind == "number"
    found = one.extract(solution)
    assert found == answer
    assert (None if found is None else one.is_correct(found)) is right


@pytest.mark.parametrize(
    ("gold", "solution", "right"),
    [
        ("Aspirin", "The final diagnosis is aspirin.", True),
        ("acute myocarditis", "Final diagnosis: **Acute Myocarditis**", True),
        ("aspirin", "The answer is the aspirin (acetylsalicylic acid).", True),
        ("aspirin", "The answer is heparin.", False),
    ],
)
def test_free_text(gold: str, solution: str, right: bool) -> None:
    one = checker(gold)
    assert one.kind == "text"
    found = one.extract(solution)
    assert found is not None
    assert one.is_correct(found) is right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 90", None),  # 900?
        ("The answer is 900.", None),  # 900.5?
        ("The answer is 900. And then", "900"),
        ("The answer is 900\nAnd", "900"),
        (r"\boxed{900}", "900"),
        (r"\boxed{90", None),
        ("The answer is 800. The answer is 9", "800"),
        ("900", None),
    ],
)
def test_cut_text_gives_no_half_answer(text: str, answer: str | None) -> None:
    assert checker("900").extract(text, finished=False) == answer


# Mathematics, in the process -------------------------------------------------------------------


@pytest.fixture(scope="module")
def math() -> Iterator[MathProcess]:
    with MathProcess(timeout_s=20) as process:
        yield process


@pytest.mark.slow
@pytest.mark.parametrize(("gold", "solution", "right"), MATHEMATICS)
def test_mathematics(gold: str, solution: str, right: bool | None, math: MathProcess) -> None:
    one = checker(gold, math=math)
    found = one.extract(solution)
    if right is None:
        assert found is None
    else:
        assert found is not None
        assert one.is_correct(found) is right


@pytest.mark.slow
@pytest.mark.parametrize("gold", [r"\frac{1}{", "{", r"\undefined{x_", r"10^{10^{10^{10}}}"])
def test_gold_that_cannot_be_read_or_decided_is_said_up_front(gold: str) -> None:
    with MathProcess(timeout_s=1) as process:
        said = unusable_gold(Problem("p", "q", answer=gold), process)
    assert said is not None
    assert gold[:80] in said


@pytest.mark.slow
@pytest.mark.parametrize("gold", [r"\frac{1}{2}", "x^2", "(1,2)", r"\{1\}"])
def test_readable_gold_is_usable(gold: str, math: MathProcess) -> None:
    assert unusable_gold(Problem("p", "q", answer=gold), math) is None


def test_plain_gold_is_judged_without_a_process() -> None:
    for gold in ("900 mg", "yes", "aspirin", None, "  "):
        assert unusable_gold(Problem("p", "q", answer=gold), NoMath()) is None
    assert unusable_gold(Problem("p", "q", ("a", "b"), "B"), NoMath()) is None
    said = unusable_gold(Problem("p", "q", ("a", "b"), "C"), NoMath())
    assert said == "The gold answer 'C' is not one of the 2 options."


def test_no_gold_has_no_checker() -> None:
    for gold in (None, "", " "):
        with pytest.raises(InputError, match="no gold answer"):
            AnswerChecker.for_problem(Problem("p", "q", answer=gold))
