"""Raised and lowered text on one line: powers, ordinals, fractions, note marks, chemical formulas.

Readers of formats put raised text between `RAISED` and `END`, lowered text between `LOWERED` and
`END`; `write_out` turns a line with such marks into plain text that cannot be misread: `10^9/L`
and not `109/L`, `1 1/2` and not `11/2`, `H2O`, `1st`.
"""

from __future__ import annotations

import re

RAISED, LOWERED, END = "\ufdd0", "\ufdd1", "\ufdd2"
"""Marks around raised and lowered text. Unicode noncharacters: no text is meant to hold them."""

_MARKS = re.compile(f"[{RAISED}{LOWERED}{END}]")
_SHIFTED = re.compile(rf"(?P<mark>[{RAISED}{LOWERED}])(?P<text>[^{RAISED}{LOWERED}{END}]*){END}")
_ADJACENT = re.compile(rf"{END}([{RAISED}{LOWERED}])")
_FRACTION = re.compile(
    rf"(?:{RAISED}\s*(?P<above>\d+)\s*{END}\s*[/⁄∕]\s*"
    rf"(?:{LOWERED}\s*(?P<below>\d+)\s*{END}|(?P<plain>\d+))"
    rf"|(?P<before>\d+)\s*[⁄∕]\s*{LOWERED}\s*(?P<under>\d+)\s*{END})"
)
_SLASH = re.compile(r"(?<=\d)\s?[⁄∕]\s?(?=\d)")
_ORDINAL = re.compile(r"st|nd|rd|th|er|ère|ème", re.IGNORECASE)
_ISOTOPE = re.compile(r"[A-Z][a-z]?(?![a-z])")
_BRACKETED = re.compile(r"\[.*\]|\(.*\)", re.DOTALL)
_SIMPLE = re.compile(r"[+\-−–]?[\w.,]+[+\-−–]?|[+\-−–]+")
_NOTES = re.compile(r"\d{1,3}(?P<more>(?:\s?[,–-]\s?\d{1,3})*)")
_DOSE_UNIT = re.compile(
    r"\s+(?:[mµμ]?c?g|kg|[mµμdc]?[lL]|IU|units?|m?mol|mEq|drops?|puffs?"
    r"|tablets?|capsules?|sachets?|doses?"
    r"|minutes?|hours?|days?|weeks?|months?|years?|times|mm\s?Hg|mmHg|percent)\b|\s*%"
)
"""What makes the number before it a dose or a time, never the base of a power."""
_TRADEMARK = {"tm": "™", "sm": "℠", "r": "®", "(r)": "®", "(tm)": "™"}


def without_marks(text: str) -> str:
    """The text without the characters that serve as marks here."""
    return _MARKS.sub("", text)


def write_out(line: str) -> str:
    """A line with its raised and lowered parts written out in plain characters.

    Powers become `10^9`, `m^2`; note marks `5^a`, and `5[3] mg` where a power makes no sense;
    ordinals `1st`; fractions `1/2`, with a space after a whole number; a lowered part follows a
    letter directly (`CO2`) and a digit as `_2`.
    """
    if END not in line:
        return _SLASH.sub("/", line) if "⁄" in line or "∕" in line else line
    line = _merged(line)
    line = _FRACTION.sub(_fraction, line)
    while found := _SHIFTED.search(line):  # the innermost ones first
        before, after = line[: found.start()], line[found.end() :]
        write = _raised if found["mark"] == RAISED else _lowered
        line = before + write(found["text"].strip(), before, after) + after
    return _SLASH.sub("/", without_marks(line))


def _merged(line: str) -> str:
    """Two raised (or lowered) parts side by side are one."""
    parts = _ADJACENT.split(line)
    joined = parts[0]
    for mark, rest in zip(parts[1::2], parts[2::2], strict=True):
        opened = max(joined.rfind(RAISED), joined.rfind(LOWERED))
        same = opened >= 0 and joined[opened] == mark and END not in joined[opened:]
        joined += rest if same else END + mark + rest
    return joined


def _fraction(found: re.Match[str]) -> str:
    above = found["above"] or found["before"]
    below = found["below"] or found["plain"] or found["under"]
    before = found.string[: found.start()]
    after = found.string[found.end() :]
    start = " " if found["above"] and before[-1:].isalnum() else ""
    return f"{start}{above}/{below}" + (" " if after[:1].isdigit() else "")


def _raised(text: str, before: str, after: str) -> str:
    if not text:
        return ""
    last = _last_visible(before)
    if last.isdigit() and _ORDINAL.fullmatch(text):
        return text + (" " if after[:1].isalnum() else "")
    if text.lower() in _TRADEMARK and last.isalpha():
        return _TRADEMARK[text.lower()]
    if text == "o" and re.match(r"\s?[CF]\b", after) and (last.isdigit() or not last):
        return "°"
    if _BRACKETED.fullmatch(text) or not any(char.isalnum() for char in text.strip("+-−–")):
        if text[0] not in "+-−–":
            return text
    elif not last or last in "([{“\"'":
        return text if _ISOTOPE.match(after) and text.isdigit() else text + _gap(text, after)
    if _is_note(text, before, after):
        return f"[{text}]"
    power = text if _SIMPLE.fullmatch(text) else f"({text})"
    return "^" + power + _gap(power, after)


def _is_note(text: str, before: str, after: str) -> bool:
    """Whether raised digits mark notes: several, after punctuation, or between number and unit."""
    notes = _NOTES.fullmatch(text)
    last = _last_visible(before)
    if notes is None or re.search(r"(?<!\d)10$", without_marks(before)):
        return False
    if last in ".,;:":
        return True
    return last.isdigit() and bool(notes["more"] or _DOSE_UNIT.match(without_marks(after)))


def _lowered(text: str, before: str, after: str) -> str:
    if not text:
        return ""
    last = _last_visible(before)
    if not _SIMPLE.fullmatch(text) and any(char.isspace() for char in text):
        text = f"_({text})"
    elif last.isdigit() and text[0].isalnum():
        text = f"_{text}"
    digits = text[-1].isdigit() and (after[:1].isdigit() or re.match(r"[.,]\d", after))
    return text + (" " if digits else "")


def _last_visible(before: str) -> str:
    """The character that a part hangs on; "" at a start or after a space."""
    last = without_marks(before)[-1:]
    return "" if last.isspace() else last


def _gap(text: str, after: str) -> str:
    """A space where what follows would become part of the raised text."""
    last, following = text[-1:], after[:1]
    if last.isdigit() and (following.isdigit() or re.match(r"[.,]\d", after)):
        return " "
    return " " if last.isalpha() and following.isalpha() else ""
