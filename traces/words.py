"""Words of a text in any language, without a dictionary.

Chinese, Japanese and Thai write no spaces, and Korean joins particles to words: a search for a word
must find it inside a run of such script. So runs are broken into characters and pairs of characters
(bigrams), which every word of the run shares with the run itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import Literal

_HAN = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003fffd"
)
_KANA = "\u3041-\u3096\u309d-\u309f\u3099\u309a\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"
_SOUTHEAST = "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ede\u1000-\u109f\u1780-\u17dd\uaa60-\uaa7f"
"""Thai, Lao, Burmese and Khmer."""


def _marks() -> str:
    """Combining marks of scripts with spaces, as a character class: \\w leaves them out."""
    found = (chr(code) for code in range(0x300, 0x2000) if _is_mark(code))
    return "".join(found)


def _is_mark(code: int) -> bool:
    character = chr(code)
    return unicodedata.category(character) in {"Mn", "Mc"} and not re.match(
        f"[{_SOUTHEAST}]", character
    )


_UNSPACED = f"{_HAN}{_KANA}{_SOUTHEAST}"
_MARKS = _marks()
_JOINER = "\u200c\u200d"
_NOT_IN_RUN = f"(?![{_UNSPACED}{_HANGUL}])"
_WORD = re.compile(
    rf"(?P<run>[{_UNSPACED}]+|[{_HANGUL}]+)"
    rf"|{_NOT_IN_RUN}\w(?:{_NOT_IN_RUN}[\w{_MARKS}{_JOINER}])*(?:[.,]\d+)*"
)
_ASCII_WORD = re.compile(r"\w+(?:[.,]\d+)*")
_SINGLE = "\u3005-\u3007\u3021-\u3029\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff"
_SINGLES = re.compile(f"[{_SINGLE}\uac00-\ud7a3]+")
"""Characters that are units of their own, in the form in which they are searched for."""
_WIDTH_FORMS = re.compile("[\uff00-\uffef]")
_RUN = re.compile(f"[{_UNSPACED}{_HANGUL}]")
_CLUSTER = re.compile(
    "[\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6]"
    "[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece]*"
    "|[\u1000-\u102a\u103f-\u1055\u1780-\u17b3][\u102b-\u103e\u1056-\u1059\u17b4-\u17dd]*"
    "|[\u1100-\u115f][\u1160-\u11a7]+[\u11a8-\u11ff]*"
    "|[\u3041-\u30ff\uff66-\uff9d][\u3099\u309a\uff9e\uff9f]|."
)
"""A character with its marks, also where they are written as characters of their own."""
_SCRIPTS = {
    "ko": re.compile(f"[{_HANGUL}]"),
    "ja": re.compile(f"[{_KANA}]"),
    "zh": re.compile(f"[{_HAN}]"),
    "th": re.compile("[\u0e01-\u0e4e]"),
    "lo": re.compile("[\u0e81-\u0ede]"),
    "my": re.compile("[\u1000-\u109f]"),
    "km": re.compile("[\u1780-\u17dd]"),
    "ru": re.compile("[\u0400-\u04ff]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "ar": re.compile("[\u0600-\u06ff]"),
    "he": re.compile("[\u0590-\u05ff]"),
    "hi": re.compile("[\u0900-\u097f]"),
    "bn": re.compile("[\u0980-\u09ff]"),
    "ta": re.compile("[\u0b80-\u0bff]"),
}
LATIN = "latin"
"""Language code of texts in Latin letters, whatever the language."""
_LEAST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Term:
    """A searchable unit of a text."""

    text: str
    """In lower case; canonically composed (NFC)."""
    start: int
    """Offset of its first character in the text."""
    end: int
    """Offset after its last character."""
    in_run: bool = False
    """Whether it is a part of a run of script without spaces between words."""


_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u0670\u06d6-\u06ed"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u302a-\u302f\u3099\u309a\ufe20-\ufe2f"
)
_MANY_MARKS = re.compile(f"([{_MARKS}]{{32}})[{_MARKS}]+")


def normalized(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """The text in a normal form of Unicode, with at most 32 combining marks in a row.

    Putting marks in their canonical order takes quadratic time; no script stacks that many.
    """
    return unicodedata.normalize(form, _MANY_MARKS.sub(r"\1", text))


def has_runs(text: str) -> bool:
    """Whether a text has script in which spaces do not separate what is searched for."""
    return _RUN.search(text) is not None


def is_hangul(character: str) -> bool:
    """Whether a character is Korean script."""
    return _SCRIPTS["ko"].match(character) is not None


def words(text: str) -> Iterator[Term]:
    """Words with spaces between them; of runs without spaces each character with its marks.

    Korean counts as written with spaces here: its words with their particles are words.
    """
    if text.isascii():
        for found in _ASCII_WORD.finditer(text):
            yield Term(found.group().lower(), *found.span())
        return
    for found in _WORD.finditer(text):
        run = found["run"]
        if run is None or _SCRIPTS["ko"].match(run):
            yield _term(found.group(), found.start(), in_run=run is not None)
        else:
            yield from _clusters(run, found.start())


def search_terms(text: str, *, query: bool = False) -> Iterator[Term]:
    """What a text is searched by: words; of runs, also Korean ones, characters and bigrams.

    Args:
        text: the text.
        query: whether it is what is searched for: of a run of two or more characters only the
            bigrams then, so that passages with one character of it alone are not found.
    """
    if text.isascii():
        yield from words(text)
        return
    for found in _WORD.finditer(text):
        run = found["run"]
        if run is None:
            yield _term(found.group(), found.start(), in_run=False)
            continue
        units = list(_clusters(run, found.start()))
        if len(units) == 1 or not query:
            yield from units
        for one, two in pairwise(units):
            yield Term(one.text + two.text, one.start, two.end, in_run=True)


def search_words(text: str, *, query: bool = False) -> list[str]:
    """The texts of `search_terms`, in order; several times as fast for ASCII."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = []
    for word in _WORD.finditer(text):
        run = word["run"]
        if run is None:
            found.append(_folded(word[0]))
            continue
        units = run if _SINGLES.fullmatch(run) else [unit.text for unit in _clusters(run, 0)]
        if len(units) == 1 or not query:
            found += units
        found += map(add, units, units[1:])
    return found


def detect_language(text: str) -> str:
    """The language of a text by its script: an ISO 639-1 code, or "latin".

    Kana makes Han characters Japanese; otherwise the script with most letters counts, if it has at
    least a tenth of them: a guideline in Korean quotes much English. Languages that share a script
    are not distinguished ("ru" is any in Cyrillic letters). "latin" also without any letter.
    """
    if text.isascii():
        return LATIN
    letters = sum(character.isalpha() for character in text)
    counts = Counter({code: len(script.findall(text)) for code, script in _SCRIPTS.items()})
    if counts["ja"] >= _LEAST_SHARE * counts["zh"] > 0:
        counts["ja"] += counts.pop("zh")
    code, count = counts.most_common(1)[0]
    return code if count and count >= _LEAST_SHARE * letters else LATIN


def _clusters(run: str, offset: int) -> Iterator[Term]:
    for found in _CLUSTER.finditer(run):
        yield _term(found.group(), offset + found.start(), in_run=True)


def _term(text: str, start: int, *, in_run: bool) -> Term:
    return Term(_folded(text), start, start + len(text), in_run)


def _folded(text: str) -> str:
    """A word in the form in which it is searched for."""
    folded = text.lower()
    if not folded.isascii():
        # NFKC makes half-width and full-width forms one; elsewhere it would make 10⁹ into 109.
        if _WIDTH_FORMS.search(folded):
            folded = normalized("NFKC", folded).lower()
        folded = normalized("NFC", folded)
    return folded


# Steps -----------------------------------------------------------------------------------------

_HAN_DIGITS = "一二三四五六七八九"
_HAN_NUMBER = rf"[{_HAN_DIGITS}]?十[{_HAN_DIGITS}]?|[{_HAN_DIGITS}]"
_STEP_WORDS = (
    "Step|Schritt|Étape|Etape|Paso|Passo|Passaggio|Stap|Steg|Krok|Adım|Langkah|Bước|Шаг|Крок|Βήμα"
    "|चरण|الخطوة|خطوة|گام|ขั้นตอนที่|ขั้นที่|단계|스텝"
)
_MARK = r"[ \t]*+(?:\*\*|__)?[ \t]*+(?:[:.)：．。、，）】\]]|$)"
"""What ends a marker; without it a line such as "Step 2 is wrong" is prose."""
_MARK_OR_SPACE = rf"(?:{_MARK}|[ \t\u3000])"
STEP_LINE = re.compile(
    r"^[ \t]*+(?:#{1,6}[ \t]*+)?[*_【\[]{0,3}(?:"
    rf"(?:{_STEP_WORDS})[ \t]*+(?P<after>\d{{1,4}}){_MARK}"
    rf"|(?:步骤|步驟|ステップ|手順|段階)[ \t]*+(?P<east>\d{{1,4}}|{_HAN_NUMBER}){_MARK_OR_SPACE}"
    rf"|第[ \t]*+(?P<nth>\d{{1,4}}|{_HAN_NUMBER})[ \t]*+(?:步|ステップ|段階){_MARK_OR_SPACE}"
    rf"|제?[ \t]*+(?P<korean>\d{{1,4}})[ \t]*+단계{_MARK})",
    re.IGNORECASE | re.MULTILINE,
)
"""The beginning of a line that numbers a step, as `Step 2:`, `2단계:`, `步骤2`, `ステップ2`."""


def step_number(found: re.Match[str]) -> int:
    """The number in a match of `STEP_LINE`: digits of any script, or Han numerals up to 99."""
    written = next(group for group in found.groups() if group)
    if written.isdecimal():
        return int(written)
    tens, ten, ones = written.rpartition("十")
    value = f" {_HAN_DIGITS}".find(ones) if ones else 0
    return value + 10 * (_HAN_DIGITS.find(tens) + 1 if tens else 1) if ten else value
