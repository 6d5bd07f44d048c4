"""A small batched sampler for evaluating the policy; prompts of equal length share a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from inference import cache_keywords


@torch.inference_mode()
def complete(
    model: PreTrainedModel,
    prompts_ids: Sequence[Sequence[int]],
    *,
    end_id: int,
    temperature: float = 0.0,
    seed: int = 0,
    max_new_tokens: int = 130,
    batch_size: int = 64,
) -> list[list[int]]:
    """Return the new tokens of one completion for each prompt, without the end token."""
    generator = torch.Generator().manual_seed(seed)
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, ids in enumerate(prompts_ids):
        by_length[len(ids)].append(index)
    completions: list[list[int]] = [[] for _ in prompts_ids]
    for group in by_length.values():
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            heads = torch.tensor([list(prompts_ids[index]) for index in part])
            rows = _complete_batch(
                model,
                heads,
                end_id=end_id,
                temperature=temperature,
                generator=generator,
                max_new_tokens=max_new_tokens,
            )
            for index, row in zip(part, rows, strict=True):
                completions[index] = row
    return completions


def _complete_batch(
    model: PreTrainedModel,
    ids: torch.Tensor,
    *,
    end_id: int,
    temperature: float,
    generator: torch.Generator,
    max_new_tokens: int,
) -> list[list[int]]:
    cache = DynamicCache(config=model.config)
    rows: list[list[int]] = [[] for _ in range(ids.size(0))]
    open_rows = set(range(ids.size(0)))
    for _ in range(max_new_tokens):
        logits = model(input_ids=ids, logits_to_keep=1, **cache_keywords(model, cache)).logits[
            :, -1
        ]
        if temperature > 0:
            weights = torch.softmax(logits.float() / temperature, dim=-1)
            ids = torch.multinomial(weights, 1, generator=generator)
        else:
            ids = logits.argmax(dim=-1, keepdim=True)
        for row in tuple(open_rows):
            token = int(ids[row, 0])
            if token == end_id:
                open_rows.discard(row)
            else:
                rows[row].append(token)
        if not open_rows:
            break
    return rows
