"""Documents into passages: along headings and sentences, with exact character offsets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval.tokens import TokenCounter, cut_to_tokens, estimate_tokens
from traces import InputError, Passage, StoredDocument

TITLE_SEPARATOR = " -- "
"""Between document title and headings in a passage's title, as in MedRAG's StatPearls chunks."""

_HEADING_OR_CODE = re.compile(
    r"^(?P<level>#{1,6})[ \t]+(?P<name>\S.*?)[ \t#]*$"
    r"|^(?P<fence>```|~~~)(?:.|\n)*?^(?P=fence)",  # a "#" line in code is a comment
    re.MULTILINE,
)
_BREAK = re.compile(
    r"\n[ \t]*\n\s*"  # an empty line
    r"|\n(?=[ \t]*(?:[-*•|]|\d{1,3}[.)]\s))"  # a list item or table row follows
    r"|\n(?=[^\n]* \| )"
    r"|(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z0-9])"  # a sentence ends
    r"|(?<=[。！？])\s*"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|viz|approx|ca|Dr|Prof|Mr|Mrs|Ms|St|Fig|Figs|No|Nos|Ref|Eq|Vol|pp?"
    r"|[a-z]\.[a-z](?:\.[a-z])*)|\b[A-Z])\.$"
)
_LONGEST_ABBREVIATION = 12

Span = tuple[int, int]
"""Character offsets: start, and end behind the last character."""


@dataclass(frozen=True, slots=True)
class _Section:
    """A stretch of a document under one heading."""

    start: int
    body: int
    end: int
    title: str


def split_document(
    document: StoredDocument,
    *,
    corpus: str,
    target_tokens: int = 200,
    overlap: int = 0,
    count_tokens: TokenCounter = estimate_tokens,
) -> list[Passage]:
    """Split a document into passages of whole sentences that never reach across a heading.

    Every visible character of the document lies in a passage; `document.text[start:end]` is the
    passage's text to the letter. A heading opens its section's first passage and is part of the
    title of all of them. A sentence longer than `target_tokens` is cut between words.

    Args:
        document: what to split.
        corpus: name of the corpus, for the passages.
        target_tokens: most tokens of a passage, as the sum over its sentences; at least 1.
        overlap: most tokens of whole sentences repeated from the passage before, in
            [0, target_tokens).
        count_tokens: the counter; without one an estimate that needs no model.

    Raises:
        InputError: a target below 1 or an overlap outside its range.
    """
    if target_tokens < 1 or not 0 <= overlap < target_tokens:
        raise InputError(
            f"Passages of {target_tokens} tokens cannot overlap by {overlap}.",
            remedy="choose at least 1 token and an overlap from 0 to one below it",
        )
    spans = [
        (span, section.title)
        for section in _sections(document)
        for span in _section_spans(document.text, section, target_tokens, overlap, count_tokens)
    ]
    return [
        Passage(corpus, document.name, index, start, end, document.text[start:end], title)
        for index, ((start, end), title) in enumerate(spans)
    ]


def sentence_ends(text: str) -> list[int]:
    """Character offsets behind the sentences of a text, ascending; headings and list items count."""
    return [end for _, end in _sentences(text, 0, len(text))]


def _sections(document: StoredDocument) -> Iterator[_Section]:
    text = document.text
    headings = [match for match in _HEADING_OR_CODE.finditer(text) if match["level"]]
    path: dict[int, str] = {}
    start, body = 0, 0
    for heading in headings:
        # A heading directly below another one shares its section.
        if text[body : heading.start()].strip():
            yield _Section(start, body, heading.start(), _title(document, path))
            start = heading.start()
        level = len(heading["level"])
        path = {upper: name for upper, name in path.items() if upper < level}
        path[level] = heading["name"]
        body = heading.end()
    if text[start:].strip():
        yield _Section(start, body, len(text), _title(document, path))


def _title(document: StoredDocument, path: dict[int, str]) -> str:
    names = [document.title, *path.values()] if document.title else list(path.values())
    if len(names) > 1 and names[0] == names[1]:
        del names[0]
    return TITLE_SEPARATOR.join(names)


def _section_spans(
    text: str, section: _Section, target: int, overlap: int, count: TokenCounter
) -> Iterator[Span]:
    head = _strip(text, section.start, section.body)
    head_tokens = count(text[slice(*head)]) if head else 0
    # What follows the heading must leave room for it, or the heading would stand alone.
    room = target - head_tokens if head_tokens < target else target
    sentences: list[Span] = []
    for sentence in _sentences(text, section.body, section.end):
        limit = room if not sentences else target
        sentences += _cut(text, sentence, limit, count)
    if head and sentences and head_tokens < target:
        sentences[0] = (head[0], sentences[0][1])
    elif head:
        sentences[:0] = _cut(text, head, target, count)
    sizes = [count(text[start:end]) for start, end in sentences]
    return _packed(sentences, sizes, target, overlap)


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    begin = start
    for found in _BREAK.finditer(text, start, end):
        before = text[max(begin, found.start() - _LONGEST_ABBREVIATION) : found.start()]
        if "\n" not in found.group() and _ABBREVIATION.search(before):
            continue
        if span := _strip(text, begin, found.start() + len(found.group().rstrip())):
            yield span
        begin = found.end()
    if span := _strip(text, begin, end):
        yield span


def _cut(text: str, span: Span, limit: int, count: TokenCounter) -> list[Span]:
    """The span itself, or its pieces if it has more tokens than `limit`."""
    start, end = span
    if count(text[start:end]) <= limit:
        return [span]
    offsets = cut_to_tokens(text[start:end], limit, count)
    pieces = [_strip(text, start + first, start + last) for first, last in offsets]
    return [piece for piece in pieces if piece]


def _packed(
    sentences: Sequence[Span], sizes: Sequence[int], target: int, overlap: int
) -> Iterator[Span]:
    """Runs of sentences of at most `target` tokens, each starting with the tail of the one before."""
    first, last, tokens = 0, 0, 0
    while last < len(sentences):
        if first == last or tokens + sizes[last] <= target:
            tokens += sizes[last]
            last += 1
            continue
        yield sentences[first][0], sentences[last - 1][1]
        room = min(overlap, target - sizes[last])
        first, tokens = last, 0
        while tokens + sizes[first - 1] <= room:
            first -= 1
            tokens += sizes[first]
    if sentences:
        yield sentences[first][0], sentences[-1][1]


def _strip(text: str, start: int, end: int) -> Span | None:
    """The span without surrounding white space; None if nothing is left."""
    piece = text[start:end]
    stripped = piece.strip()
    if not stripped:
        return None
    begin = start + len(piece) - len(piece.lstrip())
    return begin, begin + len(stripped)
