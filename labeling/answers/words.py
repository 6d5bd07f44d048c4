"""Answers in words: one of given options, yes, no or maybe, and free text with its qualifiers.

Of free text nothing is guessed: synonyms are a judge's business. What is undone here is spelling
alone: case, accents, possessives, hyphens, `ae`/`oe`, Roman numerals of a type or stage, an article
in front, the order of "pneumonia, left-sided". Brackets hold a code, a synonym or a remark: a code
or synonym may be left out, two remarks have to agree, and a side, severity, course, type or stage
that only the answer has leaves it undecided.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase

from labeling.answers import mentions
from traces.words import normalized

WORDS = ("yes", "no", "maybe")
"""Answers that are words (PubMedQA)."""
_LETTER = re.compile(
    r"(?P<said>(?:the\s+)?(?:(?:correct|best|right)\s+)?(?:option|choice|letter"
    r"|answer)\s+(?:is\s+)?|선택지\s*|选项\s*|選項\s*|選択肢\s*|보기\s*)?"
    r"(?P<open>[(\[{]\s*)?(?P<letter>[A-Za-z])(?P<close>\s*[)\]}])?(?![A-Za-z0-9_'’])(?P<rest>.*)",
    re.DOTALL | re.IGNORECASE,
)
_SECOND_LETTER = re.compile(
    r"\s*(?:and|or|&|/|,|와|과|및|또는|か|や|、|和|或|、|と|または)\s*[(\[]?([A-Z])[)\]]?(?![A-Za-z0-9_])"
)
_OPTION_NUMBER = re.compile(
    r"(?:option|choice|number|no\.?|#)\s*\(?(\d{1,2})\)?(?![\w.,%/])", re.IGNORECASE
)
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm|mbox|textit)\s*\{([^{}]*)\}")
_FIRST_WORD = re.compile(
    r"[\s*_$\"'“”‘’(\[:]*(?P<word>[^\W\d_]+)(?:\s*(?:/|\bor\b)\s*(?P<other>[^\W\d_]+))?"
    r"(?P<rest>(?:[\s*_$\"'”’)\]]*(?:[,.;:!(–—-].*|[^\W\d_].*)?)$)",
    re.DOTALL,
)
_OPERATOR = re.compile(
    r"\s*(?:[-+*^<>±]\s*[\w\\]|\\(?:pm|times|cdot|sqrt|pi|ln|frac|log)|[+*^<>±])"
)
_LEADING_ARTICLE = re.compile(r"^(?:the|a|an|to)\s+", re.IGNORECASE)
_EDGES = " \t\n.,;:!?*_\"'“”‘’$"


class NoOption(Exception):
    """The text does name an answer, and it is none of the options, or several of them."""


def plain(text: str) -> str:
    """The text for comparison: NFKC, one case, single spaces, no edge punctuation or LaTeX text."""
    unwrapped = _LATEX_TEXT.sub(r"\1", text) if "\\" in text else text
    if not unwrapped.isascii():
        unwrapped = normalized("NFKC", unwrapped)
    return " ".join(unwrapped.casefold().strip(_EDGES).split())


@lru_cache(maxsize=2048)
def _plain_options(options: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(plain(option) for option in options)


def option_letter(gold: str, options: Sequence[str]) -> str | None:
    """The letter of a gold answer: a letter, a mark (`②`, `2번`) or an option's text."""
    letters = ascii_uppercase[: len(options)]
    bare = plain(gold).strip("()[]. ").upper()
    same = [
        letter
        for letter, text in zip(letters, _plain_options(tuple(options)), strict=False)
        if text == plain(gold)
    ]
    if len(bare) == 1 and bare in letters:
        return bare
    if same:
        return same[0] if len(same) == 1 else None
    marked = mentions.option_index(gold)
    if marked is not None and not marked[1].strip(" .") and marked[0] < len(letters):
        return letters[marked[0]]
    lettered = _LETTER.fullmatch(gold.strip())
    if lettered is not None and lettered["letter"].upper() in letters:
        letter = lettered["letter"].upper()
        text = plain(lettered["rest"])  # "B. a beta blocker"
        if text and text == _plain_options(tuple(options))[letters.index(letter)]:
            return letter
    return None


def read_letter(
    named: str, options: Sequence[str], *, boxed: bool, foreign: bool = False
) -> str | None:
    """The option that a mention names, as its letter; None if it names nothing we can read.

    An article is no letter ("the answer is a diuretic"), and neither is a letter beyond the
    options. The text of an option stands for its letter; the longest that fits counts.

    Args:
        named: what was named, from the mention's start.
        options: the texts of the options, A first.
        boxed: whether it is the content of a box, where a bare lower-case letter is a letter.
        foreign: whether it was announced in Korean, Chinese or Japanese, where a bare number is
            an option unless it is the text of one.

    Raises:
        NoOption: a letter that is no option, or two of them.
    """
    letters = ascii_uppercase[: len(options)]
    dressed = _LATEX_TEXT.sub(r"\1", named) if "\\" in named else named
    if not dressed.isascii():
        marked = _marked(dressed, letters, options)
        if marked is not None:
            return marked
        dressed = normalized("NFKC", dressed)
    text = dressed.strip(" \t*_$\"'“”‘’`")
    found = _LETTER.match(text)
    certain = (found is not None and bool(found["open"] or found["close"])) or (
        len(text) == 1 and text.isupper() and text != "A" and text != "I"
    )  # fmt: skip
    by_text = None if certain else _read_text(text, letters, options)
    if found is None or not _is_letter(found, boxed=boxed, foreign=foreign):
        return by_text or _numbered(text, letters, options, foreign=foreign)
    letter = found["letter"].upper()
    rest = found["rest"]
    if by_text is not None and not (found["open"] or found["close"]) and letter in "AI":
        return by_text
    second = _SECOND_LETTER.match(rest)
    if _OPERATOR.match(rest.replace("**", "")) and not found["said"]:
        raise NoOption(named[:200])
    if letter not in letters or (second is not None and second[1] in letters):
        raise NoOption(named[:200])
    return letter


def _marked(text: str, letters: str, options: Sequence[str]) -> str | None:
    """The option of a mark such as `②` or `2번`; None if there is none."""
    marked = mentions.option_index(text.strip(" \t*_$\"'“”‘’`"))
    if marked is None:
        return None
    index, rest = marked
    second = mentions.option_index(rest.lstrip(" ,、·와과및和或と/&"))
    if index >= len(letters) or (
        second is not None and second[0] != index and second[0] < len(letters)
    ):
        raise NoOption(text[:200])
    return letters[index]


def _has_digit(option: str) -> bool:
    return any(char.isdigit() for char in option)


def _numbered(text: str, letters: str, options: Sequence[str], *, foreign: bool) -> str | None:
    """`option 2`, and a bare `2` where numbers are marks; never where an option is a number."""
    found = _OPTION_NUMBER.match(text)
    if found is None and foreign and not any(map(_has_digit, options)):
        found = re.fullmatch(r"\(?(\d{1,2})\)?", text)
    if found is None:
        return None
    index = int(found[1]) - 1
    if not 0 <= index < len(letters):
        raise NoOption(text[:200])
    return letters[index]


def read_word(named: str, words: Sequence[str] = WORDS, *, boxed: bool = False) -> str | None:
    """The word (`yes`, `no`, `maybe`) that a mention begins with, in lower case; else None.

    A box has to hold nothing else; a sentence may go on in words.
    """
    bare = _LATEX_TEXT.sub(r"\1", named)
    if not bare.isascii():
        return mentions.yes_no_maybe(bare)
    first = _FIRST_WORD.match(bare)
    word = first["word"].casefold() if first else ""
    if first is None or word not in words or (first["other"] or "").casefold() in words:
        return None
    if boxed and first["rest"].strip(" .!*_$\"')]"):
        return None
    return word


def _is_letter(found: re.Match[str], *, boxed: bool, foreign: bool) -> bool:
    """Whether the single letter stands for an option and is no article or pronoun."""
    if found["said"] or found["open"] or found["close"]:
        return True
    rest = found["rest"].lstrip("*_ \t\"'")
    if not rest or (boxed and not rest[0].isalpha()):
        return True
    if foreign and not rest[0].isascii():
        return True
    if not found["rest"][:1].isspace():
        return not found["rest"].startswith(("-", "=", "+", "^", "/"))
    if found["letter"] == "A" or found["letter"].isupper():
        shouted = found["rest"].isupper() and len(rest) > 3
        return found["letter"] not in "AI" or not (shouted or found["letter"] == "I")
    return False


def _read_text(named: str, letters: str, options: Sequence[str]) -> str | None:
    """The letter of the longest option whose text the mention begins with."""
    texts = _plain_options(tuple(options))
    whole = plain(named)
    without = plain(_LEADING_ARTICLE.sub("", named.strip()))
    for candidate in (whole,) if without == whole else (whole, without):
        fitting = [
            (len(text), letter)
            for letter, text in zip(letters, texts, strict=False)
            if text and _begins_with(candidate, text)
        ]
        if fitting:
            most = max(fitting)[0]
            longest = [letter for length, letter in fitting if length == most]
            if len(longest) == 1:
                return longest[0]
    return None


def _begins_with(text: str, start: str) -> bool:
    """Whether the text begins with the words of `start`, no word or number cut."""
    if not text.startswith(start):
        return False
    rest = text[len(start) :]
    if not rest:
        return True
    cut = rest[0].isalnum() and (rest[0].isascii() or start[-1].isascii() is rest[0].isascii())
    return not (cut or re.match(r"[./%^-]\S|%|\s?[-–]\s?\d|\s(?:or|and|to)\s", rest))


# Free text ---------------------------------------------------------------------------------------

_BRACKETS = re.compile(r"\s*[(\[]([^()\[\]]*)[)\]]")
_POSSESSIVE = re.compile(r"['’`´]s\b|(?<=s)['’](?=\s|$)")
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")
_ROMAN = re.compile(r"\b(type|stage|grade|class|phase|factor)\s+(i{1,3}|iv|v|vi{0,3}|ix|x)\b")
_NUMERALS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_ABBREVIATION = re.compile(r"[A-Z][A-Za-z0-9-]*[A-Z][A-Za-z0-9-]*")
_CODE = re.compile(
    r"(?:icd[-\s]?\d*(?:-cm)?\s*[:=]?\s*)?(?P<code>[a-z]\d{2}(?:\.[a-z0-9]{1,4})?)",
    re.IGNORECASE,
)
_JOINED = re.compile(r"(?<=\w)\s?[-‐‑–/]\s?(?=\w)")
_SIDED = re.compile(r"\b(left|right) (?:sided|side)\b")
_CIRCLES = re.compile(r"[①-⑩、,，和与與及\s]+")
"""Statements by their numbers (`①③`)."""
_SPELLING = (("ae", "e"), ("oe", "e"))
_QUALIFIER = re.compile(
    r"\b(?:left|right|bilateral|unilateral|sided|mild|moderate|severe|severity|critical|acute"
    r"|subacute|chronic|"
    r"recurrent|primary|secondary|anterior|posterior|inferior|superior|lateral|medial|proximal"
    r"|distal|upper|lower|"
    r"early|late|active|inactive|latent|benign|malignant|metastatic|partial|complete|stable"
    r"|unstable|suspected|"
    r"confirmed|resolved|congenital|acquired|type|stage|grade|class|phase|degree|first|second"
    r"|third|persistent|"
    r"intermittent|paroxysmal|progressive|[1-9]|i{1,3}|iv|positive|negative)\b"
)
"""Words that make another diagnosis of the same name."""


def same_text(gold: str, answer: str) -> bool | None:
    """Whether the answer says the words of the gold answer; None if it only adds a qualifier."""
    one, other = _text(gold), _text(answer)
    if one.codes and other.codes and one.codes != other.codes:
        return False
    if not one.names & other.names:
        return (one.qualified or other.qualified) and one.bag == other.bag
    if one.remarks == other.remarks:
        return True
    if one.remarks and other.remarks:
        return one.remarks <= other.names or other.remarks <= one.names
    if any(_QUALIFIER.search(remark) for remark in other.remarks):
        return None
    return True


@dataclass(frozen=True, slots=True)
class _Text:
    """A text as it is compared."""

    names: frozenset[str]
    """What it can be called by: itself without brackets, and an abbreviation in brackets."""
    remarks: frozenset[str]
    """What is in brackets and neither a code nor another name."""
    codes: frozenset[str]
    """ICD codes in brackets."""
    bag: tuple[str, ...]
    """All of its words in alphabetical order, those of its remarks among them."""

    @property
    def qualified(self) -> bool:
        """Whether its remarks are qualifiers, which may come before the name as well."""
        return bool(self.remarks) and all(_QUALIFIER.search(each) for each in self.remarks)


@lru_cache(maxsize=4096)
def _text(text: str) -> _Text:
    bare = _BRACKETS.sub("", text)
    names = {_folded(bare), *_turned(bare)}
    remarks: set[str] = set()
    codes: set[str] = set()
    spelled_out = text.partition("(")[0].strip()
    for inside in _BRACKETS.findall(text):
        # "COPD (chronic obstructive ..)" and the other way round; never an ICD code like "M30.3"
        code = _CODE.fullmatch(inside.strip())
        if code is not None:
            codes.add(code["code"].casefold())
        elif _ABBREVIATION.fullmatch(inside.strip()) or _ABBREVIATION.fullmatch(spelled_out):
            names.add(_folded(inside))
        else:
            remarks.add(_folded(inside))
    remarks.discard("")
    names.discard("")
    words = " ".join([_folded(bare), *sorted(remarks)]).replace(",", " ")
    return _Text(
        frozenset(names), frozenset(remarks), frozenset(codes), tuple(sorted(words.split()))
    )


def _turned(text: str) -> set[str]:
    """`Diabetes mellitus, type 2` in the order in which it is spoken."""
    head, comma, tail = text.partition(",")
    if not comma or "," in tail or not _QUALIFIER.search(tail.casefold()):
        return set()
    return {_folded(f"{tail} {head}")}


def _folded(text: str) -> str:
    if _CIRCLES.fullmatch(text):
        return "".join(sorted(sign for sign in text if sign in mentions.CIRCLED))
    bare = _POSSESSIVE.sub("", plain(text))
    letters = bare if bare.isascii() or mentions.has_cjk(bare) else _without_accents(bare)
    words = _SIDED.sub(r"\1", " ".join(_JOINED.sub(" ", letters).split()))
    for long, short in _SPELLING:
        words = words.replace(long, short)
    return _ROMAN.sub(_as_digits, _ARTICLE.sub("", words))


def _without_accents(text: str) -> str:
    decomposed = normalized("NFKD", text)
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign))


def _as_digits(found: re.Match[str]) -> str:
    return f"{found[1]} {_NUMERALS.index(found[2]) + 1}"
