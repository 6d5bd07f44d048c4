"""Language models on this machine with their tokenizers, ready for the shared-prefix engine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.checkpoints import (
    best_device,
    checkpoint_folder,
    end_ids,
    load_pretrained,
    model_window,
    weights_fingerprint,
)
from inference.prefix_sharing import ATTENTION


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A causal language model with its tokenizer, ready on a device."""

    model: PreTrainedModel
    """In evaluation mode, with the shared-prefix attention."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    window: int
    """Most tokens it can look at, prompt and continuation together."""
    end_ids: frozenset[int]
    """Token ids that end a turn."""
    fingerprint: str | None
    """Which weights these are; None if that cannot be told cheaply."""


def load_local_model(
    name: str, *, device: str | None = None, dtype: torch.dtype = torch.float32
) -> LocalModel:
    """Load a causal language model from a folder or from the hub.

    Args:
        name: folder or hub id.
        device: a torch device; None takes CUDA where there is one, else the processor.
        dtype: of weights and caches; choices are always made in float32.

    Raises:
        ModelRefused: it cannot be loaded.
    """
    folder = checkpoint_folder(name)
    tokenizer = load_pretrained(AutoTokenizer, folder)
    model = load_pretrained(
        AutoModelForCausalLM, folder, dtype=dtype, attn_implementation=ATTENTION
    )
    model = model.to(best_device(device)).eval()
    return LocalModel(
        model=model,
        tokenizer=tokenizer,
        window=model_window(model.config, tokenizer),
        end_ids=end_ids(model, tokenizer),
        fingerprint=weights_fingerprint(folder),
    )
