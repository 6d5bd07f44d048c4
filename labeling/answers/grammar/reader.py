"""The grammar of answers: what a text says as a whole, or that it is unread.

    answer    := list | union | relation | group | matrix | clock | ratio | range | value
    list      := answer (("," | ";" | "and" | "or") answer)+
    relation  := expression (("=" | "<" | ...) expression)+, "at most" value, name "in" answer
    group     := "(" list ")" | "[" list ")" | "{" list "}" | ...
    value     := ["$"] expression [multiplier] [unit] [noun]

A text may have several readings (`100,200` is a number and a list); all of them are returned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from labeling.answers.grammar.expressions import CONSTANTS, FUNCTIONS, Expr, Parser, number
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
from labeling.answers.grammar.tokens import (
    Token,
    UnreadAnswer,
    at_top,
    cleaned,
    closing_place,
    place_of,
    split_at,
    tokenize,
)
from labeling.answers.grammar.units import is_unit_word
from labeling.answers.grammar.values import NUMBER_WORDS, plain, read_simple, read_value

MAX_CHARACTERS = 2000
"""A longer text is prose and unread."""


_RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "le": "<=",
    "leq": "<=",
    "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">", "ne": "!=",
    "neq": "!=",
    "approx": "~", "~=": "~", "equiv": "equiv", "in": "in", "sim": "~",
}  # fmt: skip
_MARKED_NAME = re.compile(
    r"(?:angle|triangle)\{?[A-Z]{1,3}\}?"
    r"|(?:overline|vec|overrightarrow|hat|bar|tilde|widehat)(?:\{\w+\}|[A-Za-z])(?:_(?:\w"
    r"|\{\w+\}))?"
)
_MATRIX_NAMES = "pmatrix bmatrix matrix vmatrix Bmatrix aligned smallmatrix cases"
_MATRICES = frozenset(_MATRIX_NAMES.split())
_SUCH_THAT = frozenset({"mid", "|", ":", "vert"})
_FUNCTION_LETTERS = frozenset("fghFGHPEVQD")
_LEAD = re.compile(
    r"^(?:approximately|approx\.?|about|around|roughly|exactly|only|simply|just|nearly"
    r"|equal\s+to|equals|"
    r"given\s+by|(?:a|the)\s+(?:grand\s+)?total\s+of|a\s+(?:single\s+)?dose\s+of|the\s+(?:set"
    r"|interval|value|number|"
    r"point|pair|ordered\s+pair|function|equation|matrix|vector|ratio|tuple|expression|list"
    r"|numbers|values)(?:\s+of)?|"
    r"약|大约|约|約|およそ|\\(?:approx|sim)\b|[≈~=:])\s*(?=\S)",
    re.IGNORECASE,
)
_BOUND_WORDS = {
    "<=": r"at\s+most|no\s+more\s+than|not\s+more\s+than|up\s+to|maximum\s+of",
    ">=": r"at\s+least|no\s+less\s+than|not\s+less\s+than|minimum\s+of",
    "<": r"(?:less|fewer|smaller|lower)\s+than|under|below",
    ">": r"(?:more|greater|larger|higher)\s+than|over|above",
}
_BOUNDS = tuple(
    (re.compile(rf"^(?:{words})\s+(?=\S)", re.IGNORECASE), operator)
    for operator, words in _BOUND_WORDS.items()
)
_NEGATIVE = re.compile(r"^(?:negative|minus)\s+(?=[\d.]|[a-z]+\b)", re.IGNORECASE)
_NUMBER_WORD = re.compile(
    rf"^({'|'.join(NUMBER_WORDS)})\b(?![\s-]+(?:of|hundred)\b|-)", re.IGNORECASE
)
_TOLD = rf"\d{{1,9}}|{'|'.join(NUMBER_WORDS)}"
_SPELLED = re.compile(rf"^(?P<one>{_TOLD})\s*\((?P<other>{_TOLD})\)", re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))?\s*([ap])\.?\s*m\.?", re.IGNORECASE)
_BARE_CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")
_RANGE = re.compile(r"(?<=[\w\x03)}])\s*(?:-|~|\bto\b)\s*(?=[$\d.\\])", re.IGNORECASE)
_JOINED = re.compile(r"(?<=[a-z\x03])\s*(?:,|\band\b|,\s*and\b)\s*(?=\d)", re.IGNORECASE)
_GROUPED = re.compile(r"\d{1,3}(?:,[1-9]\d{2})+")


@lru_cache(maxsize=4096)
def read(text: str) -> tuple[Answer, ...]:
    """Every reading of a text as a whole, the likeliest first.

    Raises:
        UnreadAnswer: there is none; the message says what was left over.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnreadAnswer("too long")
    if text[:1] == "$" == text[-1:] and text.count("$") == 2:
        text = text[1:-1].strip()
    if _GROUPED.fullmatch(text):
        whole = Value(number(int(text.replace(",", ""))), end=len(text))
        return (whole, *_grouped_list(text))
    simple = read_simple(text)
    if simple is not None:
        return (simple,)
    clean = prepared(text)
    clock = _clock(clean)
    if clock is not None:
        return clock
    found: list[Answer] = []
    reasons: list[str] = []
    for way in (_bounded, _whole, _ranged, _compound):
        try:
            one = way(clean)
        except (UnreadAnswer, ZeroDivisionError, ValueError, RecursionError) as fault:
            reasons.append(str(fault))
            continue
        found += [each for each in one if each not in found]
        if way is _bounded:
            break
    if not found:
        raise UnreadAnswer(reasons[1] if len(reasons) > 1 else "; ".join(reasons))
    return tuple(found)


def prepared(text: str) -> str:
    """The cleaned text without a lead-in ("approximately"), its number words as digits."""
    clean = cleaned(text)
    while (lead := _LEAD.match(clean)) is not None:
        clean = clean[lead.end() :]
    if _NEGATIVE.match(clean):
        clean = "-" + _NEGATIVE.sub("", clean)
    sign, bare = ("-", clean[1:]) if clean.startswith("-") else ("", clean)
    bare = _SPELLED.sub(_told_once, bare)
    word = _NUMBER_WORD.match(bare)
    if word is not None:
        bare = f"{NUMBER_WORDS.index(word[1].lower())}{bare[word.end() :]}"
    return sign + bare


def _told_once(found: re.Match[str]) -> str:
    """`6 (six)` and `six (6)` as one number; another pair stays as it is."""
    one, other = (_as_number(part) for part in (found["one"], found["other"]))
    return str(one) if one == other else found[0]


def _as_number(word: str) -> int:
    return int(word) if word.isdigit() else NUMBER_WORDS.index(word.casefold())


# Ways to read a text -----------------------------------------------------------------------------


def _bounded(clean: str) -> list[Answer]:
    for pattern, operator in _BOUNDS:
        found = pattern.match(clean)
        if found is not None:
            [value, *_] = _whole(clean[found.end() :])
            if isinstance(value, Value):
                return [Relation((None, value.expr), (operator,), value.unit)]
    raise UnreadAnswer("no bound")


def _whole(clean: str) -> list[Answer]:
    return _answers(tokenize(clean))


def _answers(tokens: Sequence[Token]) -> list[Answer]:
    """The readings of tokens as one answer, where `1/2x` may give two."""
    first, loose = _answer(tokens, tight=False)
    if not loose:
        return [first]
    return [first, _answer(tokens, tight=True)[0]]


def _ranged(clean: str) -> list[Answer]:
    """`5-10 mg`, `10 to 20`."""
    parts = _RANGE.split(clean)
    if len(parts) != 2:
        raise UnreadAnswer("no range")
    low, high = (_answers(tokenize(part))[0] for part in parts)
    if not (isinstance(low, Value) and isinstance(high, Value)) or low.noun:
        raise UnreadAnswer("no range")
    smaller, larger = plain(low.expr), plain(high.expr)
    if smaller is None or larger is None or not 0 <= smaller < larger:
        raise UnreadAnswer("no range")
    if low.unit is not None and high.unit is not None and low.unit != high.unit:
        raise UnreadAnswer("no range")
    return [Range(low.expr, high.expr, high.unit or low.unit)]


def _grouped_list(clean: str) -> list[Answer]:
    """`100,200,300` as three numbers."""
    return [Collection("", "", tuple(Value(number(int(part))) for part in clean.split(",")))]


def _compound(clean: str) -> list[Answer]:
    """`1 hour and 30 minutes` as one duration."""
    joined = _JOINED.sub(" ", clean)
    if joined == clean or "=" in clean:
        raise UnreadAnswer("no compound")
    [value, *_] = _whole(joined)
    if not isinstance(value, Value) or value.unit is None:
        raise UnreadAnswer("no compound")
    return [replace(value, end=-1)]


def _clock(clean: str) -> tuple[Answer, ...] | None:
    flat = clean.replace("\x02", " ").replace("\x03", " ").strip().rstrip(".") + "."
    found = _CLOCK.fullmatch(flat.rstrip(".")) or _CLOCK.fullmatch(flat)
    if found is not None and 1 <= int(found[1]) <= 12:
        return (TimeOfDay(int(found[1]), int(found[2] or 0), found[3].lower()),)
    bare = _BARE_CLOCK.fullmatch(flat.rstrip("."))
    if bare is not None:
        parts = (number(int(bare[1])), number(int(bare[2])))
        return (TimeOfDay(int(bare[1]), int(bare[2]), ""), Ratio(parts))
    return None


# Structures ------------------------------------------------------------------------------------


def _answer(tokens: Sequence[Token], *, tight: bool) -> tuple[Answer, bool]:
    """The tokens as one answer, and whether `tight` made a difference."""
    reader = _StructureReader(tight=tight)
    return reader.answer(tuple(tokens)), reader.loose


class _StructureReader:
    """Reads structures of one way of binding divisions."""

    def __init__(self, *, tight: bool) -> None:
        self.tight = tight
        self.loose = False

    def answer(self, tokens: tuple[Token, ...], depth: int = 0) -> Answer:
        if not tokens:
            raise UnreadAnswer("something is missing between separators")
        if depth > 12:
            raise UnreadAnswer("nested too deeply")
        texts = {token.text.casefold() for token in tokens}
        parts, alternatives = _listed(tokens) if texts & _SEPARATORS else ([tokens], False)
        if len(parts) > 1:
            items = tuple(self.answer(part, depth + 1) for part in parts)
            return Collection("", "", _with_name(items), alternatives)
        tokens = parts[0]
        for operator in texts & {"cup", "cap", "setminus"}:
            sets = split_at(tokens, lambda token: _is(token, operator))  # noqa: B023
            if len(sets) > 1:
                return Union(operator, tuple(self.answer(part, depth + 1) for part in sets))
        related = self._related(tokens, depth) if texts & _RELATIONS.keys() else None
        if related is not None:
            return related
        grouped = self._grouped(tokens, depth)
        if grouped is not None:
            return grouped
        ratio = split_at(tokens, lambda token: _is(token, ":")) if ":" in texts else []
        if len(ratio) > 1:
            return Ratio(tuple(self._expression(part) for part in ratio))
        return self._valued(tokens)

    # Relations ---------------------------------------------------------------------------------

    def _related(self, tokens: tuple[Token, ...], depth: int) -> Answer | None:
        places = [place for place, token in at_top(tokens) if _relation(token) is not None]
        if not places:
            return None
        operators = [str(_relation(tokens[place])) for place in places]
        sides = [
            tokens[a:b]
            for a, b in zip([0, *(p + 1 for p in places)], [*places, len(tokens)], strict=True)
        ]
        name = _name(sides[0])
        if name is not None and set(operators) <= {"=", "~"}:
            return Named(name, self._chain(sides[1:], operators[1:], depth))
        if name is not None and operators == ["in"]:
            return Named(name, self.answer(sides[1], depth + 1))
        if set(operators) <= {"=", "~"}:
            turned = self._turned(sides, operators, depth)
            return turned or self._equation(sides, operators, depth)
        if "in" in operators or "=" in operators or "~" in operators:
            raise UnreadAnswer("a chain of different relations")
        if "equiv" in operators:
            return self._congruence(sides)
        values = [self._valued(side) if number_ == len(sides) - 1 else Value(self._expression(side))
                  for number_, side in enumerate(sides)]  # fmt: skip
        if values[-1].noun:
            raise UnreadAnswer(f"'{values[-1].noun}' is left over")
        return Relation(tuple(value.expr for value in values), tuple(operators), values[-1].unit)

    def _turned(
        self, sides: list[tuple[Token, ...]], operators: list[str], depth: int
    ) -> Answer | None:
        """`5 = x` as `x = 5`; None where the left side is more than a number."""
        name = _name(sides[-1])
        if len(sides) != 2 or operators != ["="] or name is None or "(" in name:
            return None
        left = self.answer(sides[0], depth + 1)
        constant = isinstance(left, Value) and not left.expr.symbols - CONSTANTS
        return Named(name, left) if constant else None

    def _congruence(self, sides: list[tuple[Token, ...]]) -> Relation:
        r"""`x \equiv 3 \pmod{7}`."""
        if len(sides) != 2:
            raise UnreadAnswer("a chain of congruences")
        place = next(
            (n for n, token in enumerate(sides[1]) if token.text in {"pmod", "mod", "bmod"}), None
        )
        if place is None:
            raise UnreadAnswer("a congruence without its modulus")
        rest = sides[1][:place]
        if rest and rest[-1].text == "(":
            modulus = sides[1][place + 1 : -1]
            rest = rest[:-1]
        else:
            modulus = sides[1][place + 1 :]
        return Relation(tuple(map(self._expression, (sides[0], rest, modulus))), ("equiv", "mod"))

    def _chain(self, sides: list[tuple[Token, ...]], operators: list[str], depth: int) -> Answer:
        """What a name is said to equal: all members of the chain have to agree."""
        if len(sides) == 1:
            return self.answer(sides[0], depth + 1)
        name = _name(sides[0])
        if name is not None:
            return Named(name, self._chain(sides[1:], operators[1:], depth))
        return self._equation(sides, operators, depth)

    def _equation(self, sides: list[tuple[Token, ...]], operators: list[str], depth: int) -> Answer:
        """An equation, or the value that a calculation ends with (`6 x 150 = 900 mg`)."""
        last = self.answer(sides[-1], depth + 1)
        lefts = [self._loosely(side) for side in sides[:-1]]
        constant = not any(left.symbols - CONSTANTS for left in lefts)
        if constant and isinstance(last, Value) and not last.expr.symbols - CONSTANTS:
            _require_consistent(lefts, last, exact="~" not in operators)
            return self._valued(sides[0]) if operators == ["~"] and not last.unit else last
        if (
            len(sides) > 2
            and set(operators) == {"="}
            and any(left.symbols - CONSTANTS for left in lefts)
        ):
            members = [*lefts, self._expression(sides[-1])]
            return Collection("", "", tuple(map(Equation, members, members[1:])))
        if (
            len(sides) != 2
            or operators != ["="]
            or not isinstance(last, Value)
            or last.unit
            or last.noun
        ):
            raise UnreadAnswer("a chain of equations")
        return Equation(lefts[0], last.expr)

    def _loosely(self, side: tuple[Token, ...]) -> Expr:
        """A side of an equation; units inside a calculation are left to its result."""
        try:
            return self._expression(side)
        except UnreadAnswer:
            bare = tuple(token for token in side if not is_unit_word(token))
            return self._expression(bare)

    # Groups ------------------------------------------------------------------------------------

    def _grouped(self, tokens: tuple[Token, ...], depth: int) -> Answer | None:
        first, last = tokens[0], tokens[-1]
        if _is(first, "begin"):
            return self._matrix(tokens, depth)
        if (
            _is(first, "{")
            and first.kind == "command"
            and _is(tokens[min(1, len(tokens) - 1)], "begin")
        ):
            return self._matrix(tokens[1:], depth)  # a brace in front of several lines
        if (
            first.kind == "command"
            and first.text in {"emptyset", "varnothing"}
            and len(tokens) == 1
        ):
            return Collection("{", "}", ())
        if first.text not in {"(", "[", "{", "langle", "\\{"} or len(tokens) < 2:
            return None
        if closing_place(tokens) != len(tokens) - 1:
            return None
        opening = "<" if first.text == "langle" else first.text
        closing = ">" if last.text == "rangle" else last.text
        inside = tokens[1:-1]
        if first.kind == "command" and opening == "{":
            return self._set(inside, depth)
        if opening == "{":
            return self.answer(inside, depth + 1)
        if not inside:
            return Collection(opening, closing, ())
        parts, _ = _listed(inside, words=False)
        if len(parts) == 1:
            if _is(inside[0], "begin"):
                return self.answer(inside, depth + 1)
            if opening == "(" and closing == ")":
                return None if _arithmetic(inside) else self.answer(inside, depth + 1)
            return Collection(opening, closing, (self.answer(inside, depth + 1),))
        return Collection(opening, closing, tuple(self.answer(part, depth + 1) for part in parts))

    def _set(self, inside: tuple[Token, ...], depth: int) -> Answer:
        """A set of elements, or of what a condition allows."""
        bars = split_at(inside, lambda token: token.text in _SUCH_THAT)
        if len(bars) == 2:
            allowed = self.answer(bars[1], depth + 1)
            return Union("cup", (allowed,)) if isinstance(allowed, Relation) else allowed
        if not inside:
            return Collection("{", "}", ())
        parts, _ = _listed(inside)
        return Collection(
            "{", "}", _with_name(tuple(self.answer(part, depth + 1) for part in parts))
        )

    def _matrix(self, tokens: tuple[Token, ...], depth: int) -> Answer:
        kind = "".join(token.text for token in tokens[2 : place_of(tokens, "}", 1)])
        begin = place_of(tokens, "}", 1) + 1
        if kind == "array":
            if begin < len(tokens) and tokens[begin].text == "{":
                begin = place_of(tokens, "}", begin) + 1
        elif kind not in _MATRICES:
            raise UnreadAnswer(f"'{kind}' is not compared")
        end = max(n for n, token in enumerate(tokens) if _is(token, "end"))
        if "".join(token.text for token in tokens[end:]) != f"end{{{kind}}}":
            raise UnreadAnswer("more after a matrix")
        body = [token for token in tokens[begin:end] if not _is(token, "hline")]
        while body and _is(body[-1], "\\"):
            body.pop()
        rows = split_at(tuple(body), lambda token: _is(token, "\\"))
        if kind == "cases":
            lines = [tuple(token for token in row if not _is(token, "&")) for row in rows]
            return Collection("", "", tuple(self.answer(line, depth + 1) for line in lines))
        cells = tuple(
            tuple(
                self.answer(cell, depth + 1)
                for cell in split_at(row, lambda token: _is(token, "&"))
            )
            for row in rows
        )
        return Matrix(cells, kind == "vmatrix")

    # Values ------------------------------------------------------------------------------------

    def _valued(self, tokens: Sequence[Token]) -> Value:
        """A number or expression with its unit and what it counts."""
        value, loose = read_value(tokens, tight=self.tight)
        self.loose = self.loose or loose
        return value

    def _expression(self, tokens: Sequence[Token]) -> Expr:
        """The tokens as one expression and nothing else."""
        if not tokens:
            raise UnreadAnswer("something is missing")
        parser = Parser(tokens, tight=self.tight, whole=True)
        expr = parser.expression()
        self.loose = self.loose or parser.loose
        left_over = parser.peek()
        if left_over is not None:
            raise UnreadAnswer(f"'{left_over.text}' is left over")
        return expr


def _require_consistent(lefts: list[Expr], last: Value, *, exact: bool) -> None:
    """Refuse a calculation whose members differ by more than the rounding of its result."""
    from labeling.answers.grammar.evaluation import approximate

    target = approximate(last.expr)
    for left in lefts:
        value = approximate(left)
        if value is None or target is None:
            raise UnreadAnswer("a calculation that cannot be followed")
        # A result may be rounded, and may be in another unit than the calculation.
        ratio = abs(value / target) if target else abs(value)
        slack = 0.02 if not exact or last.expr.rounded else 1e-9
        scales = (1.0, 1e3, 1e-3, 100.0, 0.01, 60.0, 1 / 60) if last.unit is not None else (1.0,)
        near = (
            abs(value - target) <= slack
            if not target
            else any(abs(ratio / s - 1) <= slack for s in scales)
        )
        if not near:
            raise UnreadAnswer("a calculation whose sides differ")


# Tokens ------------------------------------------------------------------------------------------


def _is(token: Token, *texts: str) -> bool:
    return token.kind in {"sign", "command"} and token.text in texts


def _relation(token: Token) -> str | None:
    return _RELATIONS.get(token.text) if token.kind in {"sign", "command"} else None


_AND = frozenset({"and", "or", "及", "和", "및", "과", "와", "또는", "或", "と", "または"})
_OR = frozenset({"or", "또는", "或", "または"})
_SEPARATORS = _AND | {",", ";", "lor", "vee", "land", "wedge"}


def _listed(
    tokens: tuple[Token, ...], *, words: bool = True
) -> tuple[list[tuple[Token, ...]], bool]:
    """The elements of a list at its top, and whether "or" joins them."""

    def separates(token: Token) -> bool:
        if token.kind == "sign" and token.text in {",", ";"}:
            return True
        if token.kind == "command" and token.text in {"lor", "vee", "land", "wedge"}:
            return True
        return words and token.kind == "word" and token.text.casefold() in _AND

    parts = split_at(tokens, separates)
    alternatives = any(
        token.text.casefold() in _OR for _, token in at_top(tokens) if token.kind == "word"
    )
    if len(parts) > 1:  # ", and" is one separator
        parts = [part for place, part in enumerate(parts) if part or place in {0, len(parts) - 1}]
    return parts, alternatives


def _with_name(items: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """`x = 1, 2` gives its name to all values."""
    if not items or not isinstance(items[0], Named):
        return items
    name = items[0].name
    return (
        tuple(replace(items[0], value=item) if isinstance(item, Value) else item for item in items)
        if name
        else items
    )


def _name(tokens: Sequence[Token]) -> str | None:
    """The name that a left side consists of (`x`, `x_1`, `f(x)`, `\\angle ABC`); else None."""
    texts = [token.text for token in tokens]
    if not tokens or any(token.kind == "number" for token in tokens[:1]):
        return None
    joined = "".join(texts)
    first = tokens[0]
    if re.fullmatch(r"\([A-Za-z](?:,[A-Za-z])+\)", joined):
        return joined
    if _MARKED_NAME.fullmatch(joined) or _is_applied(tokens):
        return joined
    if first.kind == "word" and len(tokens) == 1 and _is_product(first.text):
        return None
    if first.kind == "word" and not any(token.kind == "sign" for token in tokens):
        plain = all(token.kind in {"word", "symbol"} for token in tokens)
        is_word = len(tokens) > 1 or len(first.text) > 1
        if plain and is_word and first.text.casefold() not in FUNCTIONS:
            return " ".join(texts).casefold()
        return None
    if not (first.kind == "symbol" or first.kind == "command" or len(first.text) == 1):
        return None
    if first.kind == "command" and first.text in {"frac", "sqrt", "pi", *FUNCTIONS}:
        return None
    if re.fullmatch(
        r"[A-Za-z]+'*(?:_(?:\w|\{\w+\}))?'*(?:\^\{?-1\}?)?(?:\([A-Za-z](?:,[A-Za-z])*\))?", joined
    ):
        heads = [token for token in tokens if token.kind in {"symbol", "command", "word"}]
        products = len(tokens) > 1 and tokens[1].kind in {"symbol", "command"}
        return None if products and heads[0].text.islower() else joined
    return None


def _is_applied(tokens: Sequence[Token]) -> bool:
    """Whether tokens are a function and its argument, whatever that is (`P(X = 2)`)."""
    if len(tokens) < 4 or tokens[0].text not in _FUNCTION_LETTERS or tokens[1].text != "(":
        return False
    return closing_place(tokens[1:]) == len(tokens) - 2


def _is_product(run: str) -> bool:
    """Whether letters side by side are variables (`xy`) and no word that names something."""
    return len(run) <= 3 and run.islower() and not set(run) & {*"eiou"}


def _arithmetic(tokens: Sequence[Token]) -> bool:
    """Whether bracketed tokens are better read as an expression in brackets."""
    return not any(_relation(token) for token in tokens) and not any(
        token.text in {"(", "[", ","} for token in tokens
    )
