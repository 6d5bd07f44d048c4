"""Counts phrases that are translated word for word into English, in all that a person reads."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tools.house_tree import Finding, Product, Source

PAGES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md")
"""Pages that are read besides the product's files; the changelog keeps what was written then."""


@dataclass(frozen=True)
class Calque:
    """A phrase, what to say instead, and where it is plain English."""

    phrase: str
    pattern: str
    """Regular expression, case ignored; a space is any white space."""
    instead: str
    plain: Sequence[tuple[str, str]] = ()
    """Patterns around the phrase that excuse it, each with the reason."""


CALQUES = (
    Calque(
        "told apart",
        r"\btold (\S+ ){0,4}?apart\b",
        "distinguished",
    ),
    Calque(
        "held against",
        r"\b(holds?|held|holding) (\S+ ){0,4}?against\b",
        "compared with",
    ),
    Calque(
        "behind",
        r"\bbehind\b",
        "after, from",
        (
            (
                r"behind (\S+ ){0,3}?(proxy|firewall|gateway|balancer|vpn|login|api|interface"
                r"|protocol|endpoint|servers?\b|flag|scenes)",
                "network and software idiom",
            ),
            (r"\b(left|leaves?|leaving|fall\w*|fell|lag\w*) (\S+ ){0,4}?behind", "phrasal verbs"),
            (
                r"\b(idea|reason|reasoning|motivation|thinking|math|logic)s? behind",
                "the idea behind something",
            ),
        ),
    ),
    Calque(
        "lies",
        r"\b(lies|lie|lay|lying|lain)\b",
        "is",
        (
            (r"\blie[sd]? (to|about)\b|\bcannot lie\b", "untruth"),
            (r"\blay (\S+ ){0,4}?(out|down)\b|\blays (out|down)\b", "to lay out, to lay down"),
            (r"\blay (person|people|reader|readers|audience|terms?)\b", "not of the profession"),
            (
                r"\blies? (\S+ )?(between|within|outside|inside|above|below|in \[|in \()",
                "where a value is on a line of numbers",
            ),
            (r"\b(difference|problem|fault|reason|answer)s? lies? (in|with)\b", "idiom"),
        ),
    ),
    Calque(
        "stands",
        r"\b(stands|stand|stood|standing)\b",
        "is",
        (
            (
                r"(?<!what\s)(?<!which\s)(?<!that\s)\b(stands?|stood|standing) for\b(?! all\b)",
                "abbreviations and placeholders",
            ),
            (r"\b(stands?|stood|standing) (in for|out|alone|by|up)\b", "phrasal verbs"),
            (r"\bas it stands\b|\blong-standing\b|\bstand-(in|alone)\b", "idiom"),
            (r"\bon standing\b|\bstanding blood pressure\b", "posture, in medicine"),
        ),
    ),
    Calque(
        "told",
        r"\btold\b",
        "detected, reported",
        (
            (
                r"\btold (\S+ )?(to|that|not|what|how|which|when|whether|about|so)\b",
                "somebody is told something",
            ),
        ),
    ),
    Calque("nobody, whoever", r"\b(nobody|whoever|whomever)\b", "name the actor"),
    Calque("anew", r"\banew\b", "again"),
    Calque("of ours", r"\bof ours\b", "our"),
    Calque("an own", r"\b(an|of) own\b", "a custom"),
    Calque("a word on", r"\b(a|no|any) word on\b|\bwithout a word\b", "a label; without a message"),
    Calque("what came of it", r"\b(what|nothing|something) (came|comes) of\b", "the outcome"),
    Calque(
        "on their way",
        r"\bon (its|their|the|our) way\b",
        "in flight",
        ((r"\bon (its|their|the|our) way to\b", "on the way to a place"),),
    ),
    Calque(
        "so many, as many",
        r"\b(so|as)[\s-]man(y|ieth)\b",
        "a number",
        (
            (r"\bas many (\S+ ){0,6}?as\b", "a comparison of two numbers"),
            (r"\b(twice|half|times) as many\b", "a ratio"),
            (r"\bso many (\S+ ){1,10}?that\b", "so many that something follows"),
        ),
    ),
)
"""Longer phrases come first: where two overlap, the first one counts."""


class Passage(NamedTuple):
    """A piece of text that a person reads."""

    path: str
    line: int
    text: str


def calques(product: Product) -> list[Finding]:
    """Calques in strings, docstrings and comments of the product and in the pages about it."""
    return [found for passage in passages(product) for found in calques_in(passage)]


def calques_in(passage: Passage) -> Iterator[Finding]:
    """The calques of one passage, in the order of the table."""
    taken: list[tuple[int, int]] = []
    for calque, wanted, plain in _COMPILED:
        excused = [found.span() for one in plain for found in one.finditer(passage.text)]
        for found in wanted.finditer(passage.text):
            start, end = found.span()
            if any(a < end and start < b for a, b in taken):
                continue
            if any(a <= start and end <= b for a, b in excused):
                continue
            taken.append((start, end))
            line = passage.line + passage.text.count("\n", 0, start)
            words = " ".join(passage.text[max(0, start - 30) : end + 30].split())
            yield Finding(passage.path, line, f"{calque.phrase}: '{words}' ({calque.instead})")


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE)


_COMPILED = tuple(
    (one, _compiled(one.pattern), tuple(_compiled(plain) for plain, _reason in one.plain))
    for one in CALQUES
)


def passages(product: Product) -> Iterator[Passage]:
    """Everything that a person reads."""
    for source in product.sources.values():
        yield from _strings(source)
        yield from _comments(source)
    for pattern in PAGES:
        for path in sorted(product.root.glob(pattern)):
            name = path.relative_to(product.root).as_posix()
            yield Passage(name, 1, path.read_text(encoding="utf-8"))


def _strings(source: Source) -> Iterator[Passage]:
    for node in source.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Passage(source.path, node.lineno, node.value)


def _comments(source: Source) -> Iterator[Passage]:
    """Comments, with those on adjacent lines as one passage."""
    block: list[str] = []
    start = 0
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if block and line != start + len(block):
            yield Passage(source.path, start, "\n".join(block))
            block = []
        start = start if block else line
        block.append(" " + token.string[1:])
    if block:
        yield Passage(source.path, start, "\n".join(block))
