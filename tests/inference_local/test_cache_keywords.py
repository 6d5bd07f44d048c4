"""The keyword of the cache is the one that the model at hand takes."""

from __future__ import annotations

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedTokenizerFast

from inference.local.checkpoints import cache_keywords
from tests.tiny_models import evaluating, tiny_llama, tiny_tokenizer


class OfItsWeights(nn.Module):
    """A model whose code came with its weights and still has the old name."""

    def forward(self, input_ids: torch.Tensor, past_key_values: object = None) -> None:
        """Compute nothing."""


class Renamed(nn.Module):
    """A model that has the new name."""

    def forward(self, input_ids: torch.Tensor, cache: object = None) -> None:
        """Compute nothing."""


def test_the_signature_says_the_keyword() -> None:
    past = DynamicCache()
    assert cache_keywords(OfItsWeights(), past) == {"past_key_values": past, "use_cache": True}
    assert cache_keywords(Renamed(), past) == {"cache": past, "use_cache": True}


def test_a_model_of_the_installed_transformers_fills_the_cache_without_a_warning() -> None:
    tokenizer: PreTrainedTokenizerFast = tiny_tokenizer()
    model, past = evaluating(tiny_llama(tokenizer)), DynamicCache()
    for length in (3, 1):
        model(input_ids=torch.ones((1, length), dtype=torch.int64), **cache_keywords(model, past))
    assert past.get_seq_length() == 4
