"""Step scores from a language model's own likelihood: the lowest token probability of each step.

A model that solves the task writes right steps with confidence, so one improbable token gives a
wrong step away. Training measures a model by these functions, as it stands in memory; the `lab` judge
and the `likelihood` PRM family run the engine of `scoring`, for which they are the slow check.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab import prompts

TAU: Final = 0.1
"""A step with a token less likely than this is incorrect."""


@dataclass(frozen=True)
class StepRequest:
    """One trace to score after its prompt."""

    prompt_ids: Sequence[int]
    steps: Sequence[str]


def step_min_probability(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[int],
    steps: Sequence[str],
) -> list[float]:
    """Return the lowest token probability of each step, the steps written one a line."""
    return step_min_probabilities(model, tokenizer, [StepRequest(prompt_ids, steps)])[0]


@torch.inference_mode()
def step_min_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[StepRequest],
    batch_size: int = 32,
) -> list[list[float]]:
    """Score many traces, in batches of similar length; the answers stand in the order given.

    The line break before a step belongs to that step. A step without any token scores 1.
    """
    layouts = [_step_tokens(tokenizer, request.steps) for request in requests]
    lengths = [len(r.prompt_ids) + len(ids) for r, (ids, _) in zip(requests, layouts, strict=True)]
    order = sorted(range(len(requests)), key=lengths.__getitem__)
    found: list[list[float]] = [[] for _ in requests]
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        rows = [list(requests[i].prompt_ids) + layouts[i][0] for i in part]
        heads = [len(requests[i].prompt_ids) for i in part]
        for index, probabilities in zip(
            part, _token_probabilities(model, rows, heads), strict=True
        ):
            scores = [1.0] * len(requests[index].steps)
            for step, probability in zip(layouts[index][1], probabilities, strict=True):
                scores[step] = min(scores[step], probability)
            found[index] = scores
    return found


def first_unlikely_step(probabilities: Sequence[float], tau: float = TAU) -> int | None:
    """Return the first step whose lowest token probability is below `tau`.

    >>> first_unlikely_step([0.9, 0.02, 0.8])
    1
    """
    return next((i for i, p in enumerate(probabilities) if p < tau), None)


def _step_tokens(
    tokenizer: PreTrainedTokenizerBase, steps: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return the token ids of the joined steps and the step each token begins in."""
    if not steps:
        return [], []
    text = prompts.STEP_SEPARATOR.join(steps)
    ends = list(accumulate(len(step) + len(prompts.STEP_SEPARATOR) for step in steps))
    starts = [end - len(prompts.STEP_SEPARATOR) for end in ends[:-1]]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    owners = [bisect_right(starts, first) for first, _ in encoded["offset_mapping"]]
    return list(encoded["input_ids"]), owners


def _token_probabilities(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], heads: Sequence[int]
) -> list[list[float]]:
    """Return the probability of each token after the head of its row (right-padded batch)."""
    if min(heads) < 1:
        raise ValueError("The prompt is empty: the first token of a trace has no probability then.")
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, device=model.device)
        mask[index, : len(row)] = 1
    kept = width - min(heads) + 1
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False).logits
    found = []
    for index, (row, head) in enumerate(zip(rows, heads, strict=True)):
        first = head - 1 - (width - kept)
        scores = logits[index, first : first + len(row) - head].float().log_softmax(dim=-1)
        tokens = ids[index, head : len(row)]
        found.append(scores.gather(1, tokens[:, None])[:, 0].exp().tolist())
    return found
