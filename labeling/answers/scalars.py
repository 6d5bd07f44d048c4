"""Whether two scalars, or two equations between scalars, are the same.

Numbers are compared exactly; only where one is a decimal, a relative tolerance allows for its
rounding. Expressions are evaluated at points: where they differ there, they differ; where they
agree and the arithmetic was not exact, the symbolic back end has to confirm it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from labeling.answers.grammar.evaluation import (
    NotExact,
    approximate,
    exact,
    exact_points,
    points,
    whole_points,
)
from labeling.answers.grammar.expressions import CONSTANTS, Expr
from labeling.answers.grammar.readings import Equation

TOLERANCE = 1e-6
"""Relative difference up to which a decimal is another value's rounding."""
CLOSE = 1e-9
"""Relative difference up to which two values of double precision may be one."""
Confirm = Callable[[Expr, Expr], bool | None]
"""Whether two expressions that agree at many points are equal; None if that is undecided."""


@dataclass(frozen=True, slots=True)
class Scalars:
    """The rules for single expressions, with their tolerance and their symbolic back end."""

    confirm: Confirm
    """Asked only where expressions that are not rational agree numerically."""
    tolerance: float = TOLERANCE
    """Relative, for decimals."""

    def expressions(self, gold: Expr, answer: Expr) -> bool | None:
        """Whether two scalars are equal."""
        if gold.op == answer.op == "num":
            return self._numbers(gold, answer)
        if "based" in {gold.op, answer.op}:
            return _based(gold, answer)
        names = tuple(sorted((gold.symbols | answer.symbols) - CONSTANTS))
        if gold == answer:
            return True if names or valued(gold) else None
        rounded = gold.rounded or answer.rounded
        try:
            equal = self._exactly(gold, answer, exact_points(names) if names else ({},), rounded)
            if not equal or not names:
                return equal
            # What is equal for positive values alone, as |x| and x are, is undecided.
            return self._exactly(gold, answer, exact_points(names, signed=True), rounded) or None
        except NotExact:
            return self._complex(gold, answer, names, rounded=rounded)

    def _exactly(
        self, gold: Expr, answer: Expr, at: Sequence[dict[str, Fraction]], rounded: object
    ) -> bool:
        pairs = [(exact(gold, point), exact(answer, point)) for point in at]
        if all(one == other for one, other in pairs):
            return True
        return bool(rounded) and all(self._near(one, other) for one, other in pairs)

    def _numbers(self, gold: Expr, answer: Expr) -> bool:
        if gold.value == answer.value:
            return True
        return (gold.decimal or answer.decimal) and self._near(gold.value, answer.value)

    def _near(self, gold: Fraction, answer: Fraction) -> bool:
        return abs(gold - answer) <= Fraction(self.tolerance) * abs(gold)

    def _complex(
        self, gold: Expr, answer: Expr, names: tuple[str, ...], *, rounded: bool
    ) -> bool | None:
        """Compare at points; what agrees everywhere is confirmed symbolically."""
        limit = self.tolerance if rounded else CLOSE
        agreed = _agreement(gold, answer, points(names) if names else ({},), limit)
        if agreed is None:
            return None
        if not agreed:
            whole = names and _agreement(gold, answer, whole_points(names), limit)
            return None if whole else False
        if rounded:
            return True
        if names and not _agreement(gold, answer, points(names, signed=True), limit):
            return None  # equal for positive values alone, as |x| and x are
        return self.confirm(gold, answer)

    # Equations -------------------------------------------------------------------------------

    def equations(self, gold: Equation, answer: Equation) -> bool | None:
        """Equal up to a nonzero constant factor, or with the same numerators."""
        one, other = _difference(gold), _difference(answer)
        names = tuple(sorted((one.symbols | other.symbols) - CONSTANTS))
        if one.symbols - CONSTANTS != other.symbols - CONSTANTS:
            return False
        try:
            values = [(exact(one, at), exact(other, at)) for at in exact_points(names)]
        except NotExact:
            return self._proportional(one, other, names)
        if any(b == 0 for _, b in values):
            return None
        ratios = {a / b for a, b in values}
        if len(ratios) == 1 and 0 not in ratios:
            return True
        if one.rounded or other.rounded:
            first = values[0][0] / values[0][1]
            return all(self._near(a, b * first) for a, b in values)
        return self._same_roots(one, other, names)

    def _proportional(self, one: Expr, other: Expr, names: tuple[str, ...]) -> bool | None:
        values = [(approximate(one, at), approximate(other, at)) for at in points(names)]
        if any(a is None or not b for a, b in values):
            return None
        ratios = [a / b for a, b in values if a is not None and b]
        rounded = one.rounded or other.rounded
        limit = self.tolerance if rounded else CLOSE
        if (
            all(abs(ratio - ratios[0]) <= limit * abs(ratios[0]) for ratio in ratios)
            and abs(ratios[0]) > CLOSE
        ):
            return True
        return self._same_roots(one, other, names)

    def _same_roots(self, one: Expr, other: Expr, names: tuple[str, ...]) -> bool | None:
        """Whether two functions vanish together, found by solving for each variable."""
        for name in names:
            for at in points(names, count=4):
                for a, b in ((one, other), (other, one)):
                    root = _root_of(a, name, at)
                    if root is None:
                        continue
                    value = approximate(b, {**at, name: root})
                    near = approximate(b, {**at, name: root * (1 + 1e-3) + 1e-3})
                    if (
                        value is not None
                        and near is not None
                        and abs(value) > 1e-5 * max(abs(near), 1e-12)
                    ):
                        return False
        return None if len(names) == 1 else _numerators(one, other, names)


def valued(expr: Expr) -> bool:
    """Whether a number can be computed at all."""
    if expr.op in {"num", "based"} or any(node.op == "pm" for node in expr.walk()):
        return True
    try:
        exact(expr)
    except NotExact:
        return approximate(expr) is not None or any(node.op == "sym" for node in expr.walk())
    return True


def _agreement(
    gold: Expr, answer: Expr, at: Sequence[dict[str, complex]], limit: float
) -> bool | None:
    """Whether the values agree at all points; None where no point gives both a value."""
    seen = False
    for point in at:
        one, other = approximate(gold, point), approximate(answer, point)
        if one is None or other is None:
            if (one is None) != (other is None) and not point:
                return None
            continue
        seen = True
        if abs(one - other) > limit * max(abs(one), abs(other)):
            return False
    return True if seen else None


def _difference(equation: Equation) -> Expr:
    return Expr("add", (equation.left, Expr("neg", (equation.right,))))


def _root_of(expr: Expr, name: str, at: dict[str, complex]) -> complex | None:
    """A value of one variable at which an expression vanishes, by the secant method."""
    for start in (at[name], at[name] * 3 - 2.2, complex(-1.7, 0.9)):
        a, b = start, start + 0.1
        fa, fb = approximate(expr, {**at, name: a}), approximate(expr, {**at, name: b})
        for _ in range(60):
            if fa is None or fb is None or fa == fb:
                break
            a, b, fa = b, b - fb * (b - a) / (fb - fa), fb
            if abs(b) > 1e8:
                break
            fb = approximate(expr, {**at, name: b})
            if fb is not None and abs(b - a) < 1e-12 * max(1.0, abs(b)) and abs(fb) < 1e-9:
                return b
    return None


def _numerators(one: Expr, other: Expr, names: tuple[str, ...]) -> bool | None:
    """True where roots were found for some variable and all of them are shared."""
    found = [
        _root_of(expr, name, at)
        for expr in (one, other)
        for name in names
        for at in points(names, count=4)
    ]
    return True if sum(root is not None for root in found) >= 4 else None


def _based(gold: Expr, answer: Expr) -> bool | None:
    """Numbers in a base: by their digits where only one side names it."""
    if gold.op == answer.op:
        return exact(gold) == exact(answer)
    digits = [side.args[0].value if side.op == "based" else side.value for side in (gold, answer)]
    if any(side.op not in {"based", "num"} for side in (gold, answer)):
        return None
    return digits[0] == digits[1]


def all_of(decisions: Iterable[bool | None]) -> bool | None:
    """False if one is, else None if one is undecided."""
    seen = list(decisions)
    return False if False in seen else None if None in seen else True
