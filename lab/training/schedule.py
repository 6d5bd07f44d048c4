"""The optimisers of all lab trainings and their common learning-rate schedule."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from lab.training.muon import Muon


@dataclass
class Clock:
    """Progress of a training: by steps, or by minutes where these run out first."""

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
        """Return the learning-rate factor: linear warm-up, constant, linear decay at the end."""
        rise = min(1.0, (self.step + 1) / warm_up)
        return rise * min(1.0, max(0.0, 1 - self.progress) / decay)


class Optimisers:
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
        """Update everything at the given share of the full learning rates."""
        self.muon.step(self.matrix_rate * factor)
        for group in self.adam.param_groups:
            group["lr"] = self.rest_rate * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
