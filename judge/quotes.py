"""Whether a quote really occurs in the passage that it cites. Pure; 5-300 microseconds per pair.

Three ways to match, tried in order: `exact` (a substring after folding), `elided` (every part
around an ellipsis, in order) and `near` (a rapidfuzz alignment of at least 90, with the same
decisive tokens in the same order and no differences between words beyond typos). A quote that cuts
a number, word or comparison in half, or that starts right after the negation or comparator that
governs it, does not match.

*Decisive tokens* are numbers, units, comparators and negations. A fuzzy threshold alone accepts
every changed number and every added "not", because one short word hardly changes the ratio of a
long quote (measured: 300 of 300 accepted at 90). So a near match must have the same decisive
tokens.

*Folding* normalizes Unicode compatibility forms (NFKC), case, white space, typographic quotes and
dashes, and removes invisible characters. Two things stay distinct that NFKC would merge: a
superscript is a power (`10²` is `10^2`, not `102`), and a vulgar fraction is a number of its own
(`5½` is `5 1/2`, not `51/2`). A folded text remembers where every character came from.

An *ellipsis* may leave out whole sentences. Within a sentence that is partly quoted it may not
leave out a word that denies or forbids (`do ... crush`, `is ... in pregnancy`), nor a comparison
without its number (`below ... 40`). Whether such a word governs the quoted ones is not checked:
that would take a parser, and rejecting a quote costs less than accepting one that says the
opposite.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from rapidfuzz import fuzz
from rapidfuzz.distance import OSA

from judge.decisive import (
    AFTER_THE_VERB,
    EAST_COMPARATOR,
    HAN_NUMERALS,
    decisive_tokens,
    same_decisive_tokens,
)
from traces.words import has_runs, is_hangul

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
_SYLLABLES = "\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
"""Kana, Han characters and Korean syllables, which fold to themselves."""
_SWAPPED = {code: one for code, one in _TYPOGRAPHY.items() if len(one) == 1}
_SAME = _SYLLABLES + re.escape("".join(map(chr, _SWAPPED)))
_PLAIN = re.compile(rf"[ -~\t\n\r{_SAME}]+")
_WORDS = re.compile(r"[^ \t\n\r]+(?:[ \t\n\r][^ \t\n\r]+)*")
_SAME_LENGTH = re.compile(rf"[ \t\n\r]*[!-~{_SAME}]++(?:[ \t\n\r][!-~{_SAME}]++)*+[ \t\n\r]*")
"""Plain text without double spaces inside, as in most guidelines: one character folds to one."""
_PLAIN_FOLDS = _SWAPPED | str.maketrans("\t\n\r", "   ")


@dataclass(frozen=True, slots=True)
class FoldedText:
    """A folded text that maps back to the original."""

    text: str
    """The folded text, without leading, trailing or double spaces."""
    starts: Sequence[int]
    """For each folded character, the offset of the original character."""
    ends: Sequence[int]
    """For each folded character, the offset after the original character."""

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The span in the original text of a non-empty folded span [start, end)."""
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
    """Builds a folded text."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._last = " "
        """The last folded character; initially a space, so that the text starts without one."""
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add_plain(self, text: str, offset: int) -> None:
        """Add plain text, of which nearly every guideline consists, by runs of words."""
        position = 0
        for words in _WORDS.finditer(text):
            start, end = words.span()
            if start > position:
                self._add(" ", offset + position, offset + position + 1)
            self._parts.append(words[0].lower().translate(_PLAIN_FOLDS))
            self._last = self._parts[-1][-1]
            self._starts.extend(range(offset + start, offset + end))
            self._ends.extend(range(offset + start + 1, offset + end + 1))
            position = end
        if position < len(text):
            self._add(" ", offset + position, offset + position + 1)

    def add_cluster(self, text: str, start: int, end: int) -> None:
        """Add a character with its combining marks."""
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
        """The text so far, without a trailing space."""
        text = "".join(self._parts)
        length = len(text) - text.endswith(" ")
        return FoldedText(text[:length], tuple(self._starts[:length]), tuple(self._ends[:length]))


def _plain_end(text: str, start: int) -> int:
    """End of the plain text from `start`, before a character with combining marks."""
    found = _PLAIN.match(text, start)
    if found is None:
        return start
    end = found.end()
    return end - (end < len(text) and unicodedata.combining(text[end]) != 0)


def _cluster_end(text: str, start: int) -> int:
    """Offset after a character and its combining marks, which NFKC may compose."""
    end, limit = start + 1, min(len(text), start + 1 + _MAX_MARKS)
    while end < limit and unicodedata.combining(text[end]):
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


_SENTENCE_END = re.compile(r"[.!?؟۔।]\s|。")
_FORBIDS = re.compile(
    r"\b(?:contra-?indicat\w+|avoid(?:s|ed|ing)?|withh[eo]ld\w*|prohibit\w*|forbid\w*|refrain\w*"
    r"|stop|discontinue|withdraw|interrupt|instead|unsafe|unsuitable|inappropriate|inadvisable"
    r"|unlikely|rarely|seldom|hardly|scarcely|barely)\b"
    r"|중단|중지|피하|피해|주의|停用|停药|停止|中止|慎用|慎重|หยุด|เลี่ยง|ระวัง"
)
"""Words that deny or forbid without being negations; a near match treats them as plain words."""
_HEDGE = re.compile(r"(?:(?:about|around|approximately|roughly|some|the|an?)\s){0,4}")
"""What may come between a comparison and its number."""
_MAX_COMPARED = 100
"""An ellipsis that leaves out more comparisons is refused without looking at each."""
_MAX_MARKS = 32
"""Combining marks that are folded with a character; putting them in order takes quadratic time."""
_PREFIX = "non"
"""Negates only the word that it is part of, and is left out together with it."""


class Gaps:
    """The places in a passage, a folded text, that no ellipsis may leave out."""

    def __init__(self, passage: str) -> None:
        tokens = decisive_tokens(passage)
        denials = [t.start for t in tokens if t.kind == "negation" and t.value != _PREFIX]
        denials += [found.start() for found in _FORBIDS.finditer(passage)]
        self._denials = sorted(denials)
        # "between 5 and 10" has no direction.
        self._comparators = [t for t in tokens if t.kind == "comparator" and t.value != "between"]
        self._places = [t.start for t in self._comparators]
        self._numbers = [t.start for t in tokens if t.kind == "number"]
        self._passage = passage
        self._sentence_ends = [found.start() for found in _SENTENCE_END.finditer(passage)]

    def in_one_sentence(self, start: int, end: int) -> bool:
        """Whether no sentence ends between the two offsets."""
        return not _any_within(self._sentence_ends, start, end)

    def may_be_left_out(self, start: int, end: int) -> bool:
        """Whether an ellipsis may replace passage[start:end], with words kept on both sides."""
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
        """Whether a comparison starts here whose other side is kept: "younger than ... rest"."""
        numbers_before = bisect_left(self._numbers, end)
        number = self._numbers[numbers_before - 1] if numbers_before else 0
        began = bisect_left(self._places, max(start, number))
        hedge = _HEDGE.match(self._passage, end)
        kept = end if hedge is None else hedge.end()
        number_follows = _any_within(self._numbers, kept, kept + 1)
        stop = bisect_left(self._places, end)
        return stop - began > _MAX_COMPARED or any(
            number_follows
            or each.value.endswith(" than")
            or not self._passage[each.end : end].strip()
            for each in self._comparators[began:stop]
        )


def _any_within(places: Sequence[int], start: int, end: int) -> bool:
    return bisect_left(places, start) < bisect_left(places, end)


Method = Literal["exact", "elided", "near"]

NEAR_RATIO = 90.0
"""Minimum similarity (0-100) of a near match."""
MAX_PARTS = 8
"""A quote with more ellipses than this is a collage, not a quote."""
MAX_TRIES = 4000
"""Maximum number of places tried for the parts of one quote."""
MAX_NEAR_WORDS = 300
"""A longer quote has to be exact: comparing with typos takes more than linear time."""
MAX_NEAR_WORK = 20_000_000
"""Characters of the quote times those of the passage up to which a near match is looked for."""
SHORT_PART_WORDS = 3
"""A part with fewer words than this can occur anywhere ..."""
LONG_WORD = 5
"""Minimum length at which a misspelled comparator is still recognized (`beloww`)."""
SHORT_GAP = 120
"""... so it must be within this many folded characters of its neighbor; a single word must be in
the neighbor's sentence."""

_ELLIPSIS = re.compile(r"\s*(?:\[\s*\.{3,}\s*\]|\(\s*\.{3,}\s*\)|\.{3,}|(?:\. ){2,}\.)\s*")
_OPENING = frozenset(" \"'([{*_|<>≤≥=≈~:;•。、「『【《〈・!?")
_ATTACHED = frozenset("<>≤≥=≈~:±")
_NUMBER_STARTS = frozenset(".+-<>≤≥=≈~±")
_CLOSING = frozenset("\"')]}*_|;!?([{。、「」『』【】《》〉〈・")
_CLAUSE_END = re.compile(r"[.。,、;!?:]")
_GOVERNED = 12
"""How far after a quote a Korean or Japanese negation may govern its last word."""
_INNER = frozenset(".,:/")
_LEAD = 40
"""Characters searched backward for a governing negation or comparator; all are shorter."""
_WORD = re.compile(r"\S+")
_ARTICLES = frozenset({"the", "a", "an"})
_PRIVATIVE = re.compile(
    "a(?:symptomatic|typical|febrile|septic|phasic|tonic|trophic|cyclic|rhythmic|kinetic|vascular"
    "|cellular|motile|plastic|sexual|symmetric|symmetrical|synchronous)"
)
"""Words that a leading `a` turns into their opposite."""


@dataclass(frozen=True, slots=True)
class QuoteMatch:
    """Where a quote occurs in a passage."""

    start: int
    """Offset of its first character in the original passage text."""
    end: int
    """Offset after its last character (for an elided quote, of its last part)."""
    method: Method


def verify_quote(quote: str, passage_text: str) -> QuoteMatch | None:
    """Find the quote in the passage; None if it does not occur there.

    Args:
        quote: the text as the judge wrote it.
        passage_text: the passage as stored; the offsets returned refer to it.
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
    """The folded passage, cached for the quotes of a trace."""
    return fold(text)


def _match(passage: FoldedText, start: int, end: int, method: Method) -> QuoteMatch:
    return QuoteMatch(*passage.original_span(start, end), method)


def _trim(text: str) -> str:
    """The text without quotation marks around it and punctuation after it."""
    return text.strip().lstrip("\"'「『").rstrip("\"' .,;:。、」』").strip()


def _find_parts(parts: list[str], passage: str) -> list[tuple[int, int]] | None:
    """Spans of all parts in order, the first that fit; None if none do."""
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
        place = passage.find(parts[index], after)
        while place >= 0:
            start, end = place, place + len(parts[index])
            tries += 1
            if tries > MAX_TRIES:
                return None
            place = passage.find(parts[index], start + 1)
            if not (_starts_clean(passage, start) and _ends_clean(passage, end)):
                continue
            if index and gaps is not None:
                if start - after > SHORT_GAP and shortest[index] < SHORT_PART_WORDS:
                    break
                if shortest[index] == 1 and not gaps.in_one_sentence(after, start):
                    break
                if words[index] < SHORT_PART_WORDS and passage.find(parts[index], after) < start:
                    break  # a short part must not skip its first occurrence
                if not gaps.may_be_left_out(after, start):
                    continue
            rest = find_from(index + 1, end)
            if rest is not None:
                return [(start, end), *rest]
        hopeless.add((index, after))
        return None

    return find_from(0, 0)


def _starts_clean(passage: str, start: int) -> bool:
    """Whether a span may start here: cuts no word or number, follows no negation or comparator."""
    if start == 0:
        return True
    before = passage[start - 1]
    starts_number = passage[start].isdigit() or passage[start] in _NUMBER_STARTS
    if before in "-/" or (starts_number and before in _ATTACHED):
        return False  # `-5`, `<5`, `1/5`, `1:5`, `10-15`, `beta-blocker`
    if before not in _OPENING and not _is_word_edge(passage, start):
        return False
    lead = passage[max(0, start - _LEAD) : start].rstrip()
    return not any(
        token.end == len(lead)
        and (token.kind == "negation" or (token.kind == "comparator" and starts_number))
        for token in decisive_tokens(lead)
    )


def _ends_clean(passage: str, end: int) -> bool:
    """Whether a span may end here: no word, number or unit cut, no negation after its verb."""
    if end == len(passage):
        return True
    if not passage.isascii() and _is_governed_from_behind(passage, end):
        return False
    if passage[end] == " ":
        return True
    after, following = passage[end], passage[end + 1 : end + 2]
    if after in _INNER:  # `5.5`, `1,500`, `1:5`, `mg/kg` go on; `5.` and `5, ` do not
        return not following.isalnum() or (after == "," and has_runs(following))
    return after in _CLOSING or _is_word_edge(passage, end)


def _is_word_edge(passage: str, place: int) -> bool:
    """Whether a word may end and the next one begin here without a space between them.

    Script without spaces may be parted anywhere but within a number; Korean has spaces, but its
    particles follow Latin letters directly.
    """
    before, after = passage[place - 1], passage[place]
    number = before.isdecimal() or before in HAN_NUMERALS
    if number and (after.isdecimal() or after in HAN_NUMERALS or has_runs(after)):
        return False
    korean = is_hangul(before), is_hangul(after)
    return not all(korean) and (has_runs(before) or has_runs(after))


def _is_governed_from_behind(passage: str, end: int) -> bool:
    """Whether what follows denies the last word, or compares the last number."""
    tail = passage[end : end + _GOVERNED]
    clause = _CLAUSE_END.search(tail)
    tail = tail[: clause.start()] if clause else tail
    if not has_runs(tail) or _CLAUSE_END.match(passage[end - 1]):
        return False
    if re.match(rf"\s?{EAST_COMPARATOR}", tail):
        lead = passage[max(0, end - _LEAD) : end]
        if any(
            token.kind == "number" and token.end == len(lead) for token in decisive_tokens(lead)
        ):
            return True
    return re.search(AFTER_THE_VERB, tail) is not None


def _find_near(quote: str, passage: str) -> tuple[int, int] | None:
    """The span that the quote copies with typos; None if there is none."""
    if quote.count(" ") >= MAX_NEAR_WORDS or len(quote) * len(passage) > MAX_NEAR_WORK:
        return None
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
            and (span.isascii() or not _is_governed_from_behind(passage, end))
        ):
            return start, end
    return None


def _whole_word_spans(passage: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of whole words near the window, which may cut a word or miss a short last one."""
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
    """The quote with its typos corrected; None if it differs by more than typos.

    A typo is one edit in a word, a space or an article. `hypotension` for `hypertension`, `before`
    for `after` and `asymptomatic` for `symptomatic` score above 90 in a long quote but are not
    typos. Numbers, units and negations stay as they are, because `now` is no typo of `not`.
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
    """Whether a misspelled word may be replaced by the passage's word."""
    changes_nothing = all(token.kind == "comparator" for token in decisive_tokens(meant))
    return len(meant) >= LONG_WORD and changes_nothing and not decisive_tokens(word)


def _is_slip(quote: list[str], span: list[str]) -> bool:
    if not quote or not span:
        extra = (*quote, *span)
        return all(word in _ARTICLES or not any(map(str.isalnum, word)) for word in extra)
    one, other = "".join(quote), "".join(span)
    if has_runs(one) or has_runs(other):
        return one == other  # one character is a word there: only spaces may differ
    if bool(_PRIVATIVE.fullmatch(one)) != bool(_PRIVATIVE.fullmatch(other)):
        return False
    allowed = len(quote) if len(quote) == len(span) else 1
    return OSA.distance(one, other, score_cutoff=allowed) <= allowed
