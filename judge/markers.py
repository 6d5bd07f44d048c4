"""The tags that delimit the judge's material, and how foreign text is kept from imitating them."""

from __future__ import annotations

import re
import unicodedata

TAGS = ("documents", "document", "question", "solution", "steps", "step", "system")
"""Names that structure the prompt; text between them is material, never an instruction."""

_IMITATION = re.compile(
    r"[<＜﹤](?=\s*/?\s*(?:" + "|".join(TAGS) + r")\b)"  # our own sections
    r"|<(?=\||/?s>|(?:start|end)_of_turn>)",  # turn marks of chat templates
    re.IGNORECASE,
)


def escape_markers(text: str) -> str:
    """The text with every imitated tag made harmless and invisible characters taken out.

    `<` becomes `&lt;` only where it opens one of our tags or a chat template's turn mark, so that
    `CRP < 5` stays as it is. Control and format characters (zero width, bidirectional, tag
    characters) go: they can hide text from people, or cut a tag so that only a model reads it.
    """
    visible = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _HIDDEN)
    return _IMITATION.sub("&lt;", visible)


def escape_attribute(text: str) -> str:
    """The text for use between double quotes in a tag: one line, no quote or angle bracket."""
    line = " ".join(escape_markers(text).split())
    return line.replace('"', "'").replace("<", "&lt;").replace(">", "&gt;")


def unescape_markers(text: str) -> str:
    """The inverse, for quotes: a judge copies `&lt;` where the passage has `<`."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
