"""A token count that needs no network: an estimate on the safe side.

Gemini's tokenizer is not public as a small file and counting by the service costs a call, so the
evidence budget is kept with an estimate that is above the real count for prose, tables and
numbers: letters in groups of at most four, every digit and every punctuation mark for itself.
`tests/judge/test_tokens.py` holds it above a real WordPiece tokenizer on real guideline text.
"""

from __future__ import annotations

import re

_PIECE = re.compile(r"[A-Za-z]+|\d|\n|[^\sA-Za-z\d]")
_LETTERS_PER_TOKEN = 4


def estimate_tokens(text: str) -> int:
    """A count of tokens that is rarely below the real one, at least 0.

    ASCII words cost one token per four letters (rounded up), digits, punctuation and line breaks
    one each, every other character one per two UTF-8 bytes (rounded up).
    """
    return sum(_cost(piece) for piece in _PIECE.findall(text))


def _cost(piece: str) -> int:
    if piece.isascii():
        return -(-len(piece) // _LETTERS_PER_TOKEN)
    return -(-len(piece.encode("utf-8", "replace")) // 2)
