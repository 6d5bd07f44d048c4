"""What holds for every answer: a gold equals itself however it is spelled, a changed one is never right."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labeling.answers.grammar.reader import read
from labeling.answers.grammar.tokens import UnreadAnswer
from tests.labeling.answers.deciding import checker, decide

NAMES = (
    "pneumonia",
    "aortic stenosis",
    "ovarian torsion",
    "hepatitis B",
    "Kawasaki disease",
    "otitis media",
)
QUALIFIERS = ("left", "right", "bilateral", "mild", "severe", "acute", "chronic", "type 1", "type 2", "stage II",
              "stage III", "anterior", "posterior", "recurrent")  # fmt: skip
UNITS = {
    "mg": ("g", Fraction(1, 1000)),
    "cm": ("mm", Fraction(10)),
    "h": ("min", Fraction(60)),
    "L": ("mL", Fraction(1000)),
}
MATH = st.text(
    alphabet="0123456789+-*/^=<>()[]{}\\,.;:! $%xyπ°±√fracsqrtboxedThe answer is\n정답은입니다②",
    max_size=60,
)

integers = st.integers(-(10**7), 10**7)
positive = st.integers(2, 10**6)
small = st.integers(-20, 20)


def ends(answer: str) -> list[str]:
    return [rf"So it is $\boxed{{{answer}}}$.", f"The answer is ${answer}$.", f"#### {answer}"]


@settings(max_examples=20, deadline=None)
@given(integers)
def test_an_integer_in_every_spelling(number: int) -> None:
    wide = str(number).translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    spellings = [str(number), f"{number:,}", f"{number}.0", rf"\frac{{{2 * number}}}{{2}}", f"x = {number}",
                 f"{number * 100}\\%", rf"\text{{{number}}}", wide, f"{number} apples", f"{number}e0"]  # fmt: skip
    for spelling in spellings:
        for end in ends(spelling):
            assert decide(str(number), end) is True, end


@settings(max_examples=20, deadline=None)
@given(integers, st.integers(1, 10**6), st.sampled_from(["+", "-"]))
def test_a_changed_number_is_never_right(number: int, change: int, sign: str) -> None:
    other = number + change if sign == "+" else number - change
    assume(other * 100 != number and number * 100 != other)
    for spelling in (
        str(other),
        f"{other:,}",
        rf"\frac{{{2 * other}}}{{2}}",
        f"x={other}",
        f"{other} mg",
    ):
        for end in ends(spelling):
            assert decide(str(number), end) is False, end


@settings(max_examples=20, deadline=None)
@given(positive, st.integers(2, 999))
def test_an_operator_or_a_further_element_is_never_right(number: int, other: int) -> None:
    changed = [f"{number} + {other}", f"{number} - {other}", rf"{number} \cdot {other}", f"{number}/{other}",
               f"{number}^{{{other}}}", rf"{number}\sqrt{{{other}}}", rf"\sqrt{{{number}}}", f"{number}x", rf"{number}\pi",
               f"{number}, {other}", f"{number} and {other}", rf"{number} \pm {other}", f"({number}, {other})",
               f"{number} : {other}", f"-{number}", f"{number} < x", rf"{number} \text{{ or }} {other}", f"{number}i",
               f"{number} - x", f"{number}, {number}", rf"{number} \ln {other}", f"{number}e{other}"]  # fmt: skip
    for answer in changed:
        for end in ends(answer):
            assert decide(str(number), end) is not True, end


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10**5), st.sampled_from(sorted(UNITS)), st.sampled_from(sorted(UNITS)))
def test_units_convert_within_their_dimension(number: int, unit: str, other: str) -> None:
    smaller, factor = UNITS[unit]
    converted = number * factor
    shown = str(converted.numerator) if converted.denominator == 1 else f"{float(converted):.6f}"
    gold = rf"{number} \text{{ {unit}}}"
    assert decide(gold, f"The answer is {number} {unit}.") is True
    assert decide(gold, rf"\boxed{{{shown}\,\mathrm{{{smaller}}}}}") is True
    assert decide(gold, rf"\boxed{{{number}\,\mathrm{{{smaller}}}}}") is False
    if other != unit:
        assert decide(gold, f"The answer is {number} {other}.") is False
    assert decide(gold, f"The answer is {number} {unit} and 3 {other}.") is not True


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=5, unique=True))
def test_lists_sets_and_tuples(numbers: list[int]) -> None:
    shown = ", ".join(map(str, numbers))
    turned = ", ".join(map(str, [*numbers[1:], numbers[0]]))
    for gold, answer in (
        (shown, turned),
        (rf"\{{{shown}\}}", rf"\{{{turned}\}}"),
        (rf"\{{{shown}\}}", turned),
    ):
        assert decide(gold, rf"\boxed{{{answer}}}") is True
    assert decide(f"({shown})", rf"\boxed{{({shown})}}") is True
    assert decide(f"({shown})", rf"\boxed{{({turned})}}") is not True
    for more in (f"{shown}, 99", f"{shown}, {numbers[0]}", ", ".join(map(str, numbers[:-1]))):
        assert decide(shown, rf"\boxed{{{more}}}") is not True
    assert decide(rf"\{{{shown}\}}", rf"\boxed{{\{{{shown}, 99\}}}}") is not True


@settings(max_examples=20, deadline=None)
@given(small, small, small, small.filter(bool), st.integers(1, 5))
def test_equations_up_to_a_factor(a: int, b: int, c: int, factor: int, change: int) -> None:
    assume(a and b)
    gold = f"{a}x + {b}y = {c}"
    scaled = f"{a * factor}x + {b * factor}y - {c * factor} = 0"
    assert decide(gold, rf"\boxed{{{scaled}}}") is True
    for changed in (f"{a}x + {b}y = {c + change}", f"{a}x - {b}y = {c}", f"{a}x + {b}y + z = {c}", f"{a}x^2 + {b}y = {c}",
                    f"{a}x + {b}y + {change} = {c}", f"{a}x + {b}z = {c}", f"{a}x + {b}y < {c}"):  # fmt: skip
        assert decide(gold, rf"\boxed{{{changed}}}") is not True, changed


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 20), st.integers(1, 30), st.integers(2, 31))
def test_mixed_numbers_are_sums(whole: int, top: int, bottom: int) -> None:
    assume(whole and top < bottom)
    gold = rf"\frac{{{whole * bottom + top}}}{{{bottom}}}"
    mixed = rf"{whole}\frac{{{top}}}{{{bottom}}}"
    assert decide(gold, rf"\boxed{{{mixed}}}") is True
    assert decide(mixed, rf"\boxed{{{gold}}}") is True
    assert decide(rf"\frac{{{whole * top}}}{{{bottom}}}", rf"\boxed{{{mixed}}}") is not True


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 99), st.integers(1, 99), st.integers(-300, -8))
def test_tiny_values_are_not_rounded_away(one: int, other: int, power: int) -> None:
    assume(one != other)
    assert decide(rf"{one} \times 10^{{{power}}}", rf"\boxed{{{one}e{power}}}") is True
    assert decide(rf"{one} \times 10^{{{power}}}", rf"\boxed{{{other}e{power}}}") is False
    assert decide(rf"{one} \times 10^{{{power}}}", r"\boxed{0}") is False


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(NAMES), st.sampled_from(QUALIFIERS), st.sampled_from(QUALIFIERS))
def test_qualifiers_of_diagnoses_agree(name: str, qualifier: str, other: str) -> None:
    for gold in (f"{name} ({qualifier})", f"{qualifier} {name}"):
        for answer in (f"{name} ({qualifier})", f"{qualifier} {name}"):
            if gold == answer or "(" in gold or "(" in answer:
                assert decide(gold, f"Final diagnosis: {answer}") is True, (gold, answer)
        for answer in (f"{name} ({other})", f"{other} {name}", f"{qualifier} {other} {name}x"):
            if other != qualifier:
                assert decide(gold, f"Final diagnosis: {answer}") is not True, (gold, answer)
    for added in (f"{name} ({qualifier})", f"{qualifier} {name}", f"{name}, {qualifier}"):
        assert decide(name, f"Final diagnosis: {added}") is not True, added


@settings(max_examples=150, deadline=None)
@given(
    MATH,
    st.sampled_from(["42", r"\frac{\pi}{2}", "x + y = 5", "(1, 2)", "yes", "appendicitis", "5 mg"]),
)
def test_no_text_breaks_the_reader(text: str, gold: str) -> None:
    one = checker(gold)
    answer = one.extract(text)
    assert answer is None or one.is_correct(answer) in {True, False, None}
    with suppress(UnreadAnswer):
        assert read(text)
