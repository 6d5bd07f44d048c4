"""How fast and how right answers are checked, beside Math-Verify alone: `python -m benchmarks.answers`.

Solutions of some lines end with an answer whose truth is known by construction: half of them the gold
answer in another spelling, half of them changed (a digit, a sign, an element, an order, a unit). A
check reads the whole solution and compares. Math-Verify is given the same text and gold answer, with
its defaults; it knows neither options nor units, so the table shows where it is no peer.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from labeling import AnswerChecker
from traces import Problem

WORK = (
    "We first compute the whole amount, which is 40 + 12 = 52.\n"
    "Then we subtract the part that was used, which leaves the rest.\n"
    "The remaining steps do not change the result.\n"
)
OPTIONS = ("Amoxicillin", "Amoxicillin-clavulanate", "Ceftriaxone", "None of the above")


@dataclass(frozen=True)
class Row:
    """One check with its truth."""

    gold: str
    solution: str
    right: bool
    options: tuple[str, ...] = ()


Draw = Callable[[random.Random, bool], tuple[str, str]]
"""A gold answer and an answer that is right, or wrong."""


def number(draw: random.Random, right: bool) -> tuple[str, str]:
    """A number, with thousands separators, as a fraction, with a unit."""
    value = draw.randint(2, 99_999)
    given = value if right else value + draw.choice([-1, 1, 10])
    forms = ("{}", "{:,}", "{}.0", "x = {}", "{} mg", r"\frac{{{}}}{{1}}")
    return str(value), draw.choice(forms).format(given)


def quantity(draw: random.Random, right: bool) -> tuple[str, str]:
    """A dose in milligrams, in grams or with another unit."""
    value = 10 * draw.randint(1, 500)
    wrong = (f"{value} mL", f"{value} g", f"{value + 10} mg", f"{value} mg/kg")
    same = (f"{value} mg", f"{value / 1000} g", rf"{value}\,\text{{mg}}", f"{value * 1000:,} mcg")
    return f"{value} mg", draw.choice(same if right else wrong)


def collection(draw: random.Random, right: bool) -> tuple[str, str]:
    """A list, a tuple or an interval."""
    a, b, c = draw.sample(range(-20, 20), 3)
    low, high = sorted((a, b))
    kinds = (
        (f"{a}, {b}, {c}", f"{c}, {a}, {b}", f"{a}, {b}"),
        (f"({a}, {b})", f"({a},{b})", f"({b}, {a})"),
        (f"[{low}, {high})", rf"\left[{low},{high}\right)", f"({low}, {high})"),
        (rf"\{{{a}, {b}\}}", rf"\{{{b}, {a}\}}", rf"\{{{a}, {b}, {c}\}}"),
    )
    gold, same, other = draw.choice(kinds)
    return gold, same if right else other


def equation(draw: random.Random, right: bool) -> tuple[str, str]:
    """A line or a circle."""
    a, b, c = (draw.randint(1, 9) for _ in range(3))
    kinds = (
        (f"{a}x - {b}y = {c}", f"{2 * a}x - {2 * b}y - {2 * c} = 0", f"{a}x + {b}y = {c}"),
        (f"(x-{a})^2 + y^2 = {b}", f"y^2 + (x - {a})^2 = {b}", f"(x-{a})^2 + y^2 = {b + 1}"),
        (f"y = {a}x + {b}", f"y = {b} + {a}x", f"y = {a}x - {b}"),
    )
    gold, same, other = draw.choice(kinds)
    return gold, same if right else other


def expression(draw: random.Random, right: bool) -> tuple[str, str]:
    """A polynomial, a surd or a multiple of pi."""
    a, b = draw.randint(2, 9), draw.randint(2, 9)
    kinds = (
        (f"(x+{a})(x-{b})", f"x^2 + {a - b}x - {a * b}".replace("+ -", "- "), f"(x-{a})(x-{b})"),
        (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}", rf"\sqrt{{{a * b + 1}}}"),
        (rf"\frac{{{a}\pi}}{{{b}}}", rf"\frac{{{2 * a}}}{{{2 * b}}}\pi", rf"\frac{{{a}}}{{{b}}}"),
    )
    gold, same, other = draw.choice(kinds)
    return gold, same if right else other


def choice(draw: random.Random, right: bool) -> tuple[str, str]:
    """A letter of four."""
    gold, other = draw.sample("ABCD", 2)
    return gold, draw.choice(("{}", "({})", "**{}**", "{}.")).format(gold if right else other)


KINDS: dict[str, Draw] = {
    "number": number,
    "choice": choice,
    "quantity": quantity,
    "collection": collection,
    "equation": equation,
    "expression": expression,
}
ENDS = ("The answer is ${}$.", r"So it is $\boxed{{{}}}$.", "#### {}")


def rows(kind: str, count: int, seed: int) -> Iterator[Row]:
    """Checks of one kind; every second one is of a right answer."""
    draw = random.Random(f"{seed}:{kind}")
    for place in range(count):
        gold, answer = KINDS[kind](draw, place % 2 == 0)
        text = "The answer is {}." if kind in {"choice", "quantity"} else draw.choice(ENDS)
        options = OPTIONS if kind == "choice" else ()
        yield Row(gold, WORK + text.format(answer), place % 2 == 0, options)


def ours(checks: list[Row]) -> list[bool | None]:
    """The decisions of `AnswerChecker`."""
    decided: list[bool | None] = []
    for row in checks:
        checker = AnswerChecker.for_problem(Problem("p", "q", row.options, row.gold))
        answer = checker.extract(row.solution)
        decided.append(None if answer is None else checker.is_correct(answer))
    return decided


def peer(checks: list[Row]) -> list[bool | None]:
    """The decisions of Math-Verify with its defaults, but for its time limits."""
    from math_verify import parse, verify  # type: ignore[import-untyped]

    decided: list[bool | None] = []
    for row in checks:
        gold = parse(f"${row.gold}$", parsing_timeout=None)
        answer = parse(row.solution, parsing_timeout=None)
        equal = bool(verify(gold, answer, timeout_seconds=None))
        decided.append(equal if gold and answer else None)
    return decided


def measured(
    check: Callable[[list[Row]], list[bool | None]], checks: list[Row]
) -> dict[str, float]:
    """Checks a second and the shares of wrong and undecided ones."""
    began = time.perf_counter()
    decided = check(checks)
    seconds = time.perf_counter() - began
    wrong = sum(
        said is not None and said is not row.right
        for said, row in zip(decided, checks, strict=True)
    )
    return {
        "checks_per_second": round(len(checks) / seconds, 1),
        "wrong": wrong / len(checks),
        "undecided": decided.count(None) / len(checks),
    }


def main() -> None:
    """Measure every kind and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=4000, help="Checks of a kind [4000].")
    parser.add_argument("--peer-count", type=int, default=300, help="Checks by Math-Verify [300].")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    ours(list(rows("expression", 20, seed=-1)))  # starts the process
    table = {}
    for kind in KINDS:
        checks = list(rows(kind, given.count, given.seed))
        table[kind] = {
            "stepgold": measured(ours, checks),
            "math_verify": measured(peer, checks[: given.peer_count]),
        }
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
