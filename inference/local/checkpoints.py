"""Transformers checkpoints: finding and loading them completely, identifying them, their limits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from torch import nn
from transformers import AutoTokenizer, Cache, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from traces import ModelRefused

_FINGERPRINT_LIMIT = 1 << 30
"""Weights up to this many bytes are hashed completely."""
_STRIDE, _PIECE = 1 << 24, 1 << 16
"""Of larger ones, a piece of every stride is hashed; matrices of 7B models have 30 MB and more."""
_UNBOUNDED = 1 << 30
"""Tokenizers without a length limit report an absurd one; from here on it counts as none."""


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint: the path itself, or the hub's snapshot.

    Raises:
        ModelRefused: neither a folder nor a model of the hub (or its offline cache).
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError, HFValidationError) as fault:
        raise ModelRefused(
            f'Model "{name}" not found: no such folder, and not on the Hugging Face Hub.',
            remedy="give a folder with config.json and *.safetensors, or a model id of the hub",
        ) from fault


def load_pretrained(auto_class: Any, folder: Path, **options: Any) -> Any:
    """Load with a transformers auto class; no weights may be missing from the checkpoint.

    Raises:
        ModelRefused: unreadable, of an unknown kind, or with missing weights.
    """
    try:
        if auto_class is AutoTokenizer:
            return auto_class.from_pretrained(folder, trust_remote_code=False)
        # The progress bar of the weights would interfere with the command's.
        disable_progress_bar()  # type: ignore[no-untyped-call]
        model, report = auto_class.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, **options
        )
    except Exception as fault:  # a damaged checkpoint, such as a pickle, raises anything
        reason = str(fault).strip().splitlines() or [type(fault).__name__]
        raise ModelRefused(
            f'The model in "{folder}" cannot be loaded: {reason[0][:200]}',
            remedy="check that the folder holds a complete transformers checkpoint",
        ) from fault
    missing = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if missing:
        raise ModelRefused(
            f'The model in "{folder}" lacks {len(missing)} weights, such as "{missing[0]}".',
            remedy="check that the checkpoint is complete and of the right kind",
        )
    return model


def best_device(device: str | None) -> torch.device:
    """The device requested, else CUDA if available, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU that torch can use."""

    name: str
    """Its name, e.g. NVIDIA H200."""
    memory_bytes: int | None
    """Its memory; None where it shares the machine's."""
    free_bytes: int | None
    """Memory that is free now; None where it shares the machine's."""


def accelerators() -> tuple[Accelerator, ...]:
    """The GPUs that torch can use; empty if there are none.

    Raises:
        RuntimeError: the driver does not answer.
    """
    if torch.cuda.is_available():
        found = []
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            found.append(Accelerator(torch.cuda.get_device_name(number), total, free))
        return tuple(found)
    if torch.backends.mps.is_available():
        return (Accelerator("Apple GPU (MPS)", None, None),)
    return ()


def model_window(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The smallest of position limit, sliding window and tokenizer limit, in tokens."""
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    if getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None))
    return min((limit for limit in limits if limit and limit < _UNBOUNDED), default=_UNBOUNDED)


def weights_fingerprint(folder: Path) -> str | None:
    """Identify the weights: `sha256:...` over the safetensors files; None if there are none.

    More than a gigabyte is identified by the hub's snapshot name, else by `sampled-sha256:...` over
    the files' sizes and a piece of every 16 MiB, since training changes all large tensors.
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
    """A file's name and size, and a piece of every stride; the first piece names the tensors."""
    size = file.stat().st_size
    yield f"{file.name} {size}\n".encode()
    with file.open("rb") as content:
        for start in range(0, size, _STRIDE):
            content.seek(start)
            yield content.read(_PIECE)


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every id that ends a turn according to model, generation defaults and tokenizer."""
    configs = (model.config, model.config.get_text_config())
    stated = [tokenizer.eos_token_id, *(getattr(one, "eos_token_id", None) for one in configs)]
    if model.generation_config is not None:
        stated.append(model.generation_config.eos_token_id)
    ids = {i for item in stated for i in (item if isinstance(item, Sequence) else [item])}
    return frozenset(i for i in ids if isinstance(i, int))


_FULL = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Invalid buffer size",
)
"""Messages of torch allocators that have no exception for running out of memory."""


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(fault, RuntimeError) and any(words in str(fault) for words in _FULL)


def free_cached_memory(device: torch.device) -> None:
    """Free torch's cached memory after a failed allocation."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def cache_keywords(module: nn.Module, past: Cache) -> dict[str, Any]:
    """Keywords for a forward pass of `module` that reads `past` and adds to it.

    The keyword is `cache` from transformers 5.24 on and `past_key_values` before, and in models
    whose code comes with their weights; the signature says which one applies.
    """
    return {_cache_keyword(type(module).forward): past, "use_cache": True}


@lru_cache
def _cache_keyword(forward: Callable[..., object]) -> str:
    parameters = inspect.signature(forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"
