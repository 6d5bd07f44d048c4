"""What an expression is worth: exactly where it is rational, else as a complex number.

Evaluated at points, two expressions that differ are found to differ without any algebra; that two
are equal is decided here only where the arithmetic is exact.
"""

from __future__ import annotations

import cmath
import math
import operator
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache

from labeling.answers.grammar.expressions import Expr

MAX_BITS = 60_000
"""Larger exact numbers are not computed."""


class NotExact(Exception):
    """The value is not rational, or too large to compute."""


def exact(expr: Expr, values: Mapping[str, Fraction] | None = None) -> Fraction:
    """The exact rational value.

    Args:
        expr: the expression.
        values: of its variables.

    Raises:
        NotExact: it is irrational, undefined, too large, or has another variable.
    """
    values = values or {}
    if expr.op == "num":
        return expr.value
    if expr.op == "sym":
        if expr.name in values:
            return values[expr.name]
        raise NotExact(expr.name)
    if expr.op == "based":
        digits, base = expr.args
        return Fraction(int(str(digits.value), int(base.value)))
    args = [exact(arg, values) for arg in expr.args]
    if any(max(abs(arg.numerator), arg.denominator).bit_length() > MAX_BITS for arg in args):
        raise NotExact("too large")
    rule = _EXACT.get(expr.op)
    if rule is None:
        raise NotExact(expr.op)
    return rule(*args)


def _divide(top: Fraction, bottom: Fraction) -> Fraction:
    if bottom == 0:
        raise NotExact("division by zero")
    return top / bottom


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        return _root(
            base**exponent.numerator if abs(exponent) < 64 else _no("too large"),
            Fraction(exponent.denominator),
        )
    power = exponent.numerator
    bits = max(abs(base.numerator), base.denominator).bit_length()
    if bits * abs(power) > MAX_BITS and abs(base) != 1 and base != 0:
        raise NotExact("too large")
    if base == 0 and power < 0:
        raise NotExact("division by zero")
    if abs(base) == 1:
        return base if power % 2 else Fraction(1)
    return Fraction(base**power)


def _no(why: str) -> Fraction:
    raise NotExact(why)


def _root(radicand: Fraction, degree: Fraction) -> Fraction:
    """The rational root, if there is one."""
    if degree.denominator != 1 or not 1 <= degree <= 64 or radicand < 0:
        raise NotExact("root")
    root = int(degree)
    parts = []
    for part in (radicand.numerator, radicand.denominator):
        guess = _integer_root(part, root)
        if guess**root != part:
            raise NotExact("irrational")
        parts.append(guess)
    return Fraction(parts[0], parts[1])


def _integer_root(value: int, degree: int) -> int:
    if degree == 2:
        return math.isqrt(value)
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
    return low


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or not 0 <= value <= 3000:
        raise NotExact("factorial")
    return Fraction(math.factorial(int(value)))


def _binomial(n: Fraction, k: Fraction) -> Fraction:
    if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= 3000:
        raise NotExact("binomial")
    return Fraction(math.comb(int(n), int(k)))


def _logarithm(value: Fraction, base: Fraction | None = None) -> Fraction:
    if base is None or value <= 0 or base <= 1 or base.denominator != 1:
        raise NotExact("log")
    power, rest = 0, value
    while rest > 1 and power < 5000:
        rest, power = rest / base, power + 1
    while rest < 1 and power > -5000:
        rest, power = rest * base, power - 1
    if rest != 1:
        raise NotExact("log")
    return Fraction(power)


_EXACT: dict[str, Callable[..., Fraction]] = {
    "add": operator.add,
    "mul": operator.mul,
    "div": _divide,
    "neg": operator.neg,
    "pow": _power,
    "root": _root,
    "fact": _factorial,
    "binom": _binomial,
    "abs": abs,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "log": _logarithm,
}


# Complex numbers ---------------------------------------------------------------------------------


def approximate(expr: Expr, values: Mapping[str, complex] | None = None) -> complex | None:
    """The value as a complex number of double precision.

    None where it is undefined, overflows, or has a function or variable without a value.
    """
    try:
        value = _complex(expr, values or {})
    except (ArithmeticError, ValueError, TypeError, KeyError, NotExact):
        return None
    return value if cmath.isfinite(value) else None


def _complex(expr: Expr, values: Mapping[str, complex]) -> complex:
    if expr.op == "num":
        return complex(float(expr.value))
    if expr.op == "sym":
        return values[expr.name] if expr.name in values else _CONSTANTS[expr.name]
    if expr.op == "based":
        return complex(float(exact(expr)))
    args = [_complex(arg, values) for arg in expr.args]
    return complex(_COMPLEX[expr.op](*args))


def _real(value: complex) -> float:
    if abs(value.imag) > 1e-9 * max(1.0, abs(value.real)):
        raise ValueError("not real")
    return value.real


def _complex_power(base: complex, exponent: complex) -> complex:
    if base == 0:
        if exponent.real <= 0:
            raise ZeroDivisionError
        return 0j
    return (
        cmath.exp(exponent * cmath.log(base))
        if exponent.imag or exponent.real % 1
        else complex(base ** int(exponent.real))
        if abs(exponent.real) < 1e4
        else cmath.exp(exponent * cmath.log(base))
    )


def _complex_root(radicand: complex, degree: complex) -> complex:
    if radicand.imag == 0 and radicand.real < 0 and degree.real % 2 == 1:
        return -_complex_power(-radicand, 1 / degree)  # the real cube root, as schools take it
    return cmath.sqrt(radicand) if degree == 2 else _complex_power(radicand, 1 / degree)


def _complex_log(value: complex, base: complex = 10 + 0j) -> complex:
    return cmath.log(value) / cmath.log(base)


def _by_gamma(value: complex) -> float:
    return math.gamma(_real(value) + 1)


def _complex_binomial(n: complex, k: complex) -> float:
    return _by_gamma(n) / _by_gamma(k) / _by_gamma(n - k)


_CONSTANTS: dict[str, complex] = {"pi": math.pi + 0j, "e": math.e + 0j, "i": 1j}
_COMPLEX: dict[str, Callable[..., complex]] = {
    "add": operator.add,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": lambda value: 0 - value,  # -value would put -1 on the other side of the branch cut
    "pow": _complex_power,
    "root": _complex_root,
    "fact": _by_gamma,
    "binom": _complex_binomial,
    "abs": abs,
    "floor": lambda value: math.floor(_real(value)),
    "ceil": lambda value: math.ceil(_real(value)),
    "log": _complex_log,
    "ln": cmath.log,
    "exp": cmath.exp,
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda value: 1 / cmath.tan(value),
    "sec": lambda value: 1 / cmath.cos(value),
    "csc": lambda value: 1 / cmath.sin(value),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "arccot": lambda value: math.pi / 2 - cmath.atan(value),
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "sgn": lambda value: math.copysign(1, _real(value)) if value else 0,
}


# Points ------------------------------------------------------------------------------------------


@cache
def points(
    names: tuple[str, ...], *, signed: bool = False, count: int = 6
) -> tuple[dict[str, complex], ...]:
    """Fixed pseudo-random values for variables: positive, or of either sign."""
    source = random.Random(f"{names} {signed}")
    low = -2.5 if signed else 0.4
    return tuple({name: complex(source.uniform(low, 2.5)) for name in names} for _ in range(count))


@cache
def whole_points(names: tuple[str, ...], count: int = 5) -> tuple[dict[str, complex], ...]:
    """Small whole numbers for variables that may count something."""
    return tuple(
        {name: complex(1 + at + 2 * place) for place, name in enumerate(names)}
        for at in range(count)
    )


@cache
def exact_points(
    names: tuple[str, ...], *, signed: bool = False, count: int = 3
) -> tuple[dict[str, Fraction], ...]:
    """Rational values at which two different rational functions are all but sure to differ."""
    source = random.Random(f"exact {names} {signed}")
    return tuple(
        {
            name: Fraction(source.randint(101, 9973), source.randint(11, 97))
            * (source.choice((1, -1)) if at and signed else -1 if signed else 1)
            for name in names
        }
        for at in range(count)
    )
