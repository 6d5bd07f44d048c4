"""Whether two free-text answers (a diagnosis, a drug) are the same words with the same qualifiers.

Nothing is guessed: synonyms are a judge's business. What is undone here is spelling alone: case,
accents, possessives, hyphens, `ae`/`oe`, Roman numerals of a type or stage, an article in front, the
order of "pneumonia, left-sided". Brackets hold a code, a synonym or a remark: a code or synonym may
be left out, two remarks have to agree, and a side, severity, course, type or stage that only the
answer has leaves it undecided.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from labeling.answers.choices import plain
from labeling.answers.languages import has_cjk

_BRACKETS = re.compile(r"\s*[(\[]([^()\[\]]*)[)\]]")
_POSSESSIVE = re.compile(r"['’`´]s\b|(?<=s)['’](?=\s|$)")
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")
_ROMAN = re.compile(r"\b(type|stage|grade|class|phase|factor)\s+(i{1,3}|iv|v|vi{0,3}|ix|x)\b")
_NUMERALS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_ABBREVIATION = re.compile(r"[A-Z][A-Za-z0-9-]*[A-Z][A-Za-z0-9-]*")
_CODE = re.compile(
    r"(?:icd[-\s]?\d*(?:-cm)?\s*[:=]?\s*)?[a-z]\d{2}(?:\.[a-z0-9]{1,4})?", re.IGNORECASE
)
_JOINED = re.compile(r"(?<=\w)\s?[-‐‑–/]\s?(?=\w)")
_SPELLING = (("ae", "e"), ("oe", "e"))
_QUALIFIER = re.compile(
    r"\b(?:left|right|bilateral|unilateral|sided|mild|moderate|severe|severity|critical|acute|subacute|chronic|"
    r"recurrent|primary|secondary|anterior|posterior|inferior|superior|lateral|medial|proximal|distal|upper|lower|"
    r"early|late|active|inactive|latent|benign|malignant|metastatic|partial|complete|stable|unstable|suspected|"
    r"confirmed|resolved|congenital|acquired|type|stage|grade|class|phase|degree|first|second|third|persistent|"
    r"intermittent|paroxysmal|progressive|[1-9]|i{1,3}|iv|positive|negative)\b"
)
"""Words that make another diagnosis of the same name."""


def same_text(gold: str, answer: str) -> bool | None:
    """Whether the answer says the words of the gold answer; None if it only adds a qualifier."""
    one, other = _text(gold), _text(answer)
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
    spelled_out = text.partition("(")[0].strip()
    for inside in _BRACKETS.findall(text):
        # "COPD (chronic obstructive ..)" and the other way round; never an ICD code like "M30.3"
        if _ABBREVIATION.fullmatch(inside.strip()) or _ABBREVIATION.fullmatch(spelled_out):
            names.add(_folded(inside))
        elif not _CODE.fullmatch(inside.strip()):
            remarks.add(_folded(inside))
    remarks.discard("")
    names.discard("")
    words = " ".join([_folded(bare), *sorted(remarks)]).replace(",", " ")
    return _Text(frozenset(names), frozenset(remarks), tuple(sorted(words.split())))


def _turned(text: str) -> set[str]:
    """`Diabetes mellitus, type 2` in the order in which it is spoken."""
    head, comma, tail = text.partition(",")
    if not comma or "," in tail or not _QUALIFIER.search(tail.casefold()):
        return set()
    return {_folded(f"{tail} {head}")}


def _folded(text: str) -> str:
    bare = _POSSESSIVE.sub("", plain(text))
    letters = bare if bare.isascii() or has_cjk(bare) else _without_accents(bare)
    words = " ".join(_JOINED.sub(" ", letters).split())
    for long, short in _SPELLING:
        words = words.replace(long, short)
    return _ROMAN.sub(_as_digits, _ARTICLE.sub("", words))


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign))


def _as_digits(found: re.Match[str]) -> str:
    return f"{found[1]} {_NUMERALS.index(found[2]) + 1}"
