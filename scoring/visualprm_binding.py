"""VisualPRM checkpoints: an InternVL, whose language model is given the ids of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import AutoModelForImageTextToText, GotOcr2ImageProcessorPil, PreTrainedModel

from inference.vision_config import CONFIG, settings
from inference.vision_embedding import text_model
from inference.vision_loading import load_processor
from scoring.checkpoint import Checkpoint
from scoring.families.visualprm import SYSTEM, SYSTEM_OF_TEMPLATE, VisualPrm
from scoring.image_tokens import GrownEmbedding, ImageTokens
from scoring.internvl_original import MODEL_TYPE, converted_config, load_original, tile_side
from scoring.model_eye import ModelEye, PictureReader, ProcessorReader, TileReader
from scoring.tokens import single_token
from traces.errors import ModelRefused, PrmError

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
    said = settings(it.folder / CONFIG)
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
            where=str(it.folder / CONFIG),
            remedy='state it there as "system_message"',
        )
    try:
        config = converted_config(said, placeholder=placeholder)
    except KeyError as fault:
        raise PrmError(
            f"The checkpoint's configuration does not say {fault}.", where=str(it.folder / CONFIG)
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
    backbone = text_model(model)
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
