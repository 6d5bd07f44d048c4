"""What an ellipsis in a quote may stand for: nothing that turns round what is kept beside it.

Whole sentences may be left out, whatever they say. Of a sentence of which words are kept, no word may
be left out that denies or forbids (`do ... crush`, `is ... in pregnancy`), nor a comparison without its
number (`below ... 40`). Whether such a word governs the kept ones is not asked: grammar would have to
answer, and a quote that is refused costs less than one that says the opposite.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from judge.decisive import decisive_tokens

_SENTENCE_END = re.compile(r"[.!?]\s")
_FORBIDS = re.compile(
    r"\b(?:contra-?indicat\w+|avoid(?:s|ed|ing)?|withh[eo]ld\w*|prohibit\w*|forbid\w*|refrain\w*"
    r"|stop|discontinue|withdraw|interrupt|instead|unsafe|unsuitable|inappropriate|inadvisable"
    r"|unlikely|rarely|seldom|hardly|scarcely|barely)\b"
)
"""Words that say no without being negations; in a near match they are words like any other."""
_HEDGE = re.compile(r"(?:(?:about|around|approximately|roughly|some|the|an?)\s)*")
"""What may stand between a comparison and its number."""
_PREFIX = "non"
"""Negates the word that it is part of, with which it is left out."""


class Gaps:
    """The places in one passage that no ellipsis may swallow."""

    def __init__(self, passage: str) -> None:
        """Look through the passage, a folded text (see `judge.folding`)."""
        tokens = decisive_tokens(passage)
        denials = [t.start for t in tokens if t.kind == "negation" and t.value != _PREFIX]
        denials += [found.start() for found in _FORBIDS.finditer(passage)]
        self._denials = sorted(denials)
        # "between 5 and 10" points neither way
        self._comparators = [t for t in tokens if t.kind == "comparator" and t.value != "between"]
        self._places = [t.start for t in self._comparators]
        self._numbers = [t.start for t in tokens if t.kind == "number"]
        self._passage = passage
        self._sentence_ends = [found.start() for found in _SENTENCE_END.finditer(passage)]

    def in_one_sentence(self, start: int, end: int) -> bool:
        """Whether no sentence ends between the two places."""
        return not _any_within(self._sentence_ends, start, end)

    def may_be_left_out(self, start: int, end: int) -> bool:
        """Whether an ellipsis may stand for passage[start:end], words being kept on both sides."""
        if self.in_one_sentence(start, end):
            return not self._denied(start, end) and not self._compared(start, end)
        rest = self._sentence_ends[bisect_left(self._sentence_ends, start)]
        beginning = self._sentence_ends[bisect_left(self._sentence_ends, end) - 1]
        return not (
            self._denied(start, rest)
            or self._denied(beginning, end)
            or self._compared(beginning, end)
        )

    def _denied(self, start: int, end: int) -> bool:
        return _any_within(self._denials, start, end)

    def _compared(self, start: int, end: int) -> bool:
        """Whether a comparison begins here whose other side is kept: "younger than ... the rest"."""
        behind_numbers = bisect_left(self._numbers, end)
        number = self._numbers[behind_numbers - 1] if behind_numbers else 0
        began = bisect_left(self._places, max(start, number))
        hedge = _HEDGE.match(self._passage, end)
        kept = end if hedge is None else hedge.end()
        number_follows = _any_within(self._numbers, kept, kept + 1)
        return any(
            number_follows
            or each.value.endswith(" than")
            or not self._passage[each.end : end].strip()
            for each in self._comparators[began : bisect_left(self._places, end)]
        )


def _any_within(places: Sequence[int], start: int, end: int) -> bool:
    return bisect_left(places, start) < bisect_left(places, end)
