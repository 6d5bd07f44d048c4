"""The tokens of a quote that must never differ: numbers, units, comparators, negations.

A fuzzy threshold alone accepts every changed number and every added "not", because one short word
in a long quote hardly moves the ratio (measured: 300 of 300 accepted at 90). So a near match must
carry the same decisive tokens in the same order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Kind = Literal["number", "unit", "comparator", "negation"]

_UNITS = (
    "kg mg mcg μg ug ng pg g l ml dl cl μl ul mmol μmol umol nmol pmol mol meq osm mosm iu mu u"
    " mmhg cmh2o kpa mpa pa bar bpm hz khz mhz mm cm km nm μm m kcal cal kj j kw w gy msv mci mbq bq"
    " mv kv v ma cfu sec s min hrs hr h d wk mo yrs yr y °c °f % ‰"
)
"""Abbreviations, where one letter makes another unit. Longer words are safe by `only_slips`."""
_NEVER_A_WORD = "mg kg mcg μg ng ml dl μl mmol μmol nmol pmol meq mmhg kpa mv % ‰"
"""Units that are recognised without a number before them."""
_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
    " hundred thousand million once twice thrice"
)


def _any_of(words: str) -> str:
    """A pattern for any of the words, the longest first."""
    return "(?:" + "|".join(sorted(map(re.escape, words.split()), key=len, reverse=True)) + ")"


_ONE_UNIT = _any_of(_UNITS) + r"(?!\w)"
_TOKEN = re.compile(
    r"(?P<number>(?:(?<![\w.,)-])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:\^[+-]?\d+)?"
    rf"|\b{_any_of(_NUMBER_WORDS)}\b)"
    rf"(?P<number_unit>\s?-?{_ONE_UNIT}(?:\s?/\s?{_ONE_UNIT}|\s(?:per|a|each|every)\s{_ONE_UNIT})*)?"
    rf"|(?P<unit>(?<!\w){_any_of(_NEVER_A_WORD)}(?!\w))"
    r"|(?P<comparator>[<>≤≥=≠≈±~]+"
    r"|\b(?:(?:no|not)\s(?:more|less|fewer|later|earlier)\sthan"
    r"|(?:less|more|greater|fewer|lower|higher|larger|smaller|older|younger|longer|shorter|rather|other)\sthan"
    r"|at\s(?:least|most)|up\sto|above|below|minimum|maximum|exceed(?:s|ed|ing)?"
    r"|(?:under|over|within|between|before|after|until)(?=\s[\d-]))\b)"
    r"|(?P<negation>\b(?:not|no|never|without|nor|neither|none|cannot|nobody|nothing|except|unless)\b"
    r"|n't\b|\bnon(?=-))"
)
_ASCII_COMPARATORS = {"<=": "≤", "=<": "≤", ">=": "≥", "=>": "≥", "!=": "≠", "+-": "±"}


@dataclass(frozen=True, slots=True)
class DecisiveToken:
    """One token that a quote must share with its source."""

    kind: Kind
    """What it is."""
    value: str
    """Its canonical form: numbers by value (`1,000` is `1000`, `5.0` is `5`) with their unit."""
    start: int
    """Offset in the folded text."""
    end: int
    """Offset behind it."""


def decisive_tokens(folded: str) -> list[DecisiveToken]:
    """The decisive tokens of a folded text (see `judge.folding`), in order."""
    tokens = []
    for found in _TOKEN.finditer(folded):
        kind, value = _canonical(found)
        tokens.append(DecisiveToken(kind, value, found.start(), found.end()))
    return tokens


def same_decisive_tokens(one: str, other: str) -> bool:
    """Whether two folded texts carry the same decisive tokens in the same order."""
    left, right = decisive_tokens(one), decisive_tokens(other)
    return [(t.kind, t.value) for t in left] == [(t.kind, t.value) for t in right]


def _canonical(found: re.Match[str]) -> tuple[Kind, str]:
    if found["number"] is not None:
        unit = re.sub(r"\s?/\s?|\s(?:per|a|each|every)\s", "/", (found["number_unit"] or ""))
        return "number", f"{_value(found['number'])} {unit.strip(' -')}".strip()
    if found["comparator"] is not None:
        return "comparator", _ASCII_COMPARATORS.get(found["comparator"], found["comparator"])
    if found["unit"] is not None:
        return "unit", found["unit"]
    return "negation", found["negation"]


def _value(number: str) -> str:
    if number.isalpha():
        return number
    base, _, power = number.replace(",", "").partition("^")
    value = Decimal(base).normalize()
    return f"{value:f}^{power}" if power else f"{value:f}"
