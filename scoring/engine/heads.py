"""Heads of checkpoints: linear heads from safetensors files, and the output head of language
models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from traces import PrmError


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (OSError, SafetensorError) as fault:
        raise PrmError(
            f"Cannot read the weights: {fault}",
            where=str(file),
            remedy="check that the checkpoint is complete",
        ) from fault


def read_tensors(folder: Path, prefixes: Sequence[str]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors whose names begin with one of the prefixes, in float32."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with _opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name.startswith(tuple(prefixes)):
                    found[name] = tensors.get_tensor(name).float()
    return found


def tensor_names(folder: Path) -> frozenset[str]:
    """Return the names of all tensors in a checkpoint's safetensors files."""
    names: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with _opened(file) as tensors:
            names |= set(tensors.keys())
    return frozenset(names)


def head_of(folder: Path, layouts: Sequence[Sequence[str]], classes: int) -> nn.Module:
    """Return the head stored under the first fitting layout: linear layers with ReLU in between.

    Args:
        folder: the checkpoint.
        layouts: for each way to store a head, the names of its linear layers in order.
        classes: outputs of the last layer.

    Raises:
        PrmError: no layout is present with that number of outputs.
    """
    weights = read_tensors(folder, [layer for layers in layouts for layer in layers])
    for layers in layouts:
        if all(f"{layer}.weight" in weights for layer in layers):
            linear = [_linear(weights, layer) for layer in layers]
            if linear[-1].out_features == classes:
                between = [part for layer in linear[:-1] for part in (layer, nn.ReLU())]
                return nn.Sequential(*between, linear[-1]).eval()
    names = " or ".join(f'"{layers[0]}"' for layers in layouts)
    outputs = {1: "1 output", 2: "two classes"}.get(classes, f"{classes} classes")
    raise PrmError(
        f'The checkpoint in "{folder}" has no head of {outputs} ({names}).',
        remedy="name the right family with --family, or use the complete PRM checkpoint",
    )


def _linear(weights: dict[str, Tensor], name: str) -> nn.Linear:
    """Return one linear layer with the checkpoint's weights, and its bias if present."""
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer.requires_grad_(False)


_LOGITS_NUMBERS = 1 << 25
"""Most logits (positions times vocabulary) computed at once."""
_PROBE = (5, 9, 2, 7)
"""Ids on which the head is checked."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits, as a share of their largest value; 0.01 for half precision, where
both sides run the same operations."""


class LanguageHead:
    """Computes next-token log-probabilities from a causal language model's hidden states."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a causal language model.

        Raises:
            PrmError: its logits are not its head applied to its last hidden states.
        """
        self._head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if not _is_all(model, self._head):
            raise PrmError(
                f"The model ({model.config.model_type}) changes its logits after the output head,"
                " so they cannot be computed from hidden states.",
                remedy="use another language model",
            )

    @property
    def vocabulary(self) -> int:
        """Number of tokens in the vocabulary."""
        return int(self._head.weight.shape[0])

    def following_logs(self, hidden: Tensor, next_ids: Tensor) -> Tensor:
        """Return the log-probability of the id that follows each position.

        Args:
            hidden: `[positions, width]`, the model's last hidden states.
            next_ids: int64 `[positions]`.

        Returns:
            float32 `[positions]`, at most 0. At most 2^25 logits are in memory at once.
        """
        size = max(1, _LOGITS_NUMBERS // self.vocabulary)
        parts = []
        for start in range(0, len(hidden), size):
            logits = self._head(hidden[start : start + size]).float()
            ids = next_ids[start : start + size]
            chosen = logits.gather(1, ids.unsqueeze(1)).squeeze(1)
            parts.append(chosen - logits.logsumexp(dim=1))
        return torch.cat(parts)


@torch.inference_mode()
def _is_all(model: PreTrainedModel, head: torch.nn.Module) -> bool:
    """Whether the head alone turns hidden states into logits: some models cap or scale them."""
    size = int(model.config.get_text_config().vocab_size)
    ids = torch.tensor([[i % size for i in _PROBE]], device=model.device)
    if ids.is_meta:
        # Shapes without weights, as loaded for a model server: nothing is computed here.
        return True
    wanted = model(input_ids=ids, use_cache=False).logits.float()
    got = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
    limit = _TOLERANCE.get(model.dtype, 0.01) * max(float(wanted.abs().max()), 1.0)
    return float((wanted - got).abs().max()) <= limit
