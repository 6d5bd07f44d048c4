"""Whether two readings of answers say the same: one rule for each kind, never a guess.

Tuples are ordered, lists are compared with multiplicity, sets without; intervals and inequalities
as sets of numbers; units are converted within a dimension. What the rules cannot decide is None,
neither right nor wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations

from labeling.answers.grammar.evaluation import approximate, points
from labeling.answers.grammar.expressions import CONSTANTS, Expr, number
from labeling.answers.grammar.readings import (
    Answer,
    Collection,
    Equation,
    Matrix,
    Named,
    Range,
    Ratio,
    Relation,
    TimeOfDay,
    Union,
    Value,
)
from labeling.answers.grammar.units import Unit, unit_named
from labeling.answers.scalars import CLOSE, Scalars, all_of, valued

_FREQUENCY = re.compile(r"\b(?:daily|hourly|weekly|monthly|yearly|every|each)\b")
_MAX_MATCHED = 24
"""Elements of an unordered list that are matched one by one."""


@dataclass(frozen=True, slots=True)
class Equality:
    """The rules with their tolerance and their symbolic back end."""

    scalars: Scalars
    """The rules for single expressions."""

    def same(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        """Whether some reading of the one says what some reading of the other says."""
        decisions = [self.equal(one, other) for one in gold for other in answer]
        if True in decisions:
            return True
        return None if None in decisions else False

    def equal(self, gold: Answer, answer: Answer) -> bool | None:
        """Whether two readings say the same; None if that is undecided."""
        if gold == answer:
            return self._stable(gold)
        if isinstance(gold, Named) or isinstance(answer, Named):
            return self._named(gold, answer)
        if (_unconditional(gold) is gold) != (_unconditional(answer) is answer):
            return self._conditions(gold, answer)
        gold, answer = _spread(gold), _spread(answer)
        if isinstance(gold, Value) and isinstance(answer, Value):
            return self._values(gold, answer)
        if isinstance(gold, Equation) and isinstance(answer, Equation):
            return self.scalars.equations(gold, answer)
        if isinstance(gold, Collection) and isinstance(answer, Collection):
            return self._groups(gold, answer)
        return self._others(gold, answer)

    def _stable(self, answer: Answer) -> bool | None:
        """True, unless a number in it is too large to be compared with anything."""
        if isinstance(answer, Value) and not answer.expr.symbols - CONSTANTS:
            return True if valued(answer.expr) else None
        return True

    # Names -------------------------------------------------------------------------------------

    def _named(self, gold: Answer, answer: Answer) -> bool | None:
        """Two answers of which one at least has a name (`x = 5`)."""
        if isinstance(gold, Named) and isinstance(answer, Named):
            if gold.name == answer.name:
                return self.equal(gold.value, answer.value)
            return self._differently_named(gold, answer)
        for one, other in ((gold, answer), (answer, gold)):
            equation = _as_equation(one)
            if isinstance(other, Relation):
                return self._others(gold, answer)
            if isinstance(other, Equation) and equation is not None:
                return self.scalars.equations(equation, other)
        bare = [side.value if isinstance(side, Named) else side for side in (gold, answer)]
        return self.equal(bare[0], bare[1])

    def _differently_named(self, gold: Named, answer: Named) -> bool | None:
        if self._sides_swapped(gold, answer):
            return True
        decided = self.equal(gold.value, answer.value)
        # `f(x) = ..` and `y = ..` may be one function under two names, "area" and "A" one thing.
        alike = any(
            "(" in name or (name.isalpha() and len(name) > 1) for name in (gold.name, answer.name)
        )
        return False if decided is False or not alike else None

    def _sides_swapped(self, gold: Named, answer: Named) -> bool:
        """`x = y` and `y = x`; `y = 2x` and `x = y/2`: one equation solved for two names."""
        one, other = _as_equation(gold), _as_equation(answer)
        if one is None or other is None:
            return False
        names = (one.left.symbols | one.right.symbols) - CONSTANTS
        return len(names) > 1 and self.scalars.equations(one, other) is True

    # Scalars -----------------------------------------------------------------------------------

    def _values(self, gold: Value, answer: Value) -> bool | None:
        gold, answer = _unit_symbol(gold, answer), _unit_symbol(answer, gold)
        if gold.unit is not None and answer.unit is not None:
            return self._quantities(gold, answer)
        decided = self.scalars.expressions(gold.expr, answer.expr)
        if decided is not True:
            share = self.scalars.expressions(_as_share(gold), _as_share(answer))
            decided = share if share is True else decided
        if decided is True and (gold.noun or gold.unit) and (answer.noun or answer.unit):
            return (
                True
                if gold.noun == answer.noun and gold.unit == answer.unit
                else _same_noun(gold, answer)
            )
        return decided

    def _quantities(self, gold: Value, answer: Value) -> bool | None:
        one, other = gold.unit, answer.unit
        if one is None or other is None or not one.same_dimension(other):
            # "37 C" and "37 degrees" may be degrees Celsius, "5 mg daily" is 5 mg/day.
            unclear = {one, other} & {unit_named("C"), unit_named("degree")}
            return None if unclear or _FREQUENCY.search(f"{gold.noun} {answer.noun}") else False
        nouns = True if not (gold.noun and answer.noun) else _same_noun(gold, answer)
        decided = self.scalars.expressions(_in_base(gold.expr, one), _in_base(answer.expr, other))
        return nouns if decided is True else decided

    # Groups --------------------------------------------------------------------------------------

    def _conditions(self, gold: Answer, answer: Answer) -> bool | None:
        r"""Two answers of which one alone says where it holds (`, k \in \mathbb{Z}`)."""
        bare = _unconditional(gold), _unconditional(answer)
        decided = self.equal(*bare)
        return None if decided else decided

    def _groups(self, gold: Collection, answer: Collection) -> bool | None:
        if gold.opening == "" and answer.opening == "":
            return self._unordered(gold.items, answer.items)
        brackets = {gold.opening + gold.closing, answer.opening + answer.closing}
        if "" in brackets or "{}" in brackets:
            if brackets <= {"", "{}"}:
                one = self._distinct(gold) if gold.opening else gold.items
                other = self._distinct(answer) if answer.opening else answer.items
                return self._unordered(one, other)
            if "" in brackets:
                ordered = self._ordered(_values_of(gold), _values_of(answer))
                return None if ordered and "[]" in brackets and len(gold.items) == 2 else ordered
            return (
                False
                if len(gold.items) != len(answer.items)
                else self._ordered_unlike(gold, answer)
            )
        if len(brackets) > 1 and brackets - {"<>", "()"}:
            ordered = self._ordered(gold.items, answer.items)
            return False if ordered is not None else None
        return self._ordered(gold.items, answer.items)

    def _ordered_unlike(self, gold: Collection, answer: Collection) -> bool | None:
        """A set compared with a tuple: never equal, and undecided where the elements are."""
        return None if self._ordered(gold.items, answer.items) is not False else False

    def _distinct(self, group: Collection) -> tuple[Answer, ...]:
        kept: list[Answer] = []
        for item in group.items:
            if not any(self.equal(item, one) is True for one in kept):
                kept.append(item)
        return tuple(kept)

    def _ordered(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        if len(gold) != len(answer):
            return False
        return all_of(self.equal(one, other) for one, other in zip(gold, answer, strict=True))

    def _unordered(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        """Every element has its own counterpart."""
        gold, answer = _shared_units(gold), _shared_units(answer)
        if len(gold) != len(answer):
            return False
        if len(gold) > _MAX_MATCHED:
            return self._ordered(gold, answer) or None
        table = [[self.equal(one, other) for other in answer] for one in gold]
        if _matched(table, lambda cell: cell is True):
            return True
        return None if _matched(table, lambda cell: cell is not False) else False

    # Other kinds -------------------------------------------------------------------------------

    def _others(self, gold: Answer, answer: Answer) -> bool | None:
        unknowns = _unknowns(gold), _unknowns(answer)
        if None not in unknowns and unknowns[0] != unknowns[1]:
            return False
        for one, other in ((gold, answer), (answer, gold)):
            sets = _as_set(one), _as_set(other)
            if _is_set(one) and sets[0] is not None and sets[1] is not None:
                return self._sets(sets[0], sets[1])
        if type(gold) is type(answer):
            return self._alike(gold, answer)
        if isinstance(gold, Matrix) or isinstance(answer, Matrix):
            return self._as_vectors(gold, answer)
        if isinstance(gold, Ratio) or isinstance(answer, Ratio):
            return self._as_quotients(gold, answer)
        if isinstance(answer, Equation) and isinstance(gold, Value):
            return None  # an equation that is not solved
        single = [
            side for side in (gold, answer) if isinstance(side, Collection) and len(side.items) == 1
        ]
        if len(single) == 1 and isinstance(gold if single[0] is answer else answer, Value):
            other = answer if single[0] is gold else gold
            return self.equal(single[0].items[0], other)
        either = answer if isinstance(answer, Collection) else gold
        if isinstance(either, Collection) and either.alternatives:
            return None
        return False

    def _alike(self, gold: Answer, answer: Answer) -> bool | None:
        if isinstance(gold, Matrix) and isinstance(answer, Matrix):
            if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
                return False
            if gold.determinant != answer.determinant:
                return None
            return all_of(self._ordered(a, b) for a, b in zip(gold.rows, answer.rows, strict=True))
        if isinstance(gold, Ratio) and isinstance(answer, Ratio):
            return self._ratios(gold, answer)
        if isinstance(gold, TimeOfDay) and isinstance(answer, TimeOfDay):
            same = (gold.hour, gold.minute) == (answer.hour, answer.minute)
            halves = {gold.half, answer.half}
            if "" in halves and not same:
                late = {
                    (one.hour % 12 + 12 * (one.half == "p"), one.minute)
                    for one in (gold, answer)
                    if one.half
                }
                plain = {(one.hour, one.minute) for one in (gold, answer) if not one.half}
                return bool(late) and late == plain
            return same and (len(halves) == 1 or "" in halves)
        if isinstance(gold, Relation) and isinstance(answer, Relation):
            return self._relations(gold, answer)
        if isinstance(gold, Range) and isinstance(answer, Range):
            return self._ranges(gold, answer)
        if isinstance(gold, Union) and isinstance(answer, Union):
            if gold.operator != answer.operator:
                return None
            match = self._ordered if gold.operator == "setminus" else self._unordered
            return match(gold.items, answer.items)
        return None

    def _ranges(self, gold: Range, answer: Range) -> bool | None:
        pairs = ((gold.low, answer.low), (gold.high, answer.high))
        return all_of(
            self._values(Value(one, gold.unit), Value(other, answer.unit)) for one, other in pairs
        )

    def _ratios(self, gold: Ratio, answer: Ratio) -> bool | None:
        if len(gold.parts) != len(answer.parts):
            return False
        first, *others = zip(gold.parts, answer.parts, strict=True)
        return all_of(
            self.scalars.expressions(Expr("mul", (one, first[1])), Expr("mul", (other, first[0])))
            for one, other in others
        )

    def _as_quotients(self, gold: Answer, answer: Answer) -> bool | None:
        sides = []
        for side in (gold, answer):
            if isinstance(side, Ratio) and len(side.parts) == 2:
                sides.append(Value(Expr("div", side.parts)))
            elif isinstance(side, Value):
                sides.append(side)
        decided = self._values(sides[0], sides[1]) if len(sides) == 2 else False
        fraction = any(isinstance(side, Value) and side.expr.op == "div" for side in (gold, answer))
        return decided if fraction or not decided else None

    def _as_vectors(self, gold: Answer, answer: Answer) -> bool | None:
        """A matrix of one row or column and a tuple."""
        entries = []
        for side in (gold, answer):
            if isinstance(side, Collection) and side.opening in {"(", "<", "["}:
                entries.append(side.items)
            elif isinstance(side, Matrix) and all(len(row) == 1 for row in side.rows):
                entries.append(tuple(row[0] for row in side.rows))
            elif isinstance(side, Matrix) and len(side.rows) == 1:
                entries.append(side.rows[0])
        return self._ordered(entries[0], entries[1]) if len(entries) == 2 else False

    def _relations(self, gold: Relation, answer: Relation) -> bool | None:
        """Inequalities between the same sides, or the same up to a factor."""
        gold, answer = _rising(gold), _rising(answer)
        if "equiv" in gold.operators or "equiv" in answer.operators:
            return all_of(
                self._expressions_or_missing(a, b)
                for a, b in zip(gold.sides, answer.sides, strict=False)
            )
        if gold.operators == answer.operators:
            pairs = list(zip(gold.sides, answer.sides, strict=True))
            decided = all_of(self._side(a, b, gold.unit, answer.unit) for a, b in pairs)
            if decided is not False or len(gold.operators) > 1:
                return decided
        if len(gold.operators) == len(answer.operators) == 1 and None not in (
            *gold.sides,
            *answer.sides,
        ):
            return self._scaled(gold, answer)
        return False

    def _expressions_or_missing(self, gold: Expr | None, answer: Expr | None) -> bool | None:
        return True if gold is None or answer is None else self.scalars.expressions(gold, answer)

    def _side(
        self, gold: Expr | None, answer: Expr | None, one: Unit | None, other: Unit | None
    ) -> bool | None:
        if gold is None or answer is None:
            return True
        if gold.symbols - CONSTANTS or answer.symbols - CONSTANTS:
            return self.scalars.expressions(gold, answer)
        return self._values(Value(gold, one), Value(answer, other))

    def _scaled(self, gold: Relation, answer: Relation) -> bool | None:
        """`x - 1 > 0` and `2x > 2`: the differences have a positive constant ratio."""
        if (gold.operators[0] in {"<=", ">="}) != (answer.operators[0] in {"<=", ">="}):
            return False
        one, other = _gap(gold), _gap(answer)
        names = tuple(sorted((one.symbols | other.symbols) - CONSTANTS))
        values = [(approximate(one, at), approximate(other, at)) for at in points(names)]
        if any(a is None or not b for a, b in values):
            return None
        ratios = [a / b for a, b in values if a is not None and b]
        constant = all(abs(ratio - ratios[0]) <= CLOSE * abs(ratios[0]) for ratio in ratios)
        if constant and gold.operators[0] == "!=":
            return True
        return constant and ratios[0].real > 0 and abs(ratios[0].imag) < CLOSE

    def _sets(self, gold: list[_Piece], answer: list[_Piece]) -> bool | None:
        """Unions of intervals, piece by piece."""
        if len(gold) != len(answer):
            return False if all(_valued_piece(piece) for piece in [*gold, *answer]) else None
        decided: bool | None = False
        for order in permutations(answer) if len(answer) <= 4 else (tuple(answer),):
            found = all_of(self._pieces(a, b) for a, b in zip(gold, order, strict=True))
            if found is True:
                return True
            decided = None if found is None else decided
        return decided

    def _pieces(self, gold: _Piece, answer: _Piece) -> bool | None:
        if gold[2:] != answer[2:]:
            return False
        return all_of(
            self.scalars.expressions(a, b) for a, b in ((gold[0], answer[0]), (gold[1], answer[1]))
        )


def _unconditional(answer: Answer) -> Answer:
    """A list without the elements that only say where the others hold; else the answer itself."""
    if not isinstance(answer, Collection) or answer.opening:
        return answer
    kept = tuple(item for item in answer.items if not _is_condition(item))
    if not kept or len(kept) == len(answer.items):
        return answer
    return kept[0] if len(kept) == 1 else Collection("", "", kept, answer.alternatives)


def _is_condition(item: Answer) -> bool:
    if isinstance(item, Relation):
        return True
    if not isinstance(item, Named) or not isinstance(item.value, Value):
        return False
    return item.value.expr.op == "sym" and item.value.expr.name.startswith("mathbb(")


# Pieces of the real line -------------------------------------------------------------------------

_Piece = tuple[Expr, Expr, bool, bool]
"""Low end, high end, and whether each of them belongs to it."""
_INFINITY = Expr("sym", name="infty")


def _is_set(answer: Answer) -> bool:
    """Whether an answer is compared as a set of numbers with whatever can be one."""
    return isinstance(answer, Relation | Union) or (
        isinstance(answer, Value) and answer.expr.name == "mathbb(R)"
    )


def _as_set(answer: Answer) -> list[_Piece] | None:
    """An answer as intervals of the real line; None if it is none."""
    if isinstance(answer, Named):
        return _as_set(answer.value)
    if isinstance(answer, Relation):
        return _relation_set(_rising(answer))
    if isinstance(answer, Union):
        return _union_set(answer)
    if isinstance(answer, Collection) and answer.opening in {"", "{"} and answer.items:
        if all(isinstance(item, Relation) for item in answer.items) and (
            answer.alternatives or not answer.opening
        ):
            pieces = [_as_set(item) for item in answer.items]
            return None if None in pieces else [each for some in pieces for each in some or []]
        return None
    if isinstance(answer, Collection) and len(answer.items) == 2 and answer.opening in {"(", "["}:
        low, high = answer.items
        if isinstance(low, Value) and isinstance(high, Value) and answer.closing in {")", "]"}:
            return [(low.expr, high.expr, answer.opening == "[", answer.closing == "]")]
    if (
        isinstance(answer, Value)
        and answer.expr.op == "sym"
        and answer.expr.name in {"mathbb(R)", "R"}
    ):
        return [(Expr("neg", (_INFINITY,)), _INFINITY, False, False)]
    return None


def _relation_set(relation: Relation) -> list[_Piece] | None:
    sides, operators = relation.sides, relation.operators
    if None in sides or any(operator not in {"<", "<="} for operator in operators):
        return None
    exprs = [side for side in sides if side is not None]
    if len(exprs) == 3 and exprs[1].op == "sym":
        return [(exprs[0], exprs[2], operators[0] == "<=", operators[1] == "<=")]
    if len(exprs) == 2 and exprs[0].op == "sym" and exprs[0].name not in CONSTANTS | {"infty"}:
        return [(Expr("neg", (_INFINITY,)), exprs[1], False, operators[0] == "<=")]
    if len(exprs) == 2 and exprs[1].op == "sym" and exprs[1].name not in CONSTANTS | {"infty"}:
        return [(exprs[0], _INFINITY, operators[0] == "<=", False)]
    return None


def _union_set(union: Union) -> list[_Piece] | None:
    if union.operator == "setminus" and len(union.items) == 2:
        whole, taken = union.items
        pieces = _as_set(whole) or []
        holes = taken.items if isinstance(taken, Collection) and taken.opening == "{" else ()
        if len(pieces) != 1 or len(holes) != 1 or not isinstance(holes[0], Value):
            return None
        return _with_hole(pieces[0], holes[0].expr)
    if union.operator != "cup":
        return None
    joined: list[_Piece] = []
    for item in union.items:
        some = _as_set(item)
        if some is None:
            return None
        joined += some
    return joined


def _with_hole(piece: _Piece, hole: Expr) -> list[_Piece] | None:
    """An interval without a number inside it; None where the number is not known to be inside."""
    low, high, has_low, has_high = piece
    ends = {"infty": complex(1e300)}
    values = [approximate(expr, ends) for expr in (low, hole, high)]
    known = [value.real for value in values if value is not None]
    if len(known) < 3 or not known[0] < known[1] < known[2]:
        return None
    return [(low, hole, has_low, False), (hole, high, False, has_high)]


def _valued_piece(piece: _Piece) -> bool:
    return not (piece[0].symbols | piece[1].symbols) - CONSTANTS - {"infty"}


def _rising(relation: Relation) -> Relation:
    """The relation with < and <= in place of > and >=."""
    turned = {">": "<", ">=": "<="}
    if all(operator in turned for operator in relation.operators) and None not in relation.sides:
        operators = tuple(turned[operator] for operator in reversed(relation.operators))
        return Relation(tuple(reversed(relation.sides)), operators, relation.unit)
    return relation


def _unknowns(answer: Answer) -> frozenset[str] | None:
    """The variables of a relation; None for anything else, which has none to compare."""
    if not isinstance(answer, Relation):
        return None
    sides = [side.symbols for side in answer.sides if side is not None]
    return frozenset().union(*sides) - CONSTANTS


def _gap(relation: Relation) -> Expr:
    left, right = (side or number(0) for side in relation.sides)
    return Expr("add", (left, Expr("neg", (right,))))


# Expressions -----------------------------------------------------------------------------------


def _matched(table: list[list[bool | None]], allowed: Callable[[bool | None], bool]) -> bool:
    """Whether rows and columns can be paired through allowed cells (augmenting paths)."""
    of_column: dict[int, int] = {}

    def find(row: int, seen: set[int]) -> bool:
        for column, cell in enumerate(table[row]):
            if column in seen or not allowed(cell):
                continue
            seen.add(column)
            if column not in of_column or find(of_column[column], seen):
                of_column[column] = row
                return True
        return False

    return all(find(row, set()) for row in range(len(table)))


def _spread(answer: Answer) -> Answer:
    r"""`1 \pm \sqrt{3}` as its two values; everything else as it is."""
    if isinstance(answer, Value) and answer.expr.op == "pm":
        base, part = answer.expr.args
        both = (Expr("add", (base, part)), Expr("add", (base, Expr("neg", (part,)))))
        return Collection("", "", tuple(Value(expr, answer.unit, answer.noun) for expr in both))
    if (
        isinstance(answer, Collection)
        and not answer.opening
        and any(isinstance(item, Value) and item.expr.op == "pm" for item in answer.items)
    ):
        items: list[Answer] = []
        for item in answer.items:
            spread = _spread(item)
            items += (
                spread.items if isinstance(spread, Collection) and not spread.opening else [spread]
            )
        return Collection("", "", tuple(items), answer.alternatives)
    return answer


def _as_equation(named: Answer) -> Equation | None:
    """A named scalar as an equation; None where the name is no plain variable."""
    if not isinstance(named, Named):
        return None
    if (
        isinstance(named.value, Value)
        and not named.value.unit
        and named.name.isalnum()
        and len(named.name) == 1
    ):
        return Equation(Expr("sym", name=named.name), named.value.expr)
    return None


def _in_base(expr: Expr, unit: Unit) -> Expr:
    scaled = expr if unit.factor == 1 else _times(expr, unit.factor)
    return scaled if not unit.offset else Expr("add", (scaled, number(unit.offset)))


def _times(expr: Expr, factor: Fraction) -> Expr:
    if expr.op == "num":
        return number(expr.value * factor, decimal=expr.decimal)
    return Expr("mul", (expr, number(factor)))


def _as_share(value: Value) -> Expr:
    is_percent = value.unit is not None and value.unit.above == (("percent", 1),)
    return _times(value.expr, Fraction(1, 100)) if is_percent else value.expr


def _unit_symbol(value: Value, other: Value) -> Value:
    """`5m` as five meters, where the other side has a unit and this one a letter for it."""
    if value.unit is not None or other.unit is None or value.expr.op != "mul":
        return value
    factor, last = value.expr.args
    unit = unit_named(last.name) if last.op == "sym" else None
    if unit is None or not unit.same_dimension(other.unit):
        return value
    return Value(factor, unit, value.noun)


def _same_noun(gold: Value, answer: Value) -> bool | None:
    """Whether both count the same; other words for it are undecided."""
    one, other = gold.noun.removesuffix("s"), answer.noun.removesuffix("s")
    if one == other or not one or not other:
        return True if gold.unit == answer.unit or (gold.unit and answer.unit) else None
    return None


def _shared_units(items: Sequence[Answer]) -> Sequence[Answer]:
    """`3, 5 cm`: the unit of the last element is that of all."""
    last = items[-1] if items else None
    values = [item for item in items if isinstance(item, Value)]
    if not isinstance(last, Value) or last.unit is None or len(values) < len(items):
        return items
    if any(value.unit is not None or value.noun for value in values[:-1]):
        return items
    return [Value(value.expr, last.unit, last.noun) for value in values]


def _values_of(group: Collection) -> tuple[Answer, ...]:
    """The elements, without the names they are given."""
    return tuple(item.value if isinstance(item, Named) else item for item in group.items)
