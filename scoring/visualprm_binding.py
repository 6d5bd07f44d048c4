"""VisualPRM checkpoints: an InternVL of transformers, whose language model is given the ids of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedModel

from inference.vision_config import CONFIG, settings
from inference.vision_embedding import text_model
from inference.vision_loading import load_processor
from scoring.families.visualprm import SYSTEM, VisualPrm
from scoring.image_tokens import GrownEmbedding, ImageTokens
from scoring.model_eye import ModelEye
from traces.errors import ModelRefused, PrmError

if TYPE_CHECKING:
    from scoring.binding import Checkpoint

KIND = "internvl"
"""What transformers calls the architecture."""
ORIGINAL = "internvl_chat"
"""What the checkpoints call it that come with code of their own."""


def bind_visualprm(it: Checkpoint) -> VisualPrm:
    """Load an InternVL and bind the family to the language model inside.

    Raises:
        ModelRefused: the weights cannot be loaded.
        PrmError: no InternVL, one without its processor, or in the format that only its own code
            can load.
    """
    said = settings(it.folder / CONFIG)
    if said.get("model_type") == ORIGINAL:
        raise PrmError(
            "The checkpoint is in InternVL's original format, which only code of its own can load; that"
            " is never run.",
            where=str(it.folder),
            remedy="convert it with transformers' convert_internvl_weights_to_hf.py (in its repository"
            " under src/transformers/models/internvl)",
        )
    if said.get("model_type") != KIND:
        raise PrmError(
            f'The family visualprm reads InternVL models; this is a "{said.get("model_type")}".',
            where=str(it.folder),
            remedy="name the right family with --family",
        )
    model: PreTrainedModel = it.model(AutoModelForImageTextToText)
    backbone = text_model(model)
    head = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    words = cast(nn.Embedding, backbone.get_input_embeddings())
    eye = ModelEye(model, _processor(it.folder))
    images = ImageTokens(eye, it.images, first=words.num_embeddings)
    # The one place where the model meets an id: below it nothing knows of images.
    backbone.set_input_embeddings(GrownEmbedding(words, images))
    return VisualPrm(it.tokenizer, backbone, head, images, said.get("system_message") or SYSTEM)


def _processor(folder: Path) -> Any:
    try:
        return load_processor(folder)
    except ModelRefused as refusal:
        raise PrmError(
            refusal.what,
            where=str(folder),
            remedy="take the processor and tokenizer files of a converted InternVL",
        ) from refusal
