"""Numbers with units, exactly: `1,200 mg`, `0.9 g`, `50%`, `3/4`, `1 1/2`, `2.5e3`, `$5`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_UNIT_TABLE: dict[str, tuple[str, str]] = {
    "mass": ("kg=1000 g=1 mg=1/1000 mcg,μg,ug=1/1000000 ng=1/1000000000", "gram"),
    "volume": ("l,L=1 dl=1/10 cl=1/100 ml=1/1000 μl,ul=1/1000000 cc=1/1000", "liter,litre"),
    "amount": ("mol=1 mmol=1/1000 μmol,umol=1/1000000 nmol=1/1000000000", "mole"),
    "length": ("km=1000 m=1 cm=1/100 mm=1/1000 μm,um=1/1000000 nm=1/1000000000", "meter,metre"),
}
_PREFIXES: dict[str, Fraction] = {"": Fraction(1), "kilo": Fraction(1000), "deci": Fraction(1, 10), "centi": Fraction(1, 100),
             "milli": Fraction(1, 1000), "micro": Fraction(1, 10**6), "nano": Fraction(1, 10**9)}  # fmt: skip
_OTHER_UNITS = (
    "time s,sec,second=1 min,minute=60 h,hr,hrs,hour=3600 d,day=86400 wk,wks,week=604800;"
    "months month,mo=1 yr,yrs,year=12;percent %,percent,pct=1;permille ‰=1;"
    "pressure mmhg=1;energy j=1 kj=1000;heat kcal=1 cal=1/1000;equivalents eq=1 meq=1/1000;"
    "activity iu,unit,u=1;tablets tablet,tab,pill=1;capsules capsule,cap=1;drops drop=1;"
    "puffs puff=1;beats bpm=1;celsius °c=1;fahrenheit °f=1;degrees °,degree,deg=1;"
    "dollars $,usd,dollar=1;euros €,eur,euro=1;pounds £,gbp=1;cents cent,¢=1"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as something that can be compared and converted."""

    dimensions: tuple[str, ...]
    """Numerator first, then what it is divided by: `mg/kg` is (mass, mass)."""
    factor: Fraction
    """How many base units one of it is."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact number with or without a unit."""

    value: Fraction
    """The number."""
    unit: Unit | None
    """Its unit; None if there is none that we know."""


def _known_units() -> dict[str, Unit]:
    units: dict[str, Unit] = {}

    def add(dimension: str, entries: str) -> None:
        for entry in entries.split():
            names, factor = entry.rsplit("=", 1)
            for name in names.split(","):
                for form in (name, name + "s") if len(name) > 2 else (name,):
                    units[form] = Unit((dimension,), Fraction(factor))

    for dimension, (short, words) in _UNIT_TABLE.items():
        add(dimension, short)
        for prefix, factor in _PREFIXES.items():
            add(dimension, " ".join(f"{prefix}{word}={factor}" for word in words.split(",")))
    for line in _OTHER_UNITS.split(";"):
        add(*line.split(" ", 1))
    return units


_UNITS = _known_units()
_NAME = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_END_OF_UNIT = r"(?![\w°])"
_UNIT = rf"(?:{_NAME}){_END_OF_UNIT}"
_QUANTITY = re.compile(
    r"(?P<sign>[-+])?\s?(?P<currency>[$€£])?\s?"
    r"(?:(?P<whole>\d+)\s+(?P<mixed>\d+/\d+)|(?P<fraction>\d+\s?/\s?\d+)"
    r"|(?P<decimal>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+))"
    r"(?:e(?P<exponent>[-+]?\d{1,3})|\s?[x×*]\s?10\s?\^?\s?\{?(?P<power>[-+]?\d{1,3})\}?)?"
    r"(?:\s(?P<thousands>thousand|million|billion)\b)?"
    rf"(?:\s?-?(?P<unit>{_UNIT}(?:\s?/\s?{_UNIT}|\s+per\s+{_UNIT})*))?",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"[\w^°%]|[.,/:-]\d|\s?[-–]\s?\d|\s[-–]\s[a-z]\b|\s?[/\\+^<>]|\s?[*×x]\s?\d|\s+(?:to|or|and)\s+\d"
    r"|\s\d",
    re.I,
)
_THOUSANDS = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_NEGATIVE = re.compile(r"^(?:negative|minus)\s+(?=[\d.])", re.IGNORECASE)
_NUMBER_WORD = re.compile(
    r"(zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\b(?![\s-]+(?:of|hundred|"
    r"thousand|million)\b)",
    re.IGNORECASE,
)
_NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_LATEX = (
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}"), r"\1/\2"),
    (re.compile(r"\\(?:times|cdot)"), "×"),
    (re.compile(r"\\([%$])"), r"\1"),
    (re.compile(r"\\[,;:! ]|~|\\(?:left|right)"), " "),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
)
_DOLLARS = re.compile(r"^\$(.*?)\$(?=\W|$)", re.DOTALL)
_LEAD = re.compile(
    r"^(?:approximately|approx\.?|about|around|roughly|exactly|equal\s+to|equals|a\s+total\s+of"
    r"|a\s+(?:single\s+)?dose\s+of|[≈~=])\s*",
    re.IGNORECASE,
)


def read_quantity(named: str) -> tuple[Quantity, str] | None:
    """The number (with unit) that a text begins with, and its words; None if it begins with none.

    What stands behind the last `=` counts (`6 x 150 = 900 mg`). A range, a ratio, a date or a sum
    is no number: better unread than read by half.
    """
    text = without_latex(named).rsplit("=", 1)[-1].strip(" \t*_\"'")
    text = text.replace("−", "-").replace("µ", "μ")
    text = _NUMBER_WORD.sub(_as_digits, _NEGATIVE.sub("-", _LEAD.sub("", text)), count=1)
    found = _QUANTITY.match(text)
    read = _read(found)
    if found is None or read is None:
        return None
    end = found.end()
    smaller = _QUANTITY.match(text, end) if text[end : end + 1].isspace() else None
    together = _sum(read, _read(smaller))
    if smaller is not None and together is not None:  # `2 h 30 min`
        read, end = together, smaller.end()
    return None if _GOES_ON.match(text, end) else (read, text[found.start() : end].strip())


def whole_quantity(text: str) -> Quantity | None:
    """The number (with unit) that is all of the text; None if there is more, or none."""
    read = read_quantity(text)
    if read is None or not without_latex(text).strip(" \t.*_\"'").endswith(read[1].rstrip(".")):
        return None
    return read[0]


def same_quantity(gold: Quantity, answer: Quantity) -> bool:
    """Whether two quantities are equal, exactly.

    Units of one dimension are converted (0.9 g is 900 mg), units of two are unequal. Where only
    one side has a unit, the numbers alone count; a fraction equals its percentage.
    """
    if gold.unit is None or answer.unit is None:
        return gold.value == answer.value or _as_share(gold) == _as_share(answer)
    if gold.unit.dimensions != answer.unit.dimensions:
        return False
    return gold.value * gold.unit.factor == answer.value * answer.unit.factor


def without_latex(text: str) -> str:
    """The text without the LaTeX that only dresses a number up."""
    text = _DOLLARS.sub(r"\1", text.strip())
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return " ".join(text.split())


def _as_digits(found: re.Match[str]) -> str:
    """A number word as digits, where the text begins with it."""
    return found[0] if found.start() else str(_NUMBER_WORDS.index(found[1].lower()))


def _read(found: re.Match[str] | None) -> Quantity | None:
    value = None if found is None else _value(found)
    return None if found is None or value is None else Quantity(value, _unit(found))


def _sum(larger: Quantity, smaller: Quantity | None) -> Quantity | None:
    """Two parts of one quantity, the larger unit first, together; None if they are no such parts."""
    if smaller is None or larger.unit is None or smaller.unit is None:
        return None
    alike = larger.unit.dimensions == smaller.unit.dimensions and len(larger.unit.dimensions) == 1
    if not alike or smaller.unit.factor >= larger.unit.factor or larger.value < 0 > smaller.value:
        return None
    return Quantity(
        larger.value + smaller.value * smaller.unit.factor / larger.unit.factor, larger.unit
    )


def _value(found: re.Match[str]) -> Fraction | None:
    try:
        if found["whole"]:
            value = Fraction(found["whole"]) + Fraction(found["mixed"])
        elif found["fraction"]:
            value = Fraction(found["fraction"].replace(" ", ""))
        else:
            value = Fraction(found["decimal"].replace(",", ""))
    except ZeroDivisionError:
        return None
    value *= Fraction(10) ** int(found["exponent"] or found["power"] or 0)
    value *= _THOUSANDS.get((found["thousands"] or "").lower(), 1)
    return -value if found["sign"] == "-" else value


def _unit(found: re.Match[str]) -> Unit | None:
    named = found["unit"] or found["currency"]
    if named is None:
        return None
    parts = [_UNITS[part.strip().lower()] for part in re.split(r"/|\sper\s", named, flags=re.I)]
    factor = parts[0].factor
    for part in parts[1:]:
        factor /= part.factor
    return Unit(tuple(dimension for part in parts for dimension in part.dimensions), factor)


def _as_share(quantity: Quantity) -> Fraction:
    is_percent = quantity.unit is not None and quantity.unit.dimensions == ("percent",)
    return quantity.value / 100 if is_percent else quantity.value
