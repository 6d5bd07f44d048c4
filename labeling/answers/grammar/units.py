"""Units of measurement: their spellings, their dimensions, and exact conversion between them.

Dimensions of derived units are cancelled (J/kg is m^2/s^2), others are not: `mg/kg` is a dose per
body weight and no pure number. Calendar months are not converted to days.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from labeling.answers.grammar.tokens import Token

Powers = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as something that can be compared and converted."""

    above: Powers
    """Base dimensions of the numerator with their powers, sorted."""
    below: Powers
    """Base dimensions of the denominator, sorted; `mg/kg` has mass in both."""
    factor: Fraction
    """Base units in one of it."""
    offset: Fraction = Fraction(0)
    """Added after the factor, for temperatures: kelvin = value * factor + offset."""

    def in_base(self, value: Fraction) -> Fraction:
        """The value in base units."""
        return value * self.factor + self.offset

    def same_dimension(self, other: Unit) -> bool:
        """Whether values in the two units can be compared."""
        return self.above == other.above and self.below == other.below


_PREFIXES = {"": Fraction(1), "k": Fraction(1000), "m": Fraction(1, 1000), "M": Fraction(10**6),
             "G": Fraction(10**9),
             "d": Fraction(1, 10), "c": Fraction(1, 100), "μ": Fraction(1, 10**6),
             "u": Fraction(1, 10**6),
             "n": Fraction(1, 10**9), "p": Fraction(1, 10**12)}  # fmt: skip
_LONG_PREFIXES = {"": Fraction(1), "kilo": Fraction(1000), "mega": Fraction(10**6),
                  "deci": Fraction(1, 10),
                  "centi": Fraction(1, 100), "milli": Fraction(1, 1000),
                  "micro": Fraction(1, 10**6),
                  "nano": Fraction(1, 10**9)}  # fmt: skip
_PREFIXED = """
g gram,gramme=1 mass
L,l liter,litre=1/1000 length3
mol mole=1 amount
m meter,metre=1 length
s second=1 time
J joule=1000 mass length2 time-2
W watt=1000 mass length2 time-3
N newton=1000 mass length time-2
Pa pascal=1000 mass length-1 time-2
V volt=1000 mass length2 time-3 current-1
A ampere,amp=1 current
Ω,ohm ohm=1000 mass length2 time-3 current-2
Hz hertz=1 time-1
T tesla=1000 mass time-2 current-1
eV electronvolt=1602176634/10000000000000000000000000 mass length2 time-2
cal calorie=4184 mass length2 time-2
K kelvin=1 temperature
Wh watthour=3600000 mass length2 time-2
Bq becquerel=1 decays
Eq equivalent=1 equivalents
Osm osmole=1 osmoles
"""
"""Symbol, names, factor to the base (grams, meters, seconds, ...), dimensions."""
_PLAIN = """
mcg=1/1000000 mass
t,tonne,ton=1000000 mass
lb,lbs,pound=45359237/100000 mass
oz,ounce=45359237/1600000 mass
cc=1/1000000 length3
gallon,gal=3785411784/1000000000000 length3
min,mins,minute=60 time
h,hr,hrs,hour=3600 time
d,day=86400 time
wk,wks,week=604800 time
mo,month=1 months
yr,yrs,year=12 months
in,inch,inches=254/10000 length
ft,foot,feet=3048/10000 length
yd,yard=9144/10000 length
mi,mile=1609344/1000 length
mph=1397/3125 length time-1
kph,kmph=5/18 length time-1
rpm=1/60 time-1
mmHg,torr=133322387415/1000000000 mass length-1 time-2
atm=101325000 mass length-1 time-2
bar=100000000 mass length-1 time-2
ha,hectare=10000 length2
acre=40468564224/10000000 length2
C,coulomb=1 current time
%,percent,pct,percentage=1 percent
‰,permille=1 permille
IU,unit,u=1 activity
tablet,tab,pill=1 tablets
capsule,cap=1 capsules
drop=1 drops
puff=1 puffs
bpm=1 beats
°,deg,degree=1 angle
rad,radian=1 radians
dollar,usd=1 dollars
cent,¢=1/100 dollars
€,eur,euro=1 euros
£,gbp=1 pounds
¥,yen,円=1 yen
원,won=1 won
元,yuan=1 yuan
퍼센트,프로,パーセント=1 percent
시간,小时,小時,時間=3600 time
분,分钟,分鐘,分=60 time
초,秒=1 time
일,日,天=86400 time
주,周,週=604800 time
킬로미터,公里,千米,キロメートル=1000 length
미터,米,メートル=1 length
센티미터,厘米,センチメートル=1/100 length
밀리그램,毫克,ミリグラム=1/1000 mass
그램,克,グラム=1 mass
킬로그램,公斤,千克,キログラム=1000 mass
밀리리터,毫升,ミリリットル=1/1000000 length3
리터,升,リットル=1/1000 length3
도,度=1 angle
"""
_TEMPERATURES = {
    "°c": (Fraction(1), Fraction(27315, 100)),
    "°f": (Fraction(5, 9), Fraction(45967, 180)),
}


def _dimensions(words: list[str]) -> Counter[str]:
    powers: Counter[str] = Counter()
    for word in words:
        found = re.fullmatch(r"([a-z]+)(-?\d+)?", word)
        if found is not None:
            powers[found[1]] += int(found[2] or 1)
    return powers


def _unit(powers: Counter[str], factor: Fraction) -> Unit:
    above = tuple(sorted((name, power) for name, power in powers.items() if power > 0))
    below = tuple(sorted((name, -power) for name, power in powers.items() if power < 0))
    return Unit(above, below, factor)


@cache
def known_units() -> dict[str, Unit]:
    """Every spelling of every unit, plural forms included."""
    units: dict[str, Unit] = {}
    for line in _PLAIN.strip().splitlines():
        names, _, rest = line.partition("=")
        factor, *dimensions = rest.split()
        unit = _unit(_dimensions(dimensions), Fraction(factor))
        for name in names.split(","):
            units[name] = unit
            if len(name) > 2 and name.isascii():
                units.setdefault(name + "s", unit)
    for line in _PREFIXED.strip().splitlines():
        head, _, rest = line.partition("=")
        symbols, names = head.split()
        factor, *dimensions = rest.split()
        powers = _dimensions(dimensions)
        for prefix, scale in _PREFIXES.items():
            for symbol in symbols.split(","):
                units.setdefault(prefix + symbol, _unit(powers, Fraction(factor) * scale))
        for prefix, scale in _LONG_PREFIXES.items():
            for name in names.split(","):
                unit = _unit(powers, Fraction(factor) * scale)
                units.setdefault(prefix + name, unit)
                units.setdefault(prefix + name + "s", unit)
    for name, (scale, offset) in _TEMPERATURES.items():
        units[name] = Unit((("temperature", 1),), (), scale, offset)
    del units["pm"]  # "5 pm" is a time of day
    units["$"] = units["dollar"]
    units["celsius"], units["fahrenheit"] = units["°c"], units["°f"]
    return units


@cache
def _folded_units() -> dict[str, Unit]:
    folded: dict[str, Unit] = {}
    for name, unit in known_units().items():
        folded.setdefault(name.casefold(), unit)
    return folded


def unit_named(name: str) -> Unit | None:
    """The unit of that name; the case counts only where two units differ in nothing else."""
    spelled = name.replace("µ", "μ")
    return known_units().get(spelled) or _folded_units().get(spelled.casefold())


def raised(unit: Unit, power: int) -> Unit:
    """The unit to an integer power other than zero."""
    powers: Counter[str] = Counter()
    for name, each in unit.above:
        powers[name] += each * power
    for name, each in unit.below:
        powers[name] -= each * power
    return _unit(powers, unit.factor**power)


def product(parts: list[tuple[Unit, int]]) -> Unit:
    """The product of units, each with 1 or -1 for above or below the fraction bar."""
    if len(parts) == 1 and parts[0][1] == 1:
        return parts[0][0]
    powers: Counter[str] = Counter()
    above: Counter[str] = Counter()
    below: Counter[str] = Counter()
    factor = Fraction(1)
    for unit, side in parts:
        factor *= unit.factor**side
        for (name, each), sign in [
            *((pair, 1) for pair in unit.above),
            *((pair, -1) for pair in unit.below),
        ]:
            powers[name] += each * sign * side
            (above if sign * side > 0 else below)[name] += each
    derived = any(len(unit.above) + len(unit.below) > 1 for unit, _ in parts)
    if any(powers.values()) and (derived or not above.keys() & below.keys()):
        return _unit(powers, factor)
    return Unit(tuple(sorted(above.items())), tuple(sorted(below.items())), factor)


# Units in an answer ------------------------------------------------------------------------------


def read_unit(tokens: Sequence[Token]) -> tuple[Unit | None, int]:
    """The unit that tokens begin with and how many of them it takes; (None, 0) if they do not."""
    parts: list[tuple[Unit, int]] = []
    at, side = 0, 1
    if tokens and tokens[0].text in {"(", "-"}:  # "(cm)", "5-mg"
        bracketed = tokens[0].text == "("
        unit, used = read_unit(tokens[1:])
        closes = used + 1 < len(tokens) and tokens[used + 1].text == ")"
        if unit is not None and (closes or not bracketed):
            return unit, used + 2 if bracketed else used + 1
        return None, 0
    while at < len(tokens):
        unit, used = _unit_atom(tokens[at:], inside=bool(parts))
        if unit is None:
            break
        parts.append((unit, side))
        at += used
        following = tokens[at].text.casefold() if at < len(tokens) else ""
        if following in {"/", "per"}:
            unit, used = _divisor(tokens[at + 1 :])
            if unit is None:
                return (product(parts), at) if following == "per" else (None, 0)
            parts.append((unit, -1))
            at += 1 + used
            continue
        if following in {"cdot", "times", "*"} and at + 1 < len(tokens):
            at += 1
    while parts and at < len(tokens) and tokens[at].text.casefold() in {"/", "per"}:
        unit, used = _divisor(tokens[at + 1 :])
        if unit is None:
            break
        parts.append((unit, -1))
        at += 1 + used
    return (product(parts), at) if parts else (None, 0)


def rate(currency: Unit, rest: Sequence[Token]) -> tuple[Unit | None, int]:
    """`per hour` after an amount of money."""
    if rest and rest[0].text.casefold() in {"/", "per"}:
        unit, used = _divisor(rest[1:])
        if unit is not None:
            return product([(currency, 1), (unit, -1)]), used + 1
    return None, 0


def _divisor(tokens: Sequence[Token]) -> tuple[Unit | None, int]:
    if tokens and tokens[0].text == "(":
        unit, used = read_unit(tokens[1:])
        if unit is not None and used + 1 < len(tokens) and tokens[used + 1].text == ")":
            return unit, used + 2
        return None, 0
    return _unit_atom(tokens, inside=True)


_SQUARES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def _unit_atom(tokens: Sequence[Token], *, inside: bool) -> tuple[Unit | None, int]:
    """One unit with its power."""
    if not tokens:
        return None, 0
    first = tokens[0]
    power, at = 1, 0
    if first.text.casefold() in _SQUARES:
        power, at = _SQUARES[first.text.casefold()], 1
        if at < len(tokens) and tokens[at].text == ".":
            at += 1
    if at >= len(tokens) or not _may_be_unit(tokens[at], inside=inside or at > 0):
        return None, 0
    unit = unit_named(tokens[at].text)
    if unit is None or (at and tokens[at].text.casefold() in {"unit", "units"}):
        return None, 0
    at += 1
    found, used = _unit_power(tokens[at:])
    return raised(unit, found * power) if found * power != 1 else unit, at + used


def _unit_power(tokens: Sequence[Token]) -> tuple[int, int]:
    """The power after a unit (`^2`, `^{-1}`, `2` in `cm2`, "squared") and its tokens."""
    texts = [token.text for token in tokens[:6]]
    if texts[:1] == ["^"]:
        if texts[1:2] and texts[1].isdigit() and int(texts[1]) in range(1, 10):
            return int(texts[1]), 2
        if texts[1:2] == ["{"] and "}" in texts:
            inner = "".join(texts[2 : texts.index("}")])
            if re.fullmatch(r"-?[1-9]", inner):
                return int(inner), texts.index("}") + 1
    if texts[:1] and texts[0] in {"2", "3"} and not tokens[0].spaced:
        return int(texts[0]), 1
    if texts[:1] and texts[0].casefold() in {"squared", "cubed"}:
        return (2 if texts[0].casefold() == "squared" else 3), 1
    return 1, 0


def _may_be_unit(token: Token, *, inside: bool) -> bool:
    if token.kind == "word":
        return True
    if token.kind == "symbol":
        return inside or token.spaced
    return token.text in {"%", "‰", "°", "$", "€", "£", "¥", "¢"}


def is_unit_word(token: Token) -> bool:
    """Whether a token is the name of a unit."""
    return token.kind == "word" and unit_named(token.text) is not None


_CURRENCIES = frozenset("$€£¥")


def leading_currency(tokens: Sequence[Token]) -> tuple[Unit | None, Sequence[Token]]:
    """The currency in front of a number and the tokens without it."""
    for place in (0, 1):
        if place >= len(tokens) or tokens[place].text not in _CURRENCIES:
            continue
        if place == 0 or tokens[0].text in {"-", "+"}:
            return unit_named(tokens[place].text), [*tokens[:place], *tokens[place + 1 :]]
    return None, tokens
