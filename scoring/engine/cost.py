"""Devices and their memory: how many tokens one forward may take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, groupby

import torch
from torch import nn
from transformers import PreTrainedModel

from traces import InputError, TraceInContext

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


# --- Operations: what a token costs, so that time left and bounds are told in work, not in traces


_CHARACTERS = 4
"""Characters a token, roughly; it only weighs long traces against short ones."""


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Operations of causal models' layers, output heads apart; a multiply-add counts two."""

    per_token: int
    """Of the linear layers, for one token."""
    per_pair: int
    """Of attention, for one token and one token that it sees (itself included), over all layers."""

    @classmethod
    def of(cls, *models: PreTrainedModel) -> LayerWork:
        """Count them in models that give hidden states, all together."""
        works = [cls._of(model) for model in models]
        return cls(sum(work.per_token for work in works), sum(work.per_pair for work in works))

    @classmethod
    def _of(cls, model: PreTrainedModel) -> LayerWork:
        linear = sum(
            module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear)
        )
        config = model.config.get_text_config()
        heads = int(getattr(config, "num_attention_heads", 1))
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        layers = int(getattr(config, "num_hidden_layers", 1))
        return cls(2 * linear, 4 * layers * heads * int(width))

    def tokens(self, count: float, behind: float = 0) -> float:
        """Operations of `count` tokens that stand behind `behind` others."""
        return self.per_token * count + self.per_pair * (count * behind + count * (count + 1) / 2)


def expected_work(
    contexts: Iterable[TraceInContext], work: LayerWork, *, documents: bool = True
) -> Mapping[str, float]:
    """Operations that each trace will take, by its id, told from the length of its texts.

    What a problem's candidates share is divided among those that come together.

    Args:
        contexts: the traces.
        work: what a token costs.
        documents: whether evidence stands in the prompt.
    """
    expected: dict[str, float] = {}
    for _, together in groupby(contexts, key=lambda context: context.problem.id):
        candidates = list(together)
        shared = _shared_characters(candidates[0], documents) / _CHARACTERS
        part = work.tokens(shared) / len(candidates)
        for context in candidates:
            own = sum(map(len, context.trace.steps)) / _CHARACTERS
            expected[context.trace.id] = part + work.tokens(own, shared)
    return expected


def _shared_characters(context: TraceInContext, documents: bool) -> int:
    """Characters of question, options and, where it is shown, evidence."""
    problem = context.problem
    evidence = context.evidence if documents else ()
    texts = (problem.question, *problem.options, *(each.passage.text for each in evidence))
    return sum(map(len, texts))
