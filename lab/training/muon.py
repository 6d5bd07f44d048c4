"""Muon in float32: orthogonalised momentum for hidden matrices, batched over equal shapes.

torch.optim.Muon runs its Newton-Schulz iterations in bfloat16, which is slow on processors without
matrix units; this one stays in float32. (Keller Jordan et al., https://kellerjordan.github.io/posts/muon)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Return the matrices of a batch with all singular values pushed towards one."""
    a, b, c = _COEFFICIENTS
    x = matrices
    wide = x.size(-2) <= x.size(-1)
    if not wide:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: torch.Tensor = x if wide else x.mT
    return result


class Muon:
    """Momentum .95 with Nesterov look-ahead, orthogonalised, one learning rate for all matrices."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        self.momentum = momentum
        self.weight_decay = weight_decay
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        self.groups = [
            (group, torch.zeros(len(group), *shape)) for shape, group in by_shape.items()
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Apply one update from the gradients at hand and clear them."""
        for parameters, momentum in self.groups:
            gradients = torch.stack(
                [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            )
            momentum.lerp_(gradients, 1 - self.momentum)
            update = orthogonalise(gradients.lerp(momentum, self.momentum))
            rows, columns = update.shape[-2:]
            scale = learning_rate * max(1.0, rows / columns) ** 0.5
            for parameter, change in zip(parameters, update, strict=True):
                parameter.mul_(1 - learning_rate * self.weight_decay)
                parameter.add_(change, alpha=-scale)
                parameter.grad = None
