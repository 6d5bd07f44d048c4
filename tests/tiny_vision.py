"""Real image-text models with their processors, small and random, made in a second."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from formats.files.images import EncodedImage
from tests.tiny_models import evaluating, save, tiny_tokenizer

hf: Any = transformers  # its own annotations are patchy

TEMPLATE = (
    "<|begin|>{{% for message in messages %}}<|start|>{{{{ message['role'] }}}}<|close|>\n\n"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{mark}"
    "{{% else %}}{{{{ part['text'] | trim }}}}{{% endif %}}{{% endfor %}}<|end|>{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|start|>assistant<|close|>\n\n{{% endif %}}"
)
"""As those of real image-text models: images stand where the content lists them."""
_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.35,
}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.35,
}


@dataclass(frozen=True)
class Kind:
    """One architecture."""

    mark: str
    """What the template puts for an image."""
    tokens: dict[str, str]
    """Special tokens of images; named as attributes of the tokenizer."""
    processor: Callable[[Any], Any]
    """Makes the processor from its tokenizer."""
    model: Callable[[Any, dict[str, Any]], Any]
    """Makes the model from tokenizer and text settings."""
    spread: dict[str, Any] | None = None
    """What its processor's own file says; None where the processor can be saved as a whole."""


def llava_processor(tokenizer: Any, *, side: int = 28) -> Any:
    """Square images of so many pixels a side, in patches of 14."""
    images = hf.CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return hf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def llava(
    tokenizer: Any, text: dict[str, Any], *, side: int = 28, tower: dict[str, Any] | None = None
) -> Any:
    """A LLaVA for such images; `tower` sizes its vision model."""
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(image_size=side, patch_size=14, **(tower or TOWER)),
        text_config=hf.LlamaConfig(**text),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(side // 14) ** 2,
    )
    return hf.LlavaForConditionalGeneration(config)


def qwen_processor(tokenizer: Any) -> Any:
    """Images in patches, as many as fit the picture."""
    images = hf.Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 6)
    return images_only(hf.Qwen2VLProcessor)(images, tokenizer, None)


def _qwen(tokenizer: Any, text: dict[str, Any]) -> Any:
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in QWEN.items()}
    config = hf.Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "initializer_range": 0.35},
        text_config={**text, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_start_token"],
        vision_end_token_id=ids["vision_end_token"],
    )  # fmt: skip
    return hf.Qwen2VLForConditionalGeneration(config)


def _gemma_processor(tokenizer: Any) -> Any:
    images = hf.Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    return hf.Gemma3Processor(images, tokenizer, image_seq_length=4)


def _gemma(tokenizer: Any, text: dict[str, Any]) -> Any:
    config = hf.Gemma3Config(
        text_config=hf.Gemma3TextConfig(
            **text, head_dim=8, query_pre_attn_scalar=8, sliding_window=512
        ),
        vision_config=hf.SiglipVisionConfig(image_size=28, patch_size=7, **TOWER),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids(GEMMA["boi_token"]),
        eoi_token_index=tokenizer.convert_tokens_to_ids(GEMMA["eoi_token"]),
        image_token_index=tokenizer.convert_tokens_to_ids(GEMMA["image_token"]),
    )
    return hf.Gemma3ForConditionalGeneration(config)


def _internvl_processor(tokenizer: Any) -> Any:
    images = hf.GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    return images_only(hf.InternVLProcessor)(images, tokenizer, None, image_seq_length=1)


def _internvl(tokenizer: Any, text: dict[str, Any]) -> Any:
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(
            image_size=[28, 28], patch_size=[14, 14], **TOWER, use_qk_norm=False
        ),
        text_config=hf.Qwen2Config(**text),
        image_token_id=tokenizer.convert_tokens_to_ids(INTERNVL["context_image_token"]),
        image_seq_length=1,
        downsample_ratio=0.5,
    )
    return hf.InternVLForConditionalGeneration(config)


def images_only(kind: Any) -> Any:
    """A processor class that is content without one for videos, which needs torchvision."""

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})


QWEN = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
GEMMA = {"image_token": "<|soft|>", "boi_token": "<|boi|>", "eoi_token": "<|eoi|>"}
INTERNVL = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
KINDS = {
    "llava": Kind("<image>\n", {"image_token": "<image>"}, llava_processor, llava),
    "qwen2_vl": Kind(
        "<|vision_start|><|image_pad|><|vision_end|>", QWEN, qwen_processor, _qwen, {}
    ),
    "gemma3": Kind("<|boi|>", GEMMA, _gemma_processor, _gemma),
    "internvl": Kind("<IMG_CONTEXT>\n", INTERNVL, _internvl_processor, _internvl, {"image_seq_length": 1}),
}  # fmt: skip


def tiny_vision(kind: str | Kind, *, seed: int = 0, **changes: Any) -> tuple[Any, Any]:
    """A random image-text model and its processor."""
    made = KINDS[kind] if isinstance(kind, str) else kind
    tokenizer = tiny_tokenizer(extra=list(made.tokens.values()))
    tokenizer.model_specific_special_tokens = dict(made.tokens)
    tokenizer.extra_special_tokens = []
    tokenizer.SPECIAL_TOKENS_ATTRIBUTES = [*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, *made.tokens]
    for name, token in made.tokens.items():
        setattr(tokenizer, name, token)
    tokenizer.chat_template = TEMPLATE.format(mark=made.mark)
    processor = made.processor(tokenizer)
    processor.chat_template = tokenizer.chat_template
    special = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in ("bos_token", "eos_token", "pad_token")}  # fmt: skip
    torch.manual_seed(seed)
    text = {"vocab_size": len(tokenizer), **_TEXT, **special, **changes}
    return evaluating(made.model(tokenizer, text)), processor


def save_vision(folder: Path, kind: str | Kind, **changes: Any) -> Path:
    """Write a tiny image-text checkpoint, processor included."""
    model, processor = tiny_vision(kind, **changes)
    spread = (KINDS[kind] if isinstance(kind, str) else kind).spread
    if spread is None:
        processor.save_pretrained(folder)  # the newer layout: all in processor_config.json
        return save(folder, processor.tokenizer, model)
    # The older layout, and what can be written without torchvision where videos are known too.
    processor.image_processor.save_pretrained(folder)
    said = {"processor_class": type(processor).__name__, **spread}
    (folder / "processor_config.json").write_text(json.dumps(said))
    return save(folder, processor.tokenizer, model)


def drawing(number: int, size: tuple[int, int] = (84, 56)) -> bytes:
    """A PNG with a pattern of its own."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1] // 10, size[0] // 10, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def shown(number: int, size: tuple[int, int] = (84, 56)) -> EncodedImage:
    """That drawing, as problems' images are loaded."""
    data = drawing(number, size)
    return EncodedImage("image/png", sha256(data).hexdigest(), *size, f"{number}.png", data)
