"""Choosing the next token: greedy, or sampled with counter-based noise, near ties counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inference.noise import gumbel_rows
from traces.errors import InputError

NEAR_TIE = 1e-4
"""Two perturbed logits closer than this may change places with the batch's shape."""


@dataclass(frozen=True, slots=True)
class SamplingRule:
    """How the next token is chosen; filters act in the order temperature, top_k, top_p."""

    temperature: float = 0.0
    """0 is greedy; logits are divided by it otherwise."""
    top_k: int | None = None
    """Only the k most probable tokens; None for all."""
    top_p: float | None = None
    """The smallest set of most probable tokens that holds this probability; None for all."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f'The temperature "{self.temperature}" is not a number from 0 up.')
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f'top_k is "{self.top_k}", it must be at least 1.')
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f'top_p is "{self.top_p}", it must be above 0 and at most 1.')


@dataclass(frozen=True, slots=True)
class NoiseRows:
    """Whose noise each row of a batch takes."""

    keys: Tensor
    """int64 `[rows, 2]`, from `inference.noise.noise_key`."""
    counters: Tensor
    """int64 `[rows, 2]`: step index and continuation index."""

    def select(self, rows: Tensor) -> NoiseRows:
        """The given rows, in the given order."""
        return NoiseRows(self.keys[rows], self.counters[rows])


def choose_tokens(
    logits: Tensor, rule: SamplingRule, noise: NoiseRows, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose one token a row.

    Args:
        logits: float `[rows, vocabulary]`.
        rule: how.
        noise: whose noise; not looked at where the rule is greedy.
        positions: int64 `[rows]`, 0-based number of the token among the row's new tokens.

    Returns:
        The token ids, int64 `[rows]`, and where the choice was a near tie, bool `[rows]`: the two
        best lie within `NEAR_TIE`, or the winner stands at the edge of the top_k or top_p set.
    """
    logits = logits.float()
    if rule.temperature == 0:
        return _best(logits)
    logits = logits / rule.temperature
    perturbed = logits + gumbel_rows(noise.keys, noise.counters, positions, logits.shape[1])
    if rule.top_k is None and (rule.top_p is None or rule.top_p == 1):
        return _best(perturbed)
    edge, outer, inner = _edges(logits, rule)
    tokens, near = _best(perturbed.masked_fill(logits < edge, -torch.inf))
    near |= tokens != perturbed.masked_fill(logits < outer, -torch.inf).argmax(dim=1)
    near |= (logits.gather(1, tokens.unsqueeze(1)) < inner).squeeze(1)
    return tokens, near


def _best(values: Tensor) -> tuple[Tensor, Tensor]:
    """The best column of each row, and whether the second best is too near to tell."""
    best, tokens = values.max(dim=1)
    second = values.scatter(1, tokens.unsqueeze(1), -torch.inf).amax(dim=1)
    return tokens, best - second < NEAR_TIE


def _edges(logits: Tensor, rule: SamplingRule) -> tuple[Tensor, Tensor, Tensor]:
    """The least logit that the filters keep, `[rows, 1]`: as it is, and moved out and in a little."""
    size = logits.shape[1]
    kept = min(rule.top_k or size, size)
    ordered = logits.topk(min(kept + 1, size), dim=1).values
    edge = ordered[:, kept - 1 : kept]
    # The last one in and the first one out may change places where they lie close together.
    move = NEAR_TIE * (edge - ordered[:, kept : kept + 1] < NEAR_TIE) if kept < size else 0.0
    outer, inner = edge - move, edge + move
    ordered = ordered[:, :kept]
    if rule.top_p is not None:
        share = ordered.softmax(dim=1)
        before = share.cumsum(dim=1) - share
        # Every token whose better ones hold less than top_p is inside, the best one always.
        edges = []
        for slack in (0.0, NEAR_TIE, -NEAR_TIE):
            inside = (before < rule.top_p + slack).sum(dim=1, keepdim=True).clamp_(min=1)
            edges.append(torch.where(inside == kept, -torch.inf, ordered.gather(1, inside - 1)))
        edge, outer, inner = (
            torch.maximum(a, b) for a, b in zip((edge, outer, inner), edges, strict=True)
        )
    return edge, outer, torch.minimum(inner, ordered[:, :1])
