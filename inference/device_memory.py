"""How running out of a device's memory is told, and what is given back then."""

from __future__ import annotations

import torch

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
