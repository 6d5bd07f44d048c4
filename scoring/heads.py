"""Linear heads of checkpoints, read from their safetensors files and kept in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from traces.errors import PrmError


def read_tensors(folder: Path, prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with one of the prefixes, in float32."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(tuple(prefixes))]  # noqa: SIM118
            found |= {name: tensors.get_tensor(name).float() for name in names}
    return found


def tensor_names(folder: Path) -> frozenset[str]:
    """The names of all tensors in a checkpoint's safetensors files."""
    names: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names |= set(tensors.keys())
    return frozenset(names)


def head_of(folder: Path, layouts: Sequence[Sequence[str]], classes: int) -> nn.Module:
    """The head that lies under the first fitting layout: linear layers with ReLU between them.

    Args:
        folder: the checkpoint.
        layouts: names of the linear layers, in order, of each way a head may be stored.
        classes: outputs of the last layer.

    Raises:
        PrmError: none of the layouts is there with that many outputs.
    """
    weights = read_tensors(folder, [layer for layers in layouts for layer in layers])
    for layers in layouts:
        if all(f"{layer}.weight" in weights for layer in layers):
            linear = [_linear(weights, layer) for layer in layers]
            if linear[-1].out_features == classes:
                between = [part for layer in linear[:-1] for part in (layer, nn.ReLU())]
                return nn.Sequential(*between, linear[-1]).eval()
    names = " or ".join(f'"{layers[0]}"' for layers in layouts)
    outputs = "two classes" if classes == 2 else f"{classes} output"
    raise PrmError(
        f'The checkpoint in "{folder}" has no head of {outputs} ({names}) in its safetensors files.',
        remedy="name the right family with --family, or take the whole PRM checkpoint",
    )


def _linear(weights: dict[str, Tensor], name: str) -> nn.Linear:
    """One linear layer with the checkpoint's weights; without a bias where there is none."""
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer.requires_grad_(False)
