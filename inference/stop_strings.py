"""New tokens as text: decoded behind their prefix, cut at the first stop string."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase


class StopStrings:
    """Turns new tokens into text and finds where a stop string ends it."""

    def __init__(self, strings: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        """Prepare for a tokenizer.

        Args:
            strings: what ends a continuation; empty strings are ignored.
            tokenizer: of the model that writes.
        """
        self._strings = tuple(string for string in strings if string)
        self._tokenizer = tokenizer
        self._suspects = self._ending_tokens()

    def __bool__(self) -> bool:
        return bool(self._strings)

    def suspects(self, chosen: Tensor) -> Tensor:
        """Which of the chosen tokens (int64, any shape) could complete a stop string."""
        known = chosen.clamp(max=len(self._suspects) - 1)
        return self._suspects.to(chosen.device)[known] | (known != chosen)

    def text(self, before: int, ids: Sequence[int]) -> tuple[str, bool]:
        """The text of new tokens, and whether a stop string was found and cut off with what follows.

        Args:
            before: the token in front of them; some decoders drop a blank at the start of a text.
            ids: the new tokens, without the one that ends a turn.
        """
        anchor, whole = self._decode([before]), self._decode([before, *ids])
        text = whole[len(anchor) :] if whole.startswith(anchor) else self._decode(ids)
        found = [at for at in map(text.find, self._strings) if at >= 0]
        return (text[: min(found)], True) if found else (text, False)

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _ending_tokens(self) -> Tensor:
        """Tokens whose text holds the last character of a stop string, or only part of a character."""
        if not self._strings:
            return torch.zeros(1, dtype=torch.bool)
        marks = {string[-1] for string in self._strings} | {"\N{REPLACEMENT CHARACTER}"}
        pieces = self._tokenizer.batch_decode(
            [[token] for token in range(len(self._tokenizer))], clean_up_tokenization_spaces=False
        )
        return torch.tensor([not marks.isdisjoint(piece) for piece in pieces])
