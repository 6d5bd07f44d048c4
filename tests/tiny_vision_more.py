"""Further image-text architectures, small and random: windows and deep features, tiles, cross-attention."""

from __future__ import annotations

from typing import Any

import transformers

from tests.tiny_vision import QWEN, TOWER, Kind, images_only, qwen_processor

hf: Any = transformers  # its own annotations are patchy

_MARK = "<|vision_start|><|image_pad|><|vision_end|>"
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_TILES = [[28, 28], [28, 56], [56, 28]]
_IDEFICS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_tag": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
    **{f"part_{row}{column}": f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)},
}  # fmt: skip


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    return {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in QWEN.items()}


def _qwen_tower(**changes: Any) -> dict[str, Any]:
    return {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4,
            "intermediate_size": 64, "patch_size": 14, "initializer_range": 0.35} | changes  # fmt: skip


def _qwen2_5(tokenizer: Any, text: dict[str, Any]) -> Any:
    config = hf.Qwen2_5_VLConfig(
        vision_config=_qwen_tower(fullatt_block_indexes=[1], window_size=56),
        text_config={**text, "rope_parameters": _ROPE},
        **_qwen_ids(tokenizer),
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_processor(tokenizer: Any) -> Any:
    images = hf.Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 6)
    return images_only(hf.Qwen3VLProcessor)(images, tokenizer, None)


def _qwen3(tokenizer: Any, text: dict[str, Any]) -> Any:
    config = hf.Qwen3VLConfig(
        vision_config=_qwen_tower(num_position_embeddings=16, deepstack_visual_indexes=[0, 1]),
        text_config={
            **text,
            "head_dim": 8,
            "rope_parameters": {**_ROPE, "mrope_interleaved": True},
        },
        **_qwen_ids(tokenizer),
    )
    return hf.Qwen3VLForConditionalGeneration(config)


def _qwen3_5(tokenizer: Any, text: dict[str, Any]) -> Any:
    linear = {f"linear_{name}": value for name, value in {
        "num_key_heads": 2, "num_value_heads": 4, "key_head_dim": 8, "value_head_dim": 8,
    }.items()}  # fmt: skip
    layers = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 16}
    config = hf.Qwen3_5Config(
        vision_config=_qwen_tower(num_position_embeddings=16),
        text_config={**text, **linear, **layers},
        **_qwen_ids(tokenizer),
    )
    return hf.Qwen3_5ForConditionalGeneration(config)


def _idefics_processor(tokenizer: Any) -> Any:
    images = hf.Idefics3ImageProcessorPil(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
    )
    return hf.Idefics3Processor(images, tokenizer, image_seq_len=1)


def _idefics(tokenizer: Any, text: dict[str, Any]) -> Any:
    config = hf.Idefics3Config(
        text_config=hf.LlamaConfig(**text),
        vision_config={**TOWER, "image_size": 28, "patch_size": 14},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return hf.Idefics3ForConditionalGeneration(config)


def _onevision_processor(tokenizer: Any) -> Any:
    images = hf.LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid_pinpoints=_TILES
    )
    return images_only(hf.LlavaOnevisionProcessor)(
        images, tokenizer, None, num_image_tokens=4, vision_feature_select_strategy="full"
    )


def _onevision(tokenizer: Any, text: dict[str, Any]) -> Any:
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(image_size=28, patch_size=14, **TOWER),
        text_config=hf.Qwen2Config(**text),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=_TILES,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config)


def _mllama_processor(tokenizer: Any) -> Any:
    images = hf.MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=2)
    return hf.MllamaProcessor(images, tokenizer)


def _mllama(tokenizer: Any, text: dict[str, Any]) -> Any:
    config = hf.MllamaConfig(
        text_config=hf.MllamaTextConfig(**{**text, "cross_attention_layers": [1], "num_hidden_layers": 3}),
        vision_config=hf.MllamaVisionConfig(
            hidden_size=32, intermediate_size=64, attention_heads=4, num_hidden_layers=2,
            num_global_layers=1, image_size=28, patch_size=14, max_num_tiles=2, vision_output_dim=96,
            intermediate_layers_indices=[0, 1], supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )  # fmt: skip
    return hf.MllamaForConditionalGeneration(config)


SHARING = {
    "qwen2_5_vl": Kind(_MARK, QWEN, qwen_processor, _qwen2_5),
    "qwen3_vl": Kind(_MARK, QWEN, _qwen3_processor, _qwen3),
    "idefics3": Kind("<image>", _IDEFICS, _idefics_processor, _idefics),
    "llava_onevision": Kind(
        "<image>\n",
        {"image_token": "<image>", "video_token": "<video>"},
        _onevision_processor,
        _onevision,
    ),
}
"""Architectures that the shared-prefix engine is proven right for."""
ALONE = {
    "qwen3_5": Kind(_MARK, QWEN, _qwen3_processor, _qwen3_5),
    "mllama": Kind("<|image|>", {"image_token": "<|image|>"}, _mllama_processor, _mllama),
}
"""Those with linear attention, or attention across to the image: one continuation at a time."""
