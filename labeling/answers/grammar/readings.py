"""What an answer can be read as: one small type for each kind."""

from __future__ import annotations

from dataclasses import dataclass, field

from labeling.answers.grammar.expressions import Expr
from labeling.answers.grammar.units import Unit


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar with what it counts."""

    expr: Expr
    unit: Unit | None = None
    noun: str = ""
    """Words after the number that are no unit we know: `apples`, `twice daily`."""
    start: int = field(default=0, compare=False)
    """Offset in the prepared text where the number begins."""
    end: int = field(default=-1, compare=False)
    """Offset in the prepared text where number and unit end."""


@dataclass(frozen=True, slots=True)
class Named:
    """A value with the name it is given (`x = 5`, `f(x) = x + 1`, `x \\in [1, 2]`)."""

    name: str
    value: Answer


@dataclass(frozen=True, slots=True)
class Equation:
    """Two expressions that are equal, the left one being more than a name."""

    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain of inequalities; the operators are between the expressions."""

    sides: tuple[Expr | None, ...]
    """None in front of "at most 5"."""
    operators: tuple[str, ...]
    """<, <=, >, >=, !=, equiv."""
    unit: Unit | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """Several answers with or without brackets around them."""

    opening: str
    """( [ { or < ; empty without brackets."""
    closing: str
    items: tuple[Answer, ...]
    alternatives: bool = False
    """Whether they are joined by "or"."""


@dataclass(frozen=True, slots=True)
class Union:
    """A union of sets, or a set without another."""

    operator: str
    """cup, cap or setminus."""
    items: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of answers."""

    rows: tuple[tuple[Answer, ...], ...]
    determinant: bool = False


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """A time of day."""

    hour: int
    minute: int
    half: str
    """a, p, or empty where it is not said."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """`a : b : c`."""

    parts: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """From one number to another, with a unit."""

    low: Expr
    high: Expr
    unit: Unit | None = None


Answer = (
    Value | Named | Equation | Relation | Collection | Union | Matrix | TimeOfDay | Ratio | Range
)
