"""Folding a text for comparison while remembering where every character came from.

Folded: Unicode compatibility forms (NFKC), case, white space runs, typographic quotes and dashes,
invisible characters. Kept apart although NFKC would merge them: a superscript is a power (`10²` is
`10^2`, not `102`) and a vulgar fraction is its own number (`5½` is `5 1/2`, not `51/2`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_TYPOGRAPHY = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "′": "'", "`": "'",
        "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "″": '"',
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "−": "-",
        "—": " - ", "―": " - ",
        "⁄": "/", "∕": "/", "µ": "μ", "×": "x", "⩽": "≤", "⩾": "≥",
    }
)  # fmt: skip
_SUPERSCRIPT = "<super>"
_FRACTION = "<fraction>"
_PLAIN = re.compile(r"[ -~\t\n\r]+")
_WORDS = re.compile(r"[^ \t\n\r]+(?:[ \t\n\r][^ \t\n\r]+)*")
_SAME_LENGTH = re.compile(r"[ \t\n\r]*[!-~]++(?:[ \t\n\r][!-~]++)*+[ \t\n\r]*")
"""ASCII without a double space within: nearly every guideline. Each character folds to one."""
_PLAIN_FOLDS = str.maketrans("`\t\n\r", "'   ")


@dataclass(frozen=True, slots=True)
class FoldedText:
    """A folded text with the way back to the original."""

    text: str
    """The folded text: no leading, trailing or double spaces."""
    starts: Sequence[int]
    """For each folded character the offset of the original character it came from."""
    ends: Sequence[int]
    """For each folded character the offset behind that original character."""

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The span in the original text behind a non-empty folded span [start, end)."""
        return self.starts[start], self.ends[end - 1]


def fold(text: str) -> FoldedText:
    """The text folded for comparison; offsets count characters of `text`."""
    if _SAME_LENGTH.fullmatch(text):
        bare = text.strip(" \t\n\r")
        start = text.find(bare)
        end = start + len(bare)
        folded = bare.lower().translate(_PLAIN_FOLDS)
        return FoldedText(folded, range(start, end), range(start + 1, end + 1))
    folding = _Folding()
    position = 0
    while position < len(text):
        end = _plain_end(text, position)
        if end > position:
            folding.add_plain(text[position:end], position)
        else:
            end = _cluster_end(text, position)
            folding.add_cluster(text, position, end)
        position = end
    return folding.folded()


class _Folding:
    """A folded text in the making."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._last = " "
        """The last folded character; a blank before the first one, so that none leads."""
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add_plain(self, text: str, offset: int) -> None:
        """Add ASCII text: nearly all of a guideline, so that it is folded line by line."""
        behind = 0
        for words in _WORDS.finditer(text):
            start, end = words.span()
            if start > behind:
                self._add(" ", offset + behind, offset + behind + 1)
            self._parts.append(words[0].lower().translate(_PLAIN_FOLDS))
            self._last = self._parts[-1][-1]
            self._starts.extend(range(offset + start, offset + end))
            self._ends.extend(range(offset + start + 1, offset + end + 1))
            behind = end
        if behind < len(text):
            self._add(" ", offset + behind, offset + behind + 1)

    def add_cluster(self, text: str, start: int, end: int) -> None:
        """Add any character with its combining marks."""
        raised = start > 0 and _compatibility(text[start - 1]) == _SUPERSCRIPT
        for character in _fold_cluster(text[start:end], "^" if raised else self._last):
            self._add(" " if character.isspace() else character, start, end)

    def _add(self, character: str, start: int, end: int) -> None:
        if character == " " and self._last == " ":
            return
        self._parts.append(character)
        self._last = character
        self._starts.append(start)
        self._ends.append(end)

    def folded(self) -> FoldedText:
        """What was added, without a trailing blank."""
        text = "".join(self._parts)
        length = len(text) - text.endswith(" ")
        return FoldedText(text[:length], tuple(self._starts[:length]), tuple(self._ends[:length]))


def _plain_end(text: str, start: int) -> int:
    """Where the printable ASCII that begins at `start` ends, without a character that marks follow."""
    found = _PLAIN.match(text, start)
    if found is None:
        return start
    end = found.end()
    return end - (end < len(text) and unicodedata.combining(text[end]) != 0)


def _cluster_end(text: str, start: int) -> int:
    """Behind a character and the combining marks that follow it: NFKC may compose those."""
    end = start + 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return end


def _compatibility(character: str) -> str:
    """The kind of compatibility form, e.g. `<super>`; empty for ordinary characters."""
    return unicodedata.decomposition(character).split(" ", 1)[0]


def _fold_cluster(cluster: str, before: str) -> str:
    """The folded form; `before` is the folded character before it, `^` inside a superscript."""
    if unicodedata.category(cluster[0]) == "Cf":
        return ""
    kind = _compatibility(cluster[0])
    folded = unicodedata.normalize("NFKC", cluster.translate(_TYPOGRAPHY))
    folded = folded.casefold().translate(_TYPOGRAPHY)
    if kind == _SUPERSCRIPT and before.isalnum() and (folded.isdigit() or folded in "+-"):
        return "^" + folded
    if kind == _FRACTION and before.isdigit():
        return " " + folded
    return folded
