"""Memory: how many tokens one forward may take, and how running out of it is told."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel

_LEAST, _MOST = 1 << 10, 1 << 16
"""Bounds of the tokens of one forward."""
_PROCESSOR_BYTES = 24 << 20
"""Largest activation on a processor: below the size from which the C library gives memory back to
the system at once, and every forward would fault it in anew."""
_GPU_SHARE = 0.5
"""Share of the free memory that the activations of one forward may take; the rest is for keys,
values and what the allocator loses to gaps."""
_COPIES = 4
"""Widest activations that live at once inside a layer."""
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


def forward_tokens(model: PreTrainedModel) -> int:
    """How many tokens one forward of this model should take on its device."""
    widest = _widest(model) * model.dtype.itemsize
    if model.device.type == "cpu":
        room = _PROCESSOR_BYTES // widest
    else:
        room = int(_free_bytes(model.device) * _GPU_SHARE) // (widest * _COPIES)
    return min(max(room, _LEAST), _MOST)


def let_go(device: torch.device) -> None:
    """Give cached memory back after an allocation that failed."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _widest(model: PreTrainedModel) -> int:
    """Numbers per token of the widest activation."""
    layers = (module for module in model.modules() if isinstance(module, nn.Linear))
    widths = chain.from_iterable((layer.in_features, layer.out_features) for layer in layers)
    return max(widths, default=1)


def _free_bytes(device: torch.device) -> int:
    """Free memory of an accelerator."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0
