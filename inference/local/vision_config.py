"""Whether a checkpoint takes images, told by its small files alone: no library that is slow to load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files of image processors, one of which an image-text checkpoint has."""


def folder_takes_images(folder: Path) -> bool:
    """Whether the checkpoint in this folder is an image-text model with its image processor.

    A model's configuration then holds that of its vision tower. One without a processor, such as a
    text model trained from an image-text one, can only be driven as a text model.
    """
    has_tower = isinstance(settings(folder / CONFIG).get("vision_config"), dict)
    return has_tower and any((folder / name).is_file() for name in PROCESSORS)


def takes_images(name: str) -> bool | None:
    """Whether a checkpoint takes images: a folder, or an id of the hub or of its offline cache.

    Of the hub only the small files are fetched. None if there is neither.
    """
    if Path(name).is_dir():
        return folder_takes_images(Path(name))
    config = _of_the_hub(name, CONFIG)
    if config is None:
        return None
    for file in PROCESSORS:
        _of_the_hub(name, file)  # laid beside it, where the model has one
    return folder_takes_images(config.parent)


def settings(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file or it holds something else."""
    if not file.is_file():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return {}  # loading the checkpoint names the damaged file
    return read if isinstance(read, dict) else {}


def _of_the_hub(name: str, file: str) -> Path | None:
    """A small file of a hub snapshot; None if there is none, or the hub does not answer."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return Path(hf_hub_download(name, file))
    except (EntryNotFoundError, HFValidationError, OSError, ValueError):
        return None
