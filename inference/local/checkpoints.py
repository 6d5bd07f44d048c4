"""Checkpoints of transformers: where they lie, loading nothing made up, what they are and can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from traces import ModelRefused

_FINGERPRINT_LIMIT = 1 << 30
"""Weights up to this many bytes are hashed whole to say which model answered."""
_STRIDE, _PIECE = 1 << 24, 1 << 16
"""Of larger ones a piece of each stride is, in bytes: the matrices of 7B models are 30 MB and more."""
_UNBOUNDED = 1 << 30
"""A tokenizer without a length limit states an absurd one; from here on it counts as none."""


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint: the path itself, or where the hub's snapshot lies.

    Raises:
        ModelRefused: neither a folder nor a model that the hub (or its offline cache) gives.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError, HFValidationError) as fault:
        raise ModelRefused(
            f'There is no model "{name}": it is no folder, and the hub does not give it.',
            remedy="give a folder with config.json and *.safetensors, or a model id of the hub",
        ) from fault


def load_pretrained(auto_class: Any, folder: Path, **options: Any) -> Any:
    """Load with a transformers auto class; nothing may be missing from the checkpoint.

    Raises:
        ModelRefused: unreadable, of an unknown kind, or some weights would be made up.
    """
    try:
        if auto_class is AutoTokenizer:
            return auto_class.from_pretrained(folder, trust_remote_code=False)
        # The weights' own progress bar would break into the command's.
        disable_progress_bar()  # type: ignore[no-untyped-call]
        model, report = auto_class.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as fault:
        reason = str(fault).strip().splitlines() or [type(fault).__name__]
        raise ModelRefused(
            f'The model in "{folder}" cannot be loaded: {reason[0][:200]}',
            remedy="check that the folder holds a complete transformers checkpoint",
        ) from fault
    missing = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if missing:
        raise ModelRefused(
            f'The model in "{folder}" lacks {len(missing)} weights, "{missing[0]}" among them.',
            remedy="check that the checkpoint is complete and of this kind",
        )
    return model


def best_device(device: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one, else the processor."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def model_window(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The least of position limit, sliding window and tokenizer limit, in tokens."""
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    if getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None))
    return min((limit for limit in limits if limit and limit < _UNBOUNDED), default=_UNBOUNDED)


def weights_fingerprint(folder: Path) -> str | None:
    """Which weights these are: `sha256:...` over the safetensors files; None if there are none.

    Of more than a gigabyte the hub's snapshot name says it, or else `sampled-sha256:...` over the
    files' sizes and a piece of every 16 MiB: another training changes all large tensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    digest, prefix = sha256(), "sha256"
    if sum(file.stat().st_size for file in files) <= _FINGERPRINT_LIMIT:
        for file in files:
            digest.update(file.read_bytes())
    elif folder.parent.name == "snapshots":
        return folder.name
    else:
        prefix = "sampled-sha256"
        for file in files:
            for piece in _pieces(file):
                digest.update(piece)
    return f"{prefix}:{digest.hexdigest()[:16]}"


def _pieces(file: Path) -> Iterator[bytes]:
    """A file's name and size, and a piece of each stride; the first one names the tensors."""
    size = file.stat().st_size
    yield f"{file.name} {size}\n".encode()
    with file.open("rb") as content:
        for start in range(0, size, _STRIDE):
            content.seek(start)
            yield content.read(_PIECE)


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends a turn, as model, generation defaults and tokenizer say."""
    configs = (model.config, model.config.get_text_config())
    stated = [tokenizer.eos_token_id, *(getattr(one, "eos_token_id", None) for one in configs)]
    if model.generation_config is not None:
        stated.append(model.generation_config.eos_token_id)
    ids = {i for item in stated for i in (item if isinstance(item, Sequence) else [item])}
    return frozenset(i for i in ids if isinstance(i, int))


# --- How running out of a device's memory is told, and what is given back then


_FULL = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Invalid buffer size",
)
"""How torch's allocators without an exception of their own say that memory ran out."""


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether this is an allocation that failed, on any device."""
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError) and any(words in str(fault) for words in _FULL)


def let_go(device: torch.device) -> None:
    """Give cached memory back after an allocation that failed."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
