"""Bases of PRM families: two tokens of the vocabulary, or a head of two classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from scoring.family import NO_SETTINGS, served_head, served_tokens
from scoring.layout import single_token
from traces import PrmError


class TwoTokens:
    """P(correct) as the softmax of two tokens' logits."""

    takes_documents = False
    settings: Mapping[str, Any] = NO_SETTINGS

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, verdicts: Sequence[int]
    ) -> None:
        """Take a causal language model and the ids of the tokens for correct and incorrect."""
        self.tokenizer = tokenizer
        self.backbone: PreTrainedModel = cast(PreTrainedModel, model.base_model)
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._rows = head.weight[list(verdicts)].detach().float()
        right, wrong = verdicts
        self.served = served_tokens(right, wrong)

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return P(correct) of the two tokens, read at each position."""
        return torch.softmax(hidden.float() @ self._rows.T, dim=-1)[:, 0]


class TwoClasses:
    """P(correct) from a head with logits for incorrect and correct."""

    takes_documents = False
    settings: Mapping[str, Any] = NO_SETTINGS
    served = served_head(2)

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel, head: nn.Module
    ) -> None:
        """Take a model that gives hidden states, and its head in float32."""
        self.tokenizer, self.backbone, self._head = tokenizer, backbone, head

    def probabilities(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return the probability of the class "correct", read at each position."""
        logits: Tensor = self._head(hidden.float())
        return torch.softmax(logits, dim=-1)[:, 1]


def require_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, family: str
) -> list[int]:
    """Return the ids of texts that must be single tokens.

    Raises:
        PrmError: one of them is not.
    """
    found = [single_token(tokenizer, text) for text in texts]
    for text, number in zip(texts, found, strict=True):
        if number is None:
            raise missing_token(f'"{text}"', family)
    return [number for number in found if number is not None]


def missing_token(what: str, family: str) -> PrmError:
    """Return the error for a checkpoint without a token that a family needs."""
    return PrmError(
        f"The checkpoint has no single token for {what}, which the family {family} reads.",
        remedy="name the right family with --family",
    )
