"""A token count that needs no network: an estimate on the safe side.

Gemini's tokenizer is not public as a small file and counting by the service costs a call, so the
evidence budget is kept with an estimate that is above the real count for prose, tables and
numbers: letters in groups of at most four, every digit and every punctuation mark for itself.
`tests/judge/test_tokens.py` holds it above a real WordPiece tokenizer on real guideline text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Protocol, runtime_checkable

from retrieval.documents import TokenCounter

_PIECE = re.compile(r"[A-Za-z]{1,4}|\d|\n|[^\sA-Za-z\d]")
_WIDE = re.compile(r"[^\s\u0000-\u07ff\ud800-\udfff]")


@lru_cache(maxsize=2048)
def estimate_tokens(text: str) -> int:
    """A count of tokens that is rarely below the real one, at least 0.

    ASCII words cost one token per four letters (rounded up), digits, punctuation and line breaks
    one each, every other character one per two UTF-8 bytes (rounded up). Remembered for the last
    texts, because the traces of a problem and the votes on a trace show the same documents.
    """
    pieces = len(_PIECE.findall(text))
    # characters of three or four bytes, each one piece so far, cost two
    return pieces if text.isascii() else pieces + len(_WIDE.findall(text))


@runtime_checkable
class CountsTokens(Protocol):
    """A model whose own tokenizer is at hand."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special tokens not counted."""


def counter_of(model: object) -> TokenCounter:
    """The model's own count where it has one, else the estimate."""
    return model.count_tokens if isinstance(model, CountsTokens) else estimate_tokens
