"""Values: a number or an expression with its currency, its unit and what it counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from labeling.answers.grammar.expressions import FUNCTIONS, Expr, Parser, number
from labeling.answers.grammar.readings import Named, Value
from labeling.answers.grammar.tokens import Token, UnreadAnswer
from labeling.answers.grammar.units import leading_currency, rate, read_unit, unit_named

_DIGIT_WORDS = "zero one two three four five six seven eight nine ten eleven twelve"
NUMBER_WORDS = tuple(_DIGIT_WORDS.split())
_MULTIPLIERS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
                "dozen": 12, "hundred": 100, "score": 20}  # fmt: skip
_SIMPLE = re.compile(
    r"(?:(?P<name>[A-DF-Za-df-hj-z])\s?=\s?)?(?P<sign>[-+]?)"
    r"(?P<number>(?:\d{1,3},0\d\d(?!,)|\d{1,300})(?:\.\d{1,300})?)(?:\s?(?P<unit>%"
    r"|[a-zA-Zμ]{2,4}))?"
    r"|\\frac\{(?P<top>\d{1,300})\}\{(?P<bottom>\d{1,300})\}"
)
"""What `read_simple` reads. `1,200` is not among it: that may be a list."""
_LETTER_UNITS = "msghdLNJVWKATCl"
"""Units of one letter that are read after a number and a space."""
_FRACTIONS = frozenset({"third", "thirds", "half", "halves", "quarters"})
_CHANGING = """
plus minus times over per to or and not less more than half third quarter thirds halves quarters
fourths squared cubed factorial divided multiplied by modulo mod root power if unless except without
nor between either neither negative hundredths tenths e i pi percent versus vs below above
"""
_DANGER = (
    frozenset(_CHANGING.split()) | FUNCTIONS | frozenset(NUMBER_WORDS) | _MULTIPLIERS.keys()
) - {"det", "sign", "max", "min"}
"""Words after a number that may change it: with one of these the rest is no noun."""
_CHANGING_CJK = re.compile(
    r"이상|이하|미만|초과|이내|배수|[두세네]\s*배|제곱|분의|에서|부터|까지|또는|혹은|이나|아니|보다|제외|^의"
    "|以上|以下|以内|以外|未满|未満|超|不足|倍数|[两兩二三四五]倍|平方|立方|次方|[之到至或的多除]"
    "|または|もしくは|より|から|まで|ない|[の乗]"
)
"""The same in Korean, Chinese and Japanese: bounds, ranges, multiples, powers, fractions."""
_MAX_NOUN = 8


def read_value(tokens: Sequence[Token], *, tight: bool = False) -> tuple[Value, bool]:
    """The tokens as a value, and whether `tight` (see `Parser`) made a difference.

    Raises:
        UnreadAnswer: something is left over.
    """
    start = tokens[0].start if tokens else 0
    currency, tokens = leading_currency(tokens)
    if not tokens:
        raise UnreadAnswer("something is missing")
    cut = _unit_start(tokens)
    parser = Parser(tokens[:cut], tight=tight)
    expr = parser.expression()
    rest: Sequence[Token] = [*parser.tokens[parser.at :], *tokens[cut:]]
    end = parser.tokens[parser.at - 1].end
    while rest and rest[0].text.casefold() in _MULTIPLIERS:
        expr = Expr("mul", (expr, number(_MULTIPLIERS[rest[0].text.casefold()])))
        end, rest = rest[0].end, rest[1:]
    if rest and rest[0].text.casefold() in _FRACTIONS:
        raise UnreadAnswer(f"'{rest[0].text}' is left over")
    unit, used = rate(currency, rest) if currency else read_unit(rest)
    if used:
        end, rest = rest[used - 1].end, rest[used:]
    value = Value(expr, unit or currency, start=start, end=end)
    smaller = _smaller(value, rest)
    if smaller is not None:
        return smaller, parser.loose
    return replace(value, noun=_noun(rest)), parser.loose


def _smaller(larger: Value, rest: Sequence[Token]) -> Value | None:
    """`2 h 30 min`: both parts together in the larger unit; None if no such part follows."""
    if larger.unit is None or not rest or rest[0].kind != "number":
        return None
    smaller, _ = read_value(rest)
    unit, one, other = smaller.unit, plain(larger.expr), plain(smaller.expr)
    if unit is None or one is None or other is None or not unit.same_dimension(larger.unit):
        raise UnreadAnswer("two numbers side by side")
    if unit.factor >= larger.unit.factor or one < 0 or unit.offset:
        raise UnreadAnswer("two numbers side by side")
    total = number(one + other * unit.factor / larger.unit.factor)
    return replace(larger, expr=total, noun=smaller.noun, end=smaller.end)


def read_simple(text: str) -> Value | Named | None:
    """The plainest and commonest answers without any grammar: `-1,200.5 mg`, `x = 3`, `1/2`."""
    found = _SIMPLE.fullmatch(text)
    if found is None:
        return None
    top, bottom = found["top"], found["bottom"]
    if top is not None:
        if not int(bottom):
            return None
        expr = Expr("div", (number(int(top)), number(int(bottom))))
        return Value(expr, start=found.start("top") - 6, end=found.end("bottom") + 1)
    digits = found["number"].replace(",", "")
    value = number(Fraction(digits), decimal="." in digits)
    sign = found["sign"] == "-"
    if sign:
        value = number(-value.value, decimal=value.decimal)
    unit = None
    if found["unit"]:
        unit = unit_named(found["unit"])
        if unit is None or (len(found["unit"]) == 1 and found["unit"] != "%"):
            return None
    start = found.start("number") - (len(found["sign"]) if sign else 0)
    whole = Value(value, unit, start=start, end=found.end("unit") if unit else found.end("number"))
    return Named(found["name"], whole) if found["name"] else whole


def plain(expr: Expr) -> Fraction | None:
    """The number that an expression is as written; None if it is anything else."""
    return expr.value if expr.op == "num" else None


def _unit_start(tokens: Sequence[Token]) -> int:
    """Where a single letter after a number begins a unit that takes all the rest; else the end."""
    for place in range(1, len(tokens)):
        token, before = tokens[place], tokens[place - 1]
        if token.kind != "symbol" or not token.spaced or token.text not in _LETTER_UNITS:
            continue
        if before.kind == "number" or before.text in {"}", ")"}:
            unit, used = read_unit(tokens[place:])
            rest = tokens[place + used :]
            if unit is not None and (not rest or rest[0].kind in {"number", "word"}):
                return place
    return len(tokens)


def _noun(rest: Sequence[Token]) -> str:
    """The words after a number as what it counts.

    Raises:
        UnreadAnswer: there is something else than words, or a word that may change the number.
    """
    if not rest:
        return ""
    words = []
    brackets = 0
    for place, token in enumerate(rest):
        folded = token.text.casefold()
        brackets += {"(": 1, ")": -1}.get(token.text, 0)
        joins = token.text in {"-", "'", ",", ".", "/", '"'} and place and place + 1 < len(rest)
        is_word = token.kind == "word" or (token.text in {"a", "s"} and place > 0)
        if not (is_word or joins or token.text in {"(", ")"}) or folded in _DANGER or brackets < 0:
            raise UnreadAnswer(f"'{token.text}' is left over")
        if (
            place == 0
            and token.kind == "word"
            and not (token.spaced or token.styled or not token.text.isascii())
        ):
            raise UnreadAnswer(f"'{token.text}' is left over")
        if is_word:
            words.append(folded)
    noun = " ".join(words)
    if _CHANGING_CJK.search(noun):
        raise UnreadAnswer(f"'{noun}' is left over")
    if brackets or len(words) > _MAX_NOUN:
        raise UnreadAnswer(f"'{rest[0].text}' is left over")
    return noun
