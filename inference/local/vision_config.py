"""Whether a checkpoint takes images, from its small files, without loading a heavy library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKPOINT_CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files of image processors, one of which an image-text checkpoint has."""


def folder_takes_images(folder: Path) -> bool:
    """Whether the checkpoint in this folder is an image-text model with its image processor.

    Its configuration then contains that of a vision tower. A model without a processor, such as a
    text model trained from an image-text one, can only be used as a text model.
    """
    has_tower = isinstance(
        checkpoint_settings(folder / CHECKPOINT_CONFIG).get("vision_config"), dict
    )
    return has_tower and any((folder / name).is_file() for name in PROCESSORS)


def takes_images(name: str) -> bool | None:
    """Whether a checkpoint takes images: a folder, or an id of the hub or of its offline cache.

    Only small files are downloaded. None if there is no such checkpoint.
    """
    if Path(name).is_dir():
        return folder_takes_images(Path(name))
    config = _of_the_hub(name, CHECKPOINT_CONFIG)
    if config is None:
        return None
    for file in PROCESSORS:
        _of_the_hub(name, file)  # download it, if the model has one
    return folder_takes_images(config.parent)


def checkpoint_settings(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file or no object in it."""
    if not file.is_file():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}  # loading the checkpoint reports the damaged file
    return read if isinstance(read, dict) else {}


def _of_the_hub(name: str, file: str) -> Path | None:
    """A small file of a hub snapshot; None if there is none, or the hub does not answer."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return Path(hf_hub_download(name, file))
    except (EntryNotFoundError, HFValidationError, OSError, ValueError):
        return None
