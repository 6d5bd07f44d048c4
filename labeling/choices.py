"""Reading a named answer as one of given options: a letter, an option's text, or yes/no/maybe."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from string import ascii_uppercase

_LETTER = re.compile(
    r"(?P<said>(?:the\s+)?(?:(?:correct|best|right)\s+)?(?:option|choice|letter|answer)\s+(?:is\s+)?)?"
    r"(?P<open>[(\[{]\s*)?(?P<letter>[A-Za-z])(?P<close>\s*[)\]}])?(?![\w'’])(?P<rest>.*)",
    re.DOTALL | re.IGNORECASE,
)
_SECOND_LETTER = re.compile(r"\s*(?:and|or|&|/|,)\s*[(\[]?([A-Z])[)\]]?(?!\w)")
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm)\s*\{([^{}]*)\}")
_ARTICLES = re.compile(r"^(?:the|a|an|to)\s+", re.IGNORECASE)
_EDGE = " \t\n.,;:!?*_\"'“”‘’$"


class NoOption(Exception):
    """The text does name an answer, and it is none of the options, or several of them."""


def plain(text: str) -> str:
    """The text for comparison: NFKC, one case, single spaces, no edge punctuation or LaTeX text."""
    unwrapped = _LATEX_TEXT.sub(r"\1", text)
    folded = unicodedata.normalize("NFKC", unwrapped).casefold().strip(_EDGE)
    return " ".join(folded.split())


def option_letter(gold: str, options: Sequence[str]) -> str | None:
    """The letter of a gold answer given as letter (`B`, `(B)`) or as an option's text; else None."""
    letters = ascii_uppercase[: len(options)]
    bare = gold.strip().strip("()[]. ").upper()
    if len(bare) == 1 and bare in letters:
        return bare
    same = [
        letter for letter, text in zip(letters, options, strict=False) if plain(text) == plain(gold)
    ]
    return same[0] if len(same) == 1 else None


def read_letter(named: str, options: Sequence[str], *, boxed: bool) -> str | None:
    """The option that a mention names, as its letter; None if it names nothing we can read.

    An article is no letter ("the answer is a diuretic"), and neither is a letter beyond the
    options. The text of an option stands for its letter; the longest that fits counts.

    Args:
        named: what was named, from the mention's start.
        options: the texts of the options, A first.
        boxed: whether it is the content of a box, where a bare lower-case letter is a letter.

    Raises:
        NoOption: a letter that is no option, or two of them.
    """
    letters = ascii_uppercase[: len(options)]
    dressed = unicodedata.normalize("NFKC", _LATEX_TEXT.sub(r"\1", named))
    text = dressed.strip(" \t*_$\"'“”‘’`")
    by_text = _read_text(text, letters, options)
    found = _LETTER.match(text)
    if found is None or not _is_letter(found, boxed=boxed):
        return by_text
    letter = found["letter"].upper()
    rest = found["rest"]
    if by_text is not None and not (found["open"] or found["close"]) and letter in "AI":
        return by_text
    second = _SECOND_LETTER.match(rest)
    if letter not in letters or (second is not None and second[1] in letters):
        raise NoOption(named[:200])
    return letter


def read_word(named: str, words: Sequence[str]) -> str | None:
    """The word (`yes`, `no`, `maybe`) that a mention begins with, in lower case; else None."""
    first = re.match(r"[\W_]*([^\W\d_]+)(?:\s*(?:/|\bor\b)\s*([^\W\d_]+))?", _bare(named))
    word = first[1].casefold() if first else ""
    undecided = first is not None and (first[2] or "").casefold() in words
    return word if word in words and not undecided else None


def _bare(named: str) -> str:
    return _LATEX_TEXT.sub(r"\1", named)


def _is_letter(found: re.Match[str], *, boxed: bool) -> bool:
    """Whether the single letter stands for an option and is no article or pronoun."""
    if found["said"] or found["open"] or found["close"]:
        return True
    rest = found["rest"].lstrip("*_ \t\"'")
    if not rest or (boxed and not rest[0].isalpha()):
        return True
    if not found["rest"][:1].isspace():
        return not found["rest"].startswith(("-", "=", "+", "^", "/"))
    if found["letter"] == "A" or found["letter"].isupper():
        shouted = found["rest"].isupper() and len(rest) > 3
        return found["letter"] not in "AI" or not (shouted or found["letter"] == "I")
    return False


def _read_text(named: str, letters: str, options: Sequence[str]) -> str | None:
    """The letter of the longest option whose text the mention begins with."""
    for candidate in (plain(named), plain(_ARTICLES.sub("", named.strip()))):
        fitting = [
            (len(plain(option)), letter)
            for letter, option in zip(letters, options, strict=False)
            if plain(option) and _begins_with(candidate, plain(option))
        ]
        longest = [letter for length, letter in fitting if length == max(fitting)[0]]
        if len(longest) == 1:
            return longest[0]
    return None


def _begins_with(text: str, start: str) -> bool:
    """Whether the text begins with the words of `start`, no word or number cut."""
    if not text.startswith(start):
        return False
    rest = text[len(start) :]
    return not rest or not (rest[0].isalnum() or re.match(r"[./%^-]\S|%", rest))
