"""Devices and their memory: how many tokens one forward may take."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel

from traces.errors import InputError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LEAST, _MOST = 1 << 10, 1 << 16
"""Bounds of the tokens of one forward."""
_PROCESSOR_MOST = 1 << 13
"""On a processor larger products are no faster, and what is done is stored after each forward."""
_PROCESSOR_BYTES = 24 << 20
"""Largest activation on a processor: below the size from which the C library gives memory back to
the system at once, and every forward would fault it in anew."""
_GPU_SHARE = 0.5
"""Share of the free memory that the activations of one forward may take; the rest is for keys,
values and what the allocator loses to gaps."""
_COPIES = 4
"""Widest activations that live at once inside a layer."""


def best_device(name: str | None) -> torch.device:
    """The device asked for; else CUDA, else Apple's, else the processor.

    Raises:
        InputError: torch knows no such device, or this machine has none.
    """
    if name is None:
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as fault:
        raise InputError(
            f'There is no device "{name}" here: {str(fault).splitlines()[0]}',
            remedy="take cpu, cuda, cuda:N or mps",
        ) from fault
    return device


def best_dtype(device: torch.device, name: torch.dtype | str | None) -> torch.dtype:
    """Of the weights: what was asked for; else float32 on a processor, bfloat16 on an accelerator.

    Raises:
        InputError: not one of float32, bfloat16, float16.
    """
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(name, torch.dtype):
        return name
    if name not in _DTYPES:
        raise InputError(f'There is no dtype "{name}" here.', remedy=f"take {', '.join(_DTYPES)}")
    return _DTYPES[name]


def forward_tokens(model: PreTrainedModel) -> int:
    """How many tokens one forward of this model should take on its device."""
    widest = _widest(model) * model.dtype.itemsize
    if model.device.type == "cpu":
        room = min(_PROCESSOR_BYTES // widest, _PROCESSOR_MOST)
    else:
        room = int(_free_bytes(model.device) * _GPU_SHARE) // (widest * _COPIES)
    return min(max(room, _LEAST), _MOST)


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
