"""Language models on this machine with their tokenizers, ready for the shared-prefix engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference.local.checkpoints import (
    best_device,
    checkpoint_folder,
    end_ids,
    load_pretrained,
    model_window,
    weights_fingerprint,
)
from inference.local.shared_attention import ATTENTION
from inference.local.vision import ImageHead, VisionReader
from inference.local.vision_config import folder_takes_images
from inference.local.vision_loading import load_vision_model
from inference.prompting import conversation_ids, conversation_text
from inference.protocol import Message
from traces import ModelRefused, whole_or_nothing


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A causal language model with its tokenizer, ready on a device."""

    model: PreTrainedModel
    """In evaluation mode; a text model has the shared-prefix attention already."""
    tokenizer: PreTrainedTokenizerBase
    window: int
    """Maximum number of tokens, prompt and continuation together."""
    end_ids: frozenset[int]
    """Token ids that end a turn."""
    fingerprint: str | None
    """Identifies the weights; None if that is not possible."""
    vision: VisionReader | None = None
    """Reads conversations with images; None for a text model."""

    def read(
        self, conversations: Sequence[Sequence[Message]]
    ) -> tuple[list[tuple[int, ...]], ImageHead | None]:
        """Token ids of conversations, ready for the assistant's next token.

        With images, all conversations must start with the same turns, and with the head returned.

        Raises:
            ModelRefused: images for a text model, or a template that does not show them.
        """
        if self.vision is not None:
            head = self.vision.head(conversations[0])
            return self.vision.ids(conversations, head), head
        if any(turn.images for conversation in conversations for turn in conversation):
            raise ModelRefused(
                "A text model cannot see the images of a problem.",
                remedy="use gemini:MODEL, openai:MODEL, an image-text model, or --ignore-images",
            )
        return conversation_ids(self.tokenizer, conversations), None

    def require_continuing(self) -> None:
        """Refuse a chat template that cannot continue an assistant turn.

        Raises:
            InputError: the template leaves the turn out, or opens something that it never closes.
        """
        turns = (Message("user", "What is 2+3?"), Message("assistant", "5"))
        if self.vision is None:
            conversation_text(self.tokenizer, turns)
        else:
            self.vision.text(turns)


def load_local_model(
    name: str, *, device: str | None = None, dtype: torch.dtype = torch.float32
) -> LocalModel:
    """Load a causal language model, or an image-text model, from a folder or from the hub.

    Args:
        name: folder or hub id.
        device: a torch device; None uses CUDA if available, else the CPU.
        dtype: of weights and caches; choices are always made in float32.

    Raises:
        ModelRefused: it cannot be loaded.
    """
    remedy = "check that the folder holds a complete transformers checkpoint"
    with whole_or_nothing(name, error=ModelRefused, remedy=remedy):
        return _loaded(checkpoint_folder(name), device, dtype)


def _loaded(folder: Path, device: str | None, dtype: torch.dtype) -> LocalModel:
    vision: VisionReader | None = None
    if folder_takes_images(folder):
        model, vision = load_vision_model(folder, device=device, dtype=dtype)
        tokenizer = vision.tokenizer
    else:
        tokenizer = load_pretrained(AutoTokenizer, folder)
        model = load_pretrained(
            AutoModelForCausalLM, folder, dtype=dtype, attn_implementation=ATTENTION
        )
        model = model.to(best_device(device)).eval()
    return LocalModel(
        model=model,
        tokenizer=tokenizer,
        window=model_window(model.config.get_text_config(), tokenizer),
        end_ids=end_ids(model, tokenizer),
        fingerprint=weights_fingerprint(folder),
        vision=vision,
    )


def token_counter(name: str) -> Callable[[str], int]:
    """Counts the tokens of a text as a model's own tokenizer does, without special tokens.

    Args:
        name: folder or hub id of the model, of which only the tokenizer is loaded.
    """
    return counts_by(load_pretrained(AutoTokenizer, checkpoint_folder(name)))


def counts_by(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], int]:
    """Counts the tokens of a text, without special tokens."""

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    return count
