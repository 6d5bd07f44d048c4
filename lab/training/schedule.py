"""The optimizers of all lab trainings and their learning-rate schedule.

torch.optim.Muon runs its Newton-Schulz iterations in bfloat16, which is slow on CPUs without matrix
units; `Muon` here uses float32 (Keller Jordan et al., https://kellerjordan.github.io/posts/muon).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch


@dataclass
class Clock:
    """Progress of a training, by steps or minutes, whichever ends first."""

    steps: int
    minutes: float
    started: float = field(default_factory=time.monotonic)
    step: int = 0

    @property
    def progress(self) -> float:
        """Return the finished share of the training."""
        elapsed = (time.monotonic() - self.started) / 60
        return max(self.step / self.steps, elapsed / self.minutes)

    def factor(self, warm_up: int = 60, decay: float = 0.35) -> float:
        """Return the learning-rate factor: linear warm-up, constant, linear decay."""
        rise = min(1.0, (self.step + 1) / warm_up)
        return rise * min(1.0, max(0.0, 1 - self.progress) / decay)


class Optimizers:
    """Muon for the hidden matrices, AdamW for embeddings, norms and biases."""

    def __init__(
        self,
        named: Iterable[tuple[str, torch.nn.Parameter]],
        matrix_rate: float = 0.02,
        rest_rate: float = 3e-3,
    ) -> None:
        trained = [(name, p) for name, p in named if p.requires_grad]
        hidden = [p for name, p in trained if p.ndim == 2 and ".layers." in name]
        rest = [p for name, p in trained if p.ndim != 2 or ".layers." not in name]
        self.matrix_rate, self.rest_rate = matrix_rate, rest_rate
        self.muon = Muon(hidden)
        self.adam = torch.optim.AdamW(rest, lr=rest_rate, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float) -> None:
        """Update everything at this share of the full learning rates."""
        self.muon.step(self.matrix_rate * factor)
        for group in self.adam.param_groups:
            group["lr"] = self.rest_rate * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)


_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Return a batch of matrices with all singular values pushed towards one."""
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
    """Orthogonalized momentum .95 with Nesterov look-ahead and one learning rate, batched by
    shape."""

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
        """Apply one update from the current gradients and clear them."""
        for parameters, momentum in self.groups:
            gradients = torch.stack(
                [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            )
            momentum.lerp_(gradients, 1 - self.momentum)
            update = orthogonalize(gradients.lerp(momentum, self.momentum))
            rows, columns = update.shape[-2:]
            scale = learning_rate * max(1.0, rows / columns) ** 0.5
            for parameter, change in zip(parameters, update, strict=True):
                parameter.mul_(1 - learning_rate * self.weight_decay)
                parameter.add_(change, alpha=-scale)
                parameter.grad = None
