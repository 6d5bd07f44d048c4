"""Muon's orthogonalisation and step."""

from __future__ import annotations

import torch

from lab.training.schedule import Muon, orthogonalize


def test_singular_values_are_pushed_towards_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 8, 24), (3, 24, 8)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), iterations=8))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_it_descends_a_quadratic() -> None:
    torch.manual_seed(0)
    target = torch.randn(6, 9)
    weight = torch.nn.Parameter(torch.zeros(6, 9))
    muon = Muon([weight])
    start = float((weight - target).detach().norm())
    for _ in range(100):
        torch.nn.functional.mse_loss(weight, target).backward()  # type: ignore[no-untyped-call]
        muon.step(0.05)
        assert weight.grad is None
    assert float((weight - target).detach().norm()) < 0.2 * start
