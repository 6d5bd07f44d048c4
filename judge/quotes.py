"""Whether a quote really stands in the passage it cites. Pure; 5-300 microseconds a pair.

Three ways, tried in order: `exact` (a substring after folding), `elided` (every part around an
ellipsis, in order), `near` (rapidfuzz alignment of at least 90, the same decisive tokens in the
same order, and no difference between words that is more than a slip of the pen). A quote that cuts
a number, a word or a comparison in half, or that starts right behind the negation or comparator
that governs it, does not stand there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from rapidfuzz import fuzz
from rapidfuzz.distance import OSA

from judge.decisive import decisive_tokens, same_decisive_tokens
from judge.folding import FoldedText, fold
from judge.gaps import Gaps

Method = Literal["exact", "elided", "near"]

NEAR_RATIO = 90.0
"""Least similarity (0-100) of a near match."""
MAX_PARTS = 8
"""A quote with more ellipses than this is a collage, not a quote."""
MAX_TRIES = 2000
"""Places looked at for the parts of one quote: a hostile collage costs milliseconds."""
SHORT_PART_WORDS = 3
"""A part with fewer words than this can be found anywhere ..."""
LONG_WORD = 5
"""A misspelt comparator with this many letters is still itself (`beloww`)."""
SHORT_GAP = 120
"""... so it must stand within this many folded characters of its neighbour, one word in its sentence."""

_ELLIPSIS = re.compile(r"\s*(?:\[\s*\.{3,}\s*\]|\(\s*\.{3,}\s*\)|\.{3,}|(?:\. ){2,}\.)\s*")
_OPENING = frozenset(" \"'([{*_|<>≤≥=≈~:;•")
_ATTACHED = frozenset("<>≤≥=≈~:±")
_NUMBER_STARTS = frozenset(".+-<>≤≥=≈~±")
_CLOSING = frozenset("\"')]}*_|;!?([{")
_INNER = frozenset(".,:/")
_LEAD = 40
"""How far back a governing negation or comparator is looked for; they are shorter than this."""
_WORD = re.compile(r"\S+")
_ARTICLES = frozenset({"the", "a", "an"})
_PRIVATIVE = re.compile(
    "a(?:symptomatic|typical|febrile|septic|phasic|tonic|trophic|cyclic|rhythmic|kinetic|vascular"
    "|cellular|motile|plastic|sexual|symmetric|symmetrical|synchronous)"
)
"""Words that one letter `a` before them turns into their opposite."""


@dataclass(frozen=True, slots=True)
class QuoteMatch:
    """Where a quote stands in a passage."""

    start: int
    """Offset of its first character in the original passage text."""
    end: int
    """Offset behind its last character (an elided quote: behind its last part)."""
    method: Method
    """How it matched."""


def verify_quote(quote: str, passage_text: str) -> QuoteMatch | None:
    """Find the quote in the passage; None if it does not stand there.

    Args:
        quote: the text as the judge wrote it.
        passage_text: the passage as it is stored; the offsets returned count its characters.
    """
    passage = _fold_passage(passage_text)
    wanted = _trim(fold(quote).text)
    parts = [part for part in map(_trim, _ELLIPSIS.split(wanted)) if part]
    if sum(character.isalnum() for character in wanted) < 3 or len(parts) > MAX_PARTS:
        return None
    spans = _find_parts(parts, passage.text)
    if spans:
        method: Method = "exact" if len(parts) == 1 else "elided"
        return _match(passage, spans[0][0], spans[-1][1], method)
    if len(parts) > 1:
        return None
    span = _find_near(parts[0], passage.text)
    return None if span is None else _match(passage, *span, "near")


@lru_cache(maxsize=256)
def _fold_passage(text: str) -> FoldedText:
    """Folded once for all the quotes of a trace."""
    return fold(text)


def _match(passage: FoldedText, start: int, end: int, method: Method) -> QuoteMatch:
    return QuoteMatch(*passage.original_span(start, end), method)


def _trim(text: str) -> str:
    """Without the quotation marks around it and the full stop or comma behind it."""
    return text.strip().lstrip("\"'").rstrip("\"' .,;:").strip()


# Exact and elided ------------------------------------------------------------------------------


def _find_parts(parts: list[str], passage: str) -> list[tuple[int, int]] | None:
    """Spans of all parts in order; the first way that fits, None if there is none."""
    gaps = Gaps(passage) if len(parts) > 1 else None
    words = [len(part.split()) for part in parts]
    shortest = [min(pair) for pair in pairwise((words[0], *words))]
    hopeless: set[tuple[int, int]] = set()
    tries = 0

    def find_from(index: int, after: int) -> list[tuple[int, int]] | None:
        nonlocal tries
        if index == len(parts):
            return []
        if (index, after) in hopeless:
            return None
        for start, end in _occurrences(parts[index], passage, after):
            tries += 1
            if tries > MAX_TRIES:
                return None
            if index and gaps is not None:
                if start - after > SHORT_GAP and shortest[index] < SHORT_PART_WORDS:
                    break
                if shortest[index] == 1 and not gaps.in_one_sentence(after, start):
                    break
                if words[index] < SHORT_PART_WORDS and passage.find(parts[index], after) < start:
                    break  # where it comes first it may not be quoted
                if not gaps.may_be_left_out(after, start):
                    continue
            rest = find_from(index + 1, end)
            if rest is not None:
                return [(start, end), *rest]
        hopeless.add((index, after))
        return None

    return find_from(0, 0)


def _occurrences(part: str, passage: str, after: int) -> Iterator[tuple[int, int]]:
    start = passage.find(part, after)
    while start >= 0:
        end = start + len(part)
        if _starts_clean(passage, start) and _ends_clean(passage, end):
            yield start, end
        start = passage.find(part, start + 1)


def _starts_clean(passage: str, start: int) -> bool:
    """Whether a span may begin here: no word or number cut, no negation or comparator before it."""
    if start == 0:
        return True
    before = passage[start - 1]
    starts_number = passage[start].isdigit() or passage[start] in _NUMBER_STARTS
    if before in "-/" or (starts_number and before in _ATTACHED):
        return False  # `-5`, `<5`, `1/5`, `1:5`, `10-15`, `beta-blocker`
    if before not in _OPENING:
        return False
    lead = passage[max(0, start - _LEAD) : start].rstrip()
    return not any(
        token.end == len(lead)
        and (token.kind == "negation" or (token.kind == "comparator" and starts_number))
        for token in decisive_tokens(lead)
    )


def _ends_clean(passage: str, end: int) -> bool:
    """Whether a span may end here: no word, number or unit cut."""
    if end == len(passage) or passage[end] == " ":
        return True
    after, following = passage[end], passage[end + 1 : end + 2]
    if after in _INNER:  # `5.5`, `1,500`, `1:5`, `mg/kg` go on; `5.` and `5, ` do not
        return not following.isalnum()
    return after in _CLOSING


# Near ------------------------------------------------------------------------------------------


def _find_near(quote: str, passage: str) -> tuple[int, int] | None:
    """The span that the quote copies with a slip of the pen; None if there is none."""
    if len(quote) > len(passage):
        window = (0, len(passage)) if passage else None
    else:
        aligned = fuzz.partial_ratio_alignment(quote, passage, score_cutoff=NEAR_RATIO)
        window = None if aligned is None else (aligned.dest_start, aligned.dest_end)
    if window is None:
        return None
    for start, end in _whole_word_spans(passage, *window):
        span = passage[start:end]
        if (
            fuzz.ratio(quote, span) >= NEAR_RATIO
            and (corrected := _without_slips(quote.split(), span.split())) is not None
            and same_decisive_tokens(corrected, span)
            and _starts_clean(passage, start)
        ):
            return start, end
    return None


def _whole_word_spans(passage: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of whole words around the window: it may cut a word, or miss a short last one."""
    words = [found.span() for found in _WORD.finditer(passage)]
    first = next(index for index, word in enumerate(words) if word[1] > start)
    last = next(index for index in range(len(words) - 1, -1, -1) if words[index][0] < end)
    for begin in (first, first + 1, first - 1):
        for stop in (last, last - 1, last + 1):
            if 0 <= begin <= stop < len(words):
                text = passage[words[begin][0] : words[stop][1]]
                offset = words[begin][0] + text.find(_trim(text))
                yield offset, offset + len(_trim(text))


def _without_slips(quote: list[str], span: list[str]) -> str | None:
    """The quote with its slips corrected; None if it differs by more than slips.

    A slip is one edit in a word, a space, an article. `hypotension` for `hypertension`, `before`
    for `after` and `asymptomatic` for `symptomatic` score above 90 in a long quote and are none.
    Numbers, units and negations are left as they are: for them `now` is no slip of `not`.
    """
    corrected: list[str] = []
    matcher = SequenceMatcher(None, quote, span, autojunk=False)
    for operation, i1, i2, j1, j2 in matcher.get_opcodes():
        if operation != "equal" and not _is_slip(quote[i1:i2], span[j1:j2]):
            return None
        same_count = i2 - i1 == j2 - j1
        for place, word in enumerate(quote[i1:i2]):
            meant = span[j1 + place] if same_count else word
            corrected.append(meant if _may_be_corrected(word, meant) else word)
    return " ".join(corrected)


def _may_be_corrected(word: str, meant: str) -> bool:
    """Whether a misspelt word may be read as the word that stands there."""
    changes_nothing = all(token.kind == "comparator" for token in decisive_tokens(meant))
    return len(meant) >= LONG_WORD and changes_nothing and not decisive_tokens(word)


def _is_slip(quote: list[str], span: list[str]) -> bool:
    if not quote or not span:
        extra = (*quote, *span)
        return all(word in _ARTICLES or not any(map(str.isalnum, word)) for word in extra)
    one, other = "".join(quote), "".join(span)
    if bool(_PRIVATIVE.fullmatch(one)) != bool(_PRIVATIVE.fullmatch(other)):
        return False
    allowed = len(quote) if len(quote) == len(span) else 1
    return OSA.distance(one, other, score_cutoff=allowed) <= allowed
