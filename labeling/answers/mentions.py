"""Where a solution names its answer: `\\boxed{..}`, "the answer is ..", `#### ..`, "정답은 ..", in order.

What an answer looks like is not decided here; see choices.py, texts.py and the grammar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from labeling.answers import languages

_PHRASE = re.compile(
    r"(?:\banswer(?:\s+(?:choice|option|key))?|\bdiagnosis)[\s*_]*"
    r"(?:(?:is|are|=|:|[-–—](?=\s)|(?:would|should|must|will|has\s+to)\s+be)(?![\w'’])[\s*_]*)+"
    r"(?:(?:therefore|thus|hence|then|clearly|indeed|simply|likely|most\s+likely|probably|:|,)\s*)*",
    re.IGNORECASE,
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*", re.MULTILINE)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\f?boxed\s*\{")
_NAMED_CORRECT = re.compile(
    r"\(?\b([A-Z])\)?\s+is\s+(?:therefore\s+|thus\s+)?(?:the\s+)?(?:correct|right|best)\b"
)
_CONDITION = re.compile(
    r"\b(?:if|whether|suppos(?:e|ing)|assum(?:e|ing)|unless|were)\b[^.!?\n]{0,30}$", re.IGNORECASE
)
_END = re.compile(
    r"(?<!\bapprox)(?<!\bca)(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bSt)(?<!\bNo)(?<!\bsq)\.(?=\s|$)(?<!\b[A-Z]\.(?=\s[a-z]))"
    r"|\?(?=\s|$)|!(?=\s+[A-Z\"“*]|\s*$|\s*\n)|;(?=\s+[A-Za-z]{2}|\s*$)|\n"
)
_NOT = re.compile(
    r"(?:(?:definitely|clearly|certainly|probably|obviously)\s+)?(?:not|never)\b(?!\s+(?:more|less)\s+than)",
    re.I,
)
_BUT = re.compile(r"\b(?:but(?:\s+rather)?|rather)\s+(?:it\s+is\s+|is\s+)?(?!than\b)", re.I)
_EDGE = " \t*_\"'"


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a text names its answer."""

    text: str
    """What is named, up to the end of the sentence or the box; not yet read."""
    position: int
    """Character offset of the mention in the text."""
    boxed: bool
    """Whether it is the content of a box: then it is the answer and no prose."""
    closed: bool
    """Whether box or sentence ends inside the text. An open one may have been cut."""
    foreign: bool = False
    """Whether it is announced in Korean, Chinese or Japanese."""


def find_mentions(text: str) -> list[Mention]:
    """All mentions of an answer in a text, in order; negated and conditional ones are left out."""
    found = [*_boxes(text), *_sentences(text), *_named(text)]
    if languages.has_cjk(text):
        found += _foreign(text)
    if len(found) > 1:
        found.sort(key=lambda mention: mention.position)
    return found


def last_line(text: str) -> str:
    """The last line that is not blank, stripped; empty if there is none."""
    return text.rstrip().rpartition("\n")[2].strip()


def _boxes(text: str) -> Iterator[Mention]:
    if "boxed" in text:
        for found in _BOXED.finditer(text):
            end = _closing_brace(text, found.end())
            if end is not None:
                inside = text[found.end() : end].strip()
                yield Mention(inside, found.start(), boxed=True, closed=True)
    if "</" in text:
        for found in _TAGGED.finditer(text):
            if not _BOXED.search(found[1]):
                yield Mention(found[1].strip(), found.start(), boxed=True, closed=True)


def _closing_brace(text: str, start: int) -> int | None:
    """Offset of the brace that closes the one before `start`; None if it is cut off."""
    depth = 1
    for found in re.finditer(r"\\?[{}]", text[start:]):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return start + found.start()
    return None


def _sentences(text: str) -> Iterator[Mention]:
    anchors = (_PHRASE, _HASHES) if "####" in text else (_PHRASE,)
    for anchor in anchors:
        for found in anchor.finditer(text):
            if _CONDITION.search(text, max(0, found.start() - 60), found.start()):
                continue
            start = found.end()
            ending = _END.search(text, start)
            end = ending.start() if ending else len(text)
            if ending is not None and ending[0] == "!" and text[end - 1 : end].isalnum():
                end += 1  # a factorial, or joy: the reader decides
            named = _affirmed(text[start:end])
            if named is not None:
                # A full stop at the very end may have been the point of a decimal.
                closed = ending is not None and (ending[0] == "\n" or ending.end() < len(text))
                yield Mention(named, found.start(), boxed=False, closed=closed)


def _affirmed(named: str) -> str | None:
    """The answer in a sentence's rest; None if the sentence only says what it is not."""
    if not _NOT.match(named):
        return named.strip(_EDGE) or None
    but = _BUT.search(named)
    return (named[but.end() :].strip(_EDGE) or None) if but else None


def _named(text: str) -> Iterator[Mention]:
    """`(B) is correct`."""
    for found in _NAMED_CORRECT.finditer(text):
        if not _CONDITION.search(text, max(0, found.start() - 60), found.start()):
            yield Mention(f"({found[1]})", found.start(), boxed=False, closed=True)


def _foreign(text: str) -> Iterator[Mention]:
    for one in languages.announcements(text):
        yield Mention(one.text, one.start, boxed=False, closed=one.end < len(text), foreign=True)
