"""Devices and operations: tokens of one forward pass, and what a token costs."""

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
"""Limits of the tokens of one forward pass."""
_PROCESSOR_MOST = 1 << 13
"""On a CPU larger products are no faster, and results are stored after each forward pass."""
_PROCESSOR_BYTES = 24 << 20
"""Largest activation on a CPU. From a larger size on, the C library returns memory to the system at
once, so that every forward pass would fault it in again."""
_GPU_SHARE = 0.5
"""Share of the free memory for the activations of one forward pass; the rest is for keys, values
and fragmentation."""
_COPIES = 4
"""Widest activations that exist at once inside a layer."""


def best_device(name: str | None) -> torch.device:
    """Return the device asked for; else CUDA, else Apple's GPU, else the CPU.

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
            f'No device "{name}" on this machine: {str(fault).splitlines()[0]}',
            remedy="choose --device cpu, cuda, cuda:N or mps",
        ) from fault
    return device


def best_dtype(device: torch.device, name: torch.dtype | str | None) -> torch.dtype:
    """Return the dtype of the weights: as asked, else float32 on a CPU, bfloat16 on an accelerator.

    Raises:
        InputError: not one of float32, bfloat16, float16.
    """
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(name, torch.dtype):
        return name
    if name not in _DTYPES:
        raise InputError(f'Unknown dtype "{name}".', remedy=f"choose one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def forward_tokens(model: PreTrainedModel) -> int:
    """Return how many tokens one forward pass of this model should take on its device."""
    widest = _widest(model) * model.dtype.itemsize
    if model.device.type == "cpu":
        room = min(_PROCESSOR_BYTES // widest, _PROCESSOR_MOST)
    else:
        room = int(_free_bytes(model.device) * _GPU_SHARE) // (widest * _COPIES)
    return min(max(room, _LEAST), _MOST)


def _widest(model: PreTrainedModel) -> int:
    """Return the numbers per token of the widest activation."""
    layers = (module for module in model.modules() if isinstance(module, nn.Linear))
    widths = chain.from_iterable((layer.in_features, layer.out_features) for layer in layers)
    return max(widths, default=1)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0


_CHARACTERS = 4
"""Approximate characters per token; used only to weigh long traces against short ones."""


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Operations of causal models' layers without output heads; a multiply-add counts two."""

    per_token: int
    """Operations of the linear layers for one token."""
    per_pair: int
    """Operations of attention for one token and one token that it sees (or itself), over all
    layers."""

    @classmethod
    def of(cls, *models: PreTrainedModel) -> LayerWork:
        """Count the operations of models that give hidden states, all together."""
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

    def tokens(self, count: float, past: float = 0) -> float:
        """Return the operations of `count` tokens after `past` other tokens."""
        return self.per_token * count + self.per_pair * (count * past + count * (count + 1) / 2)


def expected_work(
    contexts: Iterable[TraceInContext], work: LayerWork, *, documents: bool = True
) -> Mapping[str, float]:
    """Return the expected operations of each trace, by its id, from the length of its texts.

    Shared work of a problem's candidates is divided among those that come together.

    Args:
        contexts: the traces.
        work: what a token costs.
        documents: whether evidence is in the prompt.
    """
    expected: dict[str, float] = {}
    for _, together in groupby(contexts, key=lambda context: context.problem.id):
        candidates = list(together)
        shared = _shared_characters(candidates[0], documents=documents) / _CHARACTERS
        part = work.tokens(shared) / len(candidates)
        for context in candidates:
            own = sum(map(len, context.trace.steps)) / _CHARACTERS
            expected[context.trace.id] = part + work.tokens(own, shared)
    return expected


def _shared_characters(context: TraceInContext, *, documents: bool) -> int:
    """Return the characters of question, options and, if shown, evidence."""
    problem = context.problem
    evidence = context.evidence if documents else ()
    texts = (problem.shown_question, *problem.options, *(each.passage.text for each in evidence))
    return sum(map(len, texts))
