"""The tags that delimit the judge's material, and how foreign text is kept from imitating them.

What is defused: every tag that structures the prompt, however it is written (case, spaces, full
width letters, look-alike angle brackets, invisible characters in between), and the marks by which
chat templates and tokenizers separate turns, roles, images and tools. Plain words are left alone:
a sentence that orders the judge around stays what it is, a sentence between two tags.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

TAGS = ("documents", "document", "question", "solution", "steps", "step", "system")
"""Names that structure the prompt; text between them is material, never an instruction."""

_LOOK_ALIKES = "<＜﹤‹〈〈⟨❬❰❮⧼˂ᐸ≺"
"""What a reader may take for an opening angle bracket."""
_TURN_MARKS = re.compile(
    r"(?P<open><)(?=[|｜]|/?s>|<?/?sys>|/?think>|/?(?:bos|eos|pad|unk|mask)>"
    r"|/?(?:start|end)_of_(?:turn|image)>|/?(?:image|img|video|audio)(?:_soft_token)?>"
    r"|/?tool_(?:call|response)>)"
    r"|\[(?=/?(?:inst|system_prompt|available_tools|tool_calls|tool_results|img)\])",
    re.IGNORECASE,
)
"""Marks of the common chat templates; some tokenizers read them as control tokens inside a text."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_IGNORABLE = frozenset(
    map(chr, [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0,
              *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)  # fmt: skip
"""Letters and marks that nobody sees: fillers and variation selectors, which can carry bytes."""
_SLASH = re.compile(r"\s*[/\\／＼∕⁄]?\s*")
"""What may stand between a bracket and the name."""
_LONGEST_NAME = 64
"""Characters of a name that are looked at."""


def escape_markers(text: str, tags: frozenset[str] = frozenset(TAGS)) -> str:
    """The text with every imitated tag made harmless and invisible characters taken out.

    `<` becomes `&lt;` (and `[` `&#91;`) only where it opens one of `tags` or a turn mark, so that
    `CRP < 5` stays as it is. Control, format and other characters that nobody sees go: they can
    hide text from people, or cut a tag so that only a model reads it.

    Args:
        text: the material.
        tags: lower-case names of the tags that structure the prompt.
    """
    if text.isascii() and text.isprintable() and "<" not in text and "[" not in text:
        return text
    visible = "".join(
        c
        for c in text
        if c in "\n\t" or (unicodedata.category(c) not in _HIDDEN and c not in _IGNORABLE)
    )
    pieces: list[str] = []
    done = 0
    for found in _opening().finditer(visible):
        if _opens_tag(visible, found.start(), tags):
            pieces += [visible[done : found.start()], "&lt;"]
            done = found.end()
    escaped = "".join([*pieces, visible[done:]])
    return _TURN_MARKS.sub(lambda mark: "&lt;" if mark["open"] else "&#91;", escaped)


def escape_attribute(text: str, tags: frozenset[str] = frozenset(TAGS)) -> str:
    """The text for use between double quotes in a tag: one line, no quote or angle bracket."""
    line = " ".join(escape_markers(text, tags).split())
    line = line.replace('"', "'").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("&lt;" if character in _LOOK_ALIKES else character for character in line)


def unescape_markers(text: str) -> str:
    """The inverse, for quotes: a judge copies `&lt;` where the passage has `<`."""
    return html.unescape(text)


@lru_cache(maxsize=1)
def _opening() -> re.Pattern[str]:
    return re.compile(f"[{re.escape(_LOOK_ALIKES)}]")


@lru_cache(maxsize=64)
def _names(tags: frozenset[str]) -> re.Pattern[str]:
    listed = "|".join(sorted(map(re.escape, tags), key=len, reverse=True))
    return re.compile(rf"(?:{listed})(?![\w-])", re.IGNORECASE)


def _opens_tag(text: str, bracket: int, tags: frozenset[str]) -> bool:
    """Whether the bracket opens one of the tags, in whatever letters that read the same."""
    slash = _SLASH.match(text, bracket + 1)
    start = bracket + 1 if slash is None else slash.end()
    plain = unicodedata.normalize("NFKC", text[start : start + _LONGEST_NAME])
    return _names(tags).match(plain) is not None
