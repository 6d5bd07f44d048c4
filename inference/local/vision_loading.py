"""Image-text checkpoints and their processors, loaded without running their code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.models.auto import processing_auto

from inference.local.checkpoints import best_device, load_pretrained
from inference.local.vision import VisionReader
from inference.local.vision_config import CHECKPOINT_CONFIG, PROCESSORS, checkpoint_settings
from traces import ModelRefused


def load_vision_model(
    folder: Path, *, device: str | None = None, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, VisionReader]:
    """Load an image-text model in evaluation mode, with a reader of conversations.

    Args:
        folder: a checkpoint for which `folder_takes_images` is true.
        device: a torch device; None uses CUDA if available, else the CPU.
        dtype: of the weights.

    Raises:
        ModelRefused: it cannot be loaded without running its code.
    """
    processor = load_processor(folder)
    model = load_pretrained(AutoModelForImageTextToText, folder, dtype=dtype)
    model = model.to(best_device(device)).eval()
    return model, VisionReader(processor, image_ids(model.config, processor), model.device)


def load_processor(folder: Path) -> Any:
    """The processor of a checkpoint for images and text.

    Images are always processed by Pillow, so that they do not depend on whether torchvision is
    installed. A processor of videos, which needs torchvision, is not loaded.

    Raises:
        ModelRefused: transformers has no such processor, or a package that it needs is missing.
    """
    try:
        kind = _processor_class(folder)
        given, _ = kind.get_processor_dict(folder)
        pictures: Any = AutoImageProcessor
        parts = {
            "image_processor": lambda: pictures.from_pretrained(
                folder, backend="pil", trust_remote_code=False
            ),
            "tokenizer": lambda: load_pretrained(AutoTokenizer, folder),
        }
        args = [parts.get(name, _nothing)() for name in kind.get_attributes()]
        return kind.from_args_and_dict(args, given)
    except Exception as fault:  # damaged settings raise anything
        reason = str(fault).strip().splitlines() or [type(fault).__name__]
        raise ModelRefused(
            f'The image processor in "{folder}" cannot be loaded: {reason[0][:200]}',
            remedy="install what it names, or serve the model and use openai:MODEL",
        ) from fault


def image_ids(config: Any, processor: Any) -> frozenset[int]:
    """The token ids that image features replace or that frame them, from model and processor."""
    said = [getattr(config, name, None) for name in ("image_token_id", "image_token_index")]
    said += [getattr(processor, "image_token_id", None), *processor.image_token_ids]
    return frozenset(i for i in said if isinstance(i, int))


def _processor_class(folder: Path) -> Any:
    """The class that the checkpoint's files name, or that belongs to its kind of model.

    Raises:
        ValueError: transformers has no such class.
    """
    files = [*PROCESSORS, "tokenizer_config.json"]
    classes = [checkpoint_settings(folder / file).get("processor_class") for file in files]
    named = [str(name) for name in classes if name]
    known: Any = processing_auto  # exported, but not by name
    model_type = checkpoint_settings(folder / CHECKPOINT_CONFIG).get("model_type", "")
    of_kind = known.PROCESSOR_MAPPING_NAMES.get(model_type)
    for name in (*named, of_kind):
        kind = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, ProcessorMixin):
            return _without_videos(kind)
    raise ValueError("transformers has no processor for it")


def _without_videos(kind: Any) -> Any:
    """The processor class, which then accepts None for a part that is not loaded."""

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is None else kind.check_argument_for_proper_class(self, name, part)

    members = {"check_argument_for_proper_class": check, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)


def _nothing() -> None:
    """A part that is not loaded."""
