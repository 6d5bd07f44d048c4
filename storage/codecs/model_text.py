"""Text that a model wrote. It is stored whatever it holds: a paid reply is never refused.

A reply may hold a NUL or half of a surrogate pair (a reply cut inside an emoji does). Such a text is
stored as `json:` and its JSON string, in which both are escaped; every other text as it is.
"""

from __future__ import annotations

import json

_PREFIX = "json:"


def encode_text(text: str) -> str:
    """The text as every database can hold it; `decode_text` gives it back to the letter."""
    if "\0" not in text and not text.startswith(_PREFIX):
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _PREFIX + json.dumps(text)


def decode_text(stored: str) -> str:
    """The text that was given to `encode_text`."""
    if not stored.startswith(_PREFIX):
        return stored
    return str(json.loads(stored[len(_PREFIX) :]))


def encode_optional(text: str | None) -> str | None:
    """As `encode_text`; None stays None."""
    return None if text is None else encode_text(text)


def decode_optional(stored: str | None) -> str | None:
    """As `decode_text`; None stays None."""
    return None if stored is None else decode_text(stored)
