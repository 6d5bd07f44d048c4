"""Whether two free-text answers (a diagnosis, a drug) are the same words.

Nothing is guessed: synonyms are a judge's business. What is undone here is spelling alone: case,
accents, possessives, hyphens, `ae`/`oe`, Roman numerals of a type or stage, an article in front, a
code or remark in brackets. An abbreviation counts only where one of the two answers itself gives it
in brackets (`chronic obstructive pulmonary disease (COPD)`).
"""

from __future__ import annotations

import re
import unicodedata

from labeling.choices import plain

_BRACKETS = re.compile(r"\s*[(\[]([^()\[\]]*)[)\]]")
_POSSESSIVE = re.compile(r"['’`´]s\b|(?<=s)['’](?=\s|$)")
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")
_ROMAN = re.compile(r"\b(type|stage|grade|class|phase|factor)\s+(i{1,3}|iv|v|vi{0,3}|ix|x)\b")
_NUMERALS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_ABBREVIATION = re.compile(r"[A-Z][A-Za-z0-9-]*[A-Z][A-Za-z0-9-]*")
_SPELLING = (("ae", "e"), ("oe", "e"))


def same_text(gold: str, answer: str) -> bool:
    """Whether the answer says the words of the gold answer; see the module for what is undone."""
    return not _names(gold).isdisjoint(_names(answer))


def _names(text: str) -> frozenset[str]:
    """What a text can be called by: itself without brackets, and an abbreviation in brackets."""
    names = {_folded(_BRACKETS.sub("", text))}
    for inside in _BRACKETS.findall(text):
        spelled_out = text.partition("(")[0].strip()
        # "COPD (chronic obstructive ..)" and the other way round; never an ICD code like "M30.3"
        if _ABBREVIATION.fullmatch(inside.strip()) or _ABBREVIATION.fullmatch(spelled_out):
            names.add(_folded(inside))
    return frozenset(name for name in names if name)


def _folded(text: str) -> str:
    bare = _POSSESSIVE.sub("", plain(text))
    decomposed = unicodedata.normalize("NFKD", bare)
    letters = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    words = " ".join(re.sub(r"[-‐‑–/]", " ", letters).split())
    for long, short in _SPELLING:
        words = words.replace(long, short)
    return _ROMAN.sub(_as_digits, _ARTICLE.sub("", words))


def _as_digits(found: re.Match[str]) -> str:
    return f"{found[1]} {_NUMERALS.index(found[2]) + 1}"
