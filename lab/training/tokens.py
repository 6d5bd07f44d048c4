"""Texts to token ids and back, with nothing added and one type each way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text, nothing added."""
    return list(tokenizer.encode(text, add_special_tokens=False))


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of token ids."""
    text = tokenizer.decode(list(ids))
    return text if isinstance(text, str) else "".join(text)


def token_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return the id of a text that is one token; ValueError where it is several."""
    (single,) = encode(tokenizer, text)
    return single


def decoder_layers(model: PreTrainedModel) -> list[Any]:
    """Return the decoder layers of a Llama model."""
    decoder: Any = model.base_model
    return list(decoder.layers)


def token_table(model: PreTrainedModel) -> torch.Tensor:
    """Return the (tied) embedding table: [vocabulary, width]."""
    table: Any = model.get_input_embeddings()
    weight: torch.Tensor = table.weight
    return weight


def final_states(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the normed last hidden states of right-padded rows: [rows, tokens, width]."""
    decoder: Any = model.base_model
    hidden: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state
    return hidden
