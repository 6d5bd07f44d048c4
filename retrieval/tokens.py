"""Counting tokens: the counter is pluggable everywhere, and one needs no model."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from semchunk import semchunk

TokenCounter = Callable[[str], int]
"""Takes a text and gives its number of tokens, special tokens not counted."""

_PIECE = re.compile(r"[A-Za-z0-9]{1,6}|[^\sA-Za-z0-9]")


def estimate_tokens(text: str) -> int:
    """Estimate the number of sub-word tokens of a text without a tokenizer.

    A run of ASCII letters and digits counts one token for every six characters begun, any other
    visible character one token. Measured against MiniLM's WordPiece on 2,200 medical texts
    (PubMedQA and MedQuAD): the true number is 0.91 of it in the middle, at most 1.01 of it for
    90% and at most 1.14 of it for 99% of the texts.
    """
    return len(_PIECE.findall(text))


def cut_to_tokens(text: str, limit: int, count_tokens: TokenCounter) -> list[tuple[int, int]]:
    """Cut a text into pieces of at most `limit` tokens, at the best break there is.

    Breaks are tried from empty lines over sentence ends down to single characters (semchunk).

    Returns:
        Character offsets (start, end) of the pieces; only white space lies between two.
    """
    pieces = semchunk.chunk(text, limit, count_tokens, memoize=False, offsets=True)
    return cast(tuple[list[str], list[tuple[int, int]]], pieces)[1]
