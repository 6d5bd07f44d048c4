"""Folding a text for comparison while remembering where every character came from.

Folded: Unicode compatibility forms (NFKC), case, white space runs, typographic quotes and dashes,
invisible characters. Kept apart although NFKC would merge them: a superscript is a power (`10²` is
`10^2`, not `102`) and a vulgar fraction is its own number (`5½` is `5 1/2`, not `51/2`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
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


@dataclass(frozen=True, slots=True)
class FoldedText:
    """A folded text with the way back to the original."""

    text: str
    """The folded text: no leading, trailing or double spaces."""
    starts: tuple[int, ...]
    """For each folded character the offset of the original character it came from."""
    ends: tuple[int, ...]
    """For each folded character the offset behind that original character."""

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The span in the original text behind a non-empty folded span [start, end)."""
        return self.starts[start], self.ends[end - 1]


def fold(text: str) -> FoldedText:
    """The text folded for comparison; offsets count characters of `text`."""
    folded: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end in _clusters(text):
        if text[start:end].isascii() and text[start:end].isprintable():
            character = text[start].lower()
            if character != " " or (folded and folded[-1] != " "):
                folded.append("'" if character == "`" else character)
                starts.append(start)
                ends.append(end)
            continue
        raised = start > 0 and _compatibility(text[start - 1]) == _SUPERSCRIPT
        before = "^" if raised else folded[-1] if folded else " "
        for character in _fold_cluster(text[start:end], before):
            if character.isspace():
                if not folded or folded[-1] == " ":
                    continue
                character = " "
            folded.append(character)
            starts.append(start)
            ends.append(end)
    if folded and folded[-1] == " ":
        folded.pop(), starts.pop(), ends.pop()
    return FoldedText("".join(folded), tuple(starts), tuple(ends))


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Spans of a character with the combining marks that follow it: NFKC may compose those."""
    start = 0
    for position in range(1, len(text) + 1):
        if position == len(text) or not unicodedata.combining(text[position]):
            yield start, position
            start = position


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
