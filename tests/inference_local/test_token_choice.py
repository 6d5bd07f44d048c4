"""Choosing tokens: probabilities as stated, filters as brute force says, near ties counted."""

from __future__ import annotations

import pytest
import torch
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

from inference.local.token_choice import (
    NEAR_TIE,
    NoiseRows,
    SamplingRule,
    choose_tokens,
    gumbel_rows,
    noise_key,
)
from traces.errors import InputError


def noise(rows: int) -> NoiseRows:
    keys = torch.tensor([noise_key(0, f"t{row}") for row in range(rows)])
    return NoiseRows(keys, torch.zeros(rows, 2, dtype=torch.int64))


def choose(logits: Tensor, rule: SamplingRule) -> tuple[Tensor, Tensor]:
    rows = len(logits)
    return choose_tokens(logits, rule, noise(rows), torch.zeros(rows, dtype=torch.int64))


def test_greedy_takes_the_best() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, -1.0]])
    tokens, near = choose(logits, SamplingRule())
    assert tokens.tolist() == [1, 0]
    assert near.tolist() == [False, False]


def test_a_near_tie_is_told_for_its_row_only() -> None:
    logits = torch.tensor([[1.0, 1.0 + NEAR_TIE / 2, 0.0], [1.0, 1.0 + NEAR_TIE * 2, 0.0]])
    assert choose(logits, SamplingRule())[1].tolist() == [True, False]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_ten_thousand_draws_follow_the_softmax(temperature: float) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
    tokens, _ = choose(logits.expand(10_000, 5), SamplingRule(temperature))
    expected = (logits.double() / temperature).softmax(0).numpy() * 10_000
    assert stats.chisquare(tokens.bincount(minlength=5).numpy(), expected).pvalue > 0.001


def brute_force(logits: Tensor, rule: SamplingRule) -> list[int]:
    """Filter row by row with Python lists, then the best perturbed of what is left."""
    scaled = logits / rule.temperature
    rows = noise(len(logits))
    perturbed = scaled + gumbel_rows(
        rows.keys, rows.counters, torch.zeros(len(logits), dtype=torch.int64), logits.shape[1]
    )
    chosen = []
    for row in range(len(logits)):
        order = sorted(range(logits.shape[1]), key=lambda token: -float(scaled[row, token]))
        order = order[: rule.top_k or len(order)]
        share = scaled[row, order].double().softmax(0).tolist()
        kept: list[int] = []
        mass = 0.0
        for token, part in zip(order, share, strict=True):
            if not kept or mass < (rule.top_p or 1.0):
                kept.append(token)
            mass += part
        chosen.append(max(kept, key=lambda token: float(perturbed[row, token])))
    return chosen


@pytest.mark.parametrize(
    "rule",
    [
        SamplingRule(0.7, top_k=3),
        SamplingRule(1.0, top_k=1),
        SamplingRule(1.0, top_p=0.6),
        SamplingRule(1.3, top_p=0.01),
        SamplingRule(0.9, top_k=8, top_p=0.8),
        SamplingRule(0.9, top_k=100, top_p=1.0),
    ],
)
def test_filters_agree_with_brute_force(rule: SamplingRule) -> None:
    logits = torch.randn(300, 20, generator=torch.Generator().manual_seed(1)) * 2
    tokens, near = choose(logits, rule)
    sure = ~near
    assert int(sure.sum()) > 290
    assert tokens[sure].tolist() == torch.tensor(brute_force(logits, rule))[sure].tolist()


@pytest.mark.parametrize(("top_p", "unsure"), [(0.50005, {1}), (0.6, set()), (0.49995, {0})])
def test_a_winner_at_the_edge_of_top_p_is_a_near_tie(top_p: float, unsure: set[int]) -> None:
    logits = torch.tensor([0.5, 0.4, 0.1]).log().expand(400, 3)
    tokens, near = choose(logits, SamplingRule(1.0, top_p=top_p))
    assert set(tokens[near].tolist()) == unsure
    assert set(tokens[~near].tolist()) == ({0} if 0 in unsure else {0, 1} - unsure)


def test_a_winner_at_the_edge_of_top_k_is_a_near_tie() -> None:
    logits = torch.tensor([3.0, 1.0, 1.0 - NEAR_TIE / 2, -5.0]).expand(300, 4)
    tokens, near = choose(logits, SamplingRule(1.0, top_k=2))
    assert near[tokens == 1].all()
    assert not near[tokens == 0].all()


def test_the_last_token_of_top_k_is_sure_where_the_next_is_far() -> None:
    tokens, near = choose(torch.tensor([3.0, 2.0, 0.0]).expand(300, 3), SamplingRule(1.0, top_k=2))
    assert set(tokens.tolist()) == {0, 1}
    assert not near.any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        SamplingRule(**wrong)  # type: ignore[arg-type]
