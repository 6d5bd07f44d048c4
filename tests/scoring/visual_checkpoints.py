"""VisualPRM checkpoints small and random: an InternVL with Qwen 2.5's tokenizer rules and the images' tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.scoring.golden_tokenizers import qwen25
from tests.tiny_models import evaluating, save

WORDS = (
    "You are an advanced AI assistant, designed to serve as a process supervision model. Question: "
    "Solution Process: Which dose? So it is 180 mg. The drawing shows fatal"
)
TILE, PLACES = 28, 4
"""Side of a tile in pixels, and the tokens it takes: (28 / 7)^2 patches, four of them a token."""
IMAGE_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def internvl_tokenizer(words: str = WORDS) -> Any:
    """Qwen 2.5's rules with InternVL's tokens at their published ids."""
    tokenizer = qwen25(words, control=INTERNVL3_CONTROL)
    tokenizer.model_specific_special_tokens = dict(IMAGE_TOKENS)
    tokenizer.SPECIAL_TOKENS_ATTRIBUTES = [*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, *IMAGE_TOKENS]
    for name, token in IMAGE_TOKENS.items():
        setattr(tokenizer, name, token)
    return tokenizer


INTERNVL3_CONTROL = {"<img>": 151665, "</img>": 151666, "<IMG_CONTEXT>": 151667, "<video>": 151674}
"""Ids of InternVL 3's tokenizer."""


def internvl(tokenizer: Any, *, kind: str = "qwen2", **changes: Any) -> Any:
    """A random InternVL with clear preferences, over a Qwen 2 or a Llama."""
    text: Any = {"qwen2": hf.Qwen2Config, "llama": hf.LlamaConfig}[kind]
    size = max(max(tokenizer.get_vocab().values()) + 1, len(tokenizer))
    torch.manual_seed(3)
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(
            image_size=[TILE, TILE], patch_size=[7, 7], hidden_size=16, intermediate_size=32,
            num_hidden_layers=2, num_attention_heads=2, initializer_range=0.35,
        ),
        text_config=text(
            **{
                "vocab_size": size, "hidden_size": 8, "intermediate_size": 16,
                "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
                "max_position_embeddings": 8192, "initializer_range": 0.4,
                "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
            }
            | changes
        ),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=PLACES,
        tie_word_embeddings=False,
    )  # fmt: skip
    return evaluating(hf.InternVLForConditionalGeneration(config))


def save_visualprm(
    folder: Path, *, system: str | None = None, model: Any = None, **changes: Any
) -> Path:
    """Write a checkpoint as transformers converts it.

    Args:
        folder: where to.
        system: the system turn that its configuration states; None states none.
        model: another than a random one.
        changes: of the language model inside.
    """
    tokenizer = internvl_tokenizer()
    save(folder, tokenizer, model or internvl(tokenizer, **changes))
    processor: Any = hf.GotOcr2ImageProcessorPil(
        size={"height": TILE, "width": TILE},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    processor.save_pretrained(folder)
    said = {"processor_class": "InternVLProcessor", "image_seq_length": PLACES}
    (folder / "processor_config.json").write_text(json.dumps(said))
    if system is not None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"system_message": system}))
    return folder
