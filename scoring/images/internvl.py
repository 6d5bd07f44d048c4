"""InternVL checkpoints in their original format, put together with transformers' own classes.

Such a checkpoint (model type `internvl_chat`; VisualPRM-8B is one) brings its code along, which is never
run here. Its weights are those of transformers' InternVL under other names; queries, keys and values lie
in one matrix. Names and order: transformers, src/transformers/models/internvl/
convert_internvl_weights_to_hf.py (015d3b27), and for InternLM2's matrix its forward pass in InternVL
2410d1d, internvl_chat/internvl/model/internlm2/modeling_internlm2.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from inference import (
    CHECKPOINT_CONFIG,
    checkpoint_settings,
    inner_text_model,
    load_pretrained,
    load_processor,
)
from scoring.families.visualprm import SYSTEM, SYSTEM_OF_TEMPLATE, VisualPrm
from scoring.family import Checkpoint
from scoring.images.tokens import (
    GrownEmbedding,
    ImageTokens,
    ModelEye,
    PictureReader,
    ProcessorReader,
    TileReader,
)
from scoring.layout import single_token
from scoring.quiet import quiet
from traces import ModelRefused, PrmError

MODEL_TYPE: Final = "internvl_chat"
"""What such a checkpoint's config.json says."""
_TEXT: Final[Mapping[str, type[PreTrainedConfig]]] = {
    "InternLM2ForCausalLM": LlamaConfig,
    "LlamaForCausalLM": LlamaConfig,
    "Qwen2ForCausalLM": Qwen2Config,
}
"""The language models inside, and what they are to transformers."""
_NAMES: Final = (
    (r"^vision_model\.embeddings\.class_embedding$", r"model.vision_tower.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", r"model.vision_tower.embeddings.position_embeddings"),
    (r"^vision_model\.embeddings\.patch_embedding\.", r"model.vision_tower.embeddings.patch_embeddings.projection."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"model.vision_tower.encoder.layer.\1."),
    (r"(vision_tower.*)\.attn\.proj\.", r"\1.attention.projection_layer."),
    (r"(vision_tower.*)\.attn\.", r"\1.attention."),
    (r"(vision_tower.*)\.norm1\.", r"\1.layernorm_before."),
    (r"(vision_tower.*)\.norm2\.", r"\1.layernorm_after."),
    (r"(vision_tower.*)\.ls([12])$", r"\1.lambda_\2"),
    (r"^mlp1\.0\.", r"model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", r"model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", r"model.multi_modal_projector.linear_2."),
    (r"^language_model\.(?:lm_head|output)\.", r"lm_head."),
    (r"^language_model\.model\.", r"model.language_model."),
    (r"(language_model)\.tok_embeddings\.", r"\1.embed_tokens."),
    (r"(language_model.*)\.attention\.wqkv\.", r"\1.self_attn.qkv."),
    (r"(language_model.*)\.attention\.wo\.", r"\1.self_attn.o_proj."),
    (r"(language_model.*)\.feed_forward\.w1\.", r"\1.mlp.gate_proj."),
    (r"(language_model.*)\.feed_forward\.w2\.", r"\1.mlp.down_proj."),
    (r"(language_model.*)\.feed_forward\.w3\.", r"\1.mlp.up_proj."),
    (r"(language_model.*)\.attention_norm\.", r"\1.input_layernorm."),
    (r"(language_model.*)\.ffn_norm\.", r"\1.post_attention_layernorm."),
)  # fmt: skip
"""Each name goes through all of these, in this order."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of any checkpoint; says what to do where an original one needs code of its own.

    Raises:
        ModelRefused: it cannot be loaded.
        PrmError: only the checkpoint's own code could load it.
    """
    try:
        with quiet():  # transformers warns of kinds of models that it does not know
            return cast(PreTrainedTokenizerBase, load_pretrained(AutoTokenizer, folder))
    except ModelRefused as refusal:
        if checkpoint_settings(folder / CHECKPOINT_CONFIG).get("model_type") != MODEL_TYPE:
            raise
        raise PrmError(
            "The checkpoint's tokenizer can only be loaded by code of its own, which is never run.",
            where=str(folder),
            remedy="put the tokenizer files of the converted model that it was trained from beside it, such"
            " as OpenGVLab/InternVL2_5-8B-MPO-hf: tokenizer.json and tokenizer_config.json",
        ) from refusal


def converted_config(said: Mapping[str, Any], *, placeholder: int) -> InternVLConfig:
    """The configuration as transformers has it.

    Args:
        said: the checkpoint's config.json.
        placeholder: the id of `<IMG_CONTEXT>`.

    Raises:
        KeyError: something is not said.
        PrmError: a part of it is of a kind that transformers does not have.
    """
    text, vision = dict(said["llm_config"]), dict(said["vision_config"])
    kind = (text.get("architectures") or ["unknown"])[0]
    if kind not in _TEXT or said.get("ps_version", "v1") != "v2":
        raise PrmError(
            f'InternVL over "{kind}" with pixel shuffle {said.get("ps_version", "v1")} is not known here.',
            remedy="take InternVL 2.5 or 3 (over InternLM2, Llama or Qwen2)",
        )
    side = tile_side(said)
    patches = (side // vision["patch_size"]) ** 2
    ratio = said["downsample_ratio"]
    known = _known(_TEXT[kind], text)
    known |= {"attention_bias": text["bias"]} if "bias" in text else {}
    return InternVLConfig(
        text_config=_TEXT[kind](**known),
        vision_config=InternVLVisionConfig(
            **_known(InternVLVisionConfig, vision) | {"image_size": side},
            attention_bias=vision.get("qkv_bias", False),
            use_qk_norm=vision.get("qk_normalization", False),
        ),
        image_token_id=placeholder,
        image_seq_length=int(patches * ratio**2),
        downsample_ratio=ratio,
        vision_feature_layer=said.get("select_layer", -1),
        tie_word_embeddings=bool(text.get("tie_word_embeddings", False)),
    )


def tile_side(said: Mapping[str, Any]) -> int:
    """Pixels of a tile's side, as config.json says."""
    return int(said.get("force_image_size") or said["vision_config"]["image_size"])


def load_original(folder: Path, config: InternVLConfig, dtype: torch.dtype) -> Any:
    """The model with the weights of an original checkpoint, in evaluation mode on the processor.

    Raises:
        PrmError: weights cannot be read, are missing, or have no place.
    """
    try:
        weights = {
            name: value.to(dtype)
            for file in sorted(folder.glob("*.safetensors"))
            for name, value in _converted(file, config)
        }
    except (OSError, SafetensorError) as fault:
        raise PrmError(f"The weights cannot be read: {fault}", where=str(folder)) from fault
    kind: Any = InternVLForConditionalGeneration
    with quiet():
        model, report = kind.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
        )
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    wrong += [str(key) for key, *_ in report["mismatched_keys"]]
    if wrong:
        raise PrmError(
            f'{len(wrong)} weights of the checkpoint do not fit an InternVL, "{wrong[0]}" among them.',
            where=str(folder),
            remedy="check that the checkpoint is complete",
        )
    return model.eval()


def _known(kind: type[PreTrainedConfig], said: Mapping[str, Any]) -> dict[str, Any]:
    """What of a part's configuration the class knows, old spellings of rotary settings included."""
    names = {*kind().to_dict(), "rope_theta", "rope_scaling"} - {"architectures", "model_type"}
    return {name: value for name, value in said.items() if name in names}


def _converted(file: Path, config: InternVLConfig) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one file under transformers' names, joint matrices in their parts."""
    with safe_open(file, framework="pt") as tensors:
        for original in tensors.keys():  # noqa: SIM118
            name, value = original, tensors.get_tensor(original)
            for pattern, replacement in _NAMES:
                name = re.sub(pattern, replacement, name)
            if ".attention.qkv." in name:
                yield from _parts(name, "attention.qkv", value.chunk(3))
            elif ".self_attn.qkv." in name:
                yield from _parts(name, "self_attn.qkv", _of_groups(value, config.text_config))
            else:
                yield name, value


def _parts(name: str, joint: str, parts: tuple[Tensor, ...]) -> Iterator[tuple[str, Tensor]]:
    owner = joint.split(".")[0]
    for letter, part in zip("qkv", parts, strict=True):
        yield name.replace(joint, f"{owner}.{letter}_proj"), part.clone()


def _of_groups(joint: Tensor, text: Any) -> tuple[Tensor, ...]:
    """InternLM2's joint matrix: for each key-value head its queries' rows, its keys', its values'."""
    groups = text.num_attention_heads // text.num_key_value_heads
    heads = text.num_key_value_heads
    rows = joint.view(heads, groups + 2, -1, *joint.shape[1:])
    return rows[:, :groups].flatten(0, 2), rows[:, -2].flatten(0, 1), rows[:, -1].flatten(0, 1)


# --- VisualPRM checkpoints: an InternVL, whose language model is given the ids of images


KIND = "internvl"
"""What transformers calls the architecture."""
_FRAME = ("<img>", "<IMG_CONTEXT>", "</img>")
"""What stands for an image: the middle one as often as it has places."""


def bind_visualprm(it: Checkpoint) -> VisualPrm:
    """Load an InternVL and bind the family to the language model inside.

    Raises:
        ModelRefused: the weights cannot be loaded.
        PrmError: no InternVL, or parts of one are missing or not known.
    """
    said = checkpoint_settings(it.folder / CHECKPOINT_CONFIG)
    if said.get("model_type") == MODEL_TYPE:
        return _original(it, said)
    if said.get("model_type") != KIND:
        raise PrmError(
            f'The family visualprm reads InternVL models; this is a "{said.get("model_type")}".',
            where=str(it.folder),
            remedy="name the right family with --family",
        )
    model = it.model(AutoModelForImageTextToText)
    reader = ProcessorReader(_processor(it.folder))
    return _bound(it, model, reader, said.get("system_message") or SYSTEM)


def _original(it: Checkpoint, said: Mapping[str, Any]) -> VisualPrm:
    """From the format that brings its own code, which is not run."""
    begin, placeholder, end = (_token(it, token) for token in _FRAME)
    system = said.get("system_message") or SYSTEM_OF_TEMPLATE.get(str(said.get("template")))
    if system is None:
        raise PrmError(
            f'The system turn of the template "{said.get("template")}" is not known here.',
            where=str(it.folder / CHECKPOINT_CONFIG),
            remedy='state it there as "system_message"',
        )
    try:
        config = converted_config(said, placeholder=placeholder)
    except KeyError as fault:
        raise PrmError(
            f"The checkpoint's configuration does not say {fault}.",
            where=str(it.folder / CHECKPOINT_CONFIG),
        ) from fault
    side = tile_side(said)
    tiles: Any = GotOcr2ImageProcessorPil
    cut = tiles(
        size={"height": side, "width": side},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    reader = TileReader(cut, begin, placeholder, end, config.image_seq_length)
    model = load_original(it.folder, config, it.dtype).to(it.device)
    return _bound(it, model, reader, system)


def _token(it: Checkpoint, text: str) -> int:
    found = single_token(it.tokenizer, text)
    if found is None:
        raise PrmError(f'The checkpoint has no token "{text}".', where=str(it.folder))
    return found


def _bound(it: Checkpoint, model: PreTrainedModel, reader: PictureReader, system: str) -> VisualPrm:
    """The family over a model whose vocabulary is grown by what images look like."""
    backbone = inner_text_model(model)
    head = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    words = cast(nn.Embedding, backbone.get_input_embeddings())
    images = ImageTokens(ModelEye(model, reader), it.images, first=words.num_embeddings)
    # The one place where the model meets an id: below it nothing knows of images.
    backbone.set_input_embeddings(GrownEmbedding(words, images))
    return VisualPrm(it.tokenizer, backbone, head, images, system)


def _processor(folder: Path) -> Any:
    try:
        return load_processor(folder)
    except ModelRefused as refusal:
        raise PrmError(
            refusal.what,
            where=str(folder),
            remedy="take the processor and tokenizer files of a converted InternVL",
        ) from refusal
