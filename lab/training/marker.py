"""Reading the marker PRM: the probability of ` +` against ` -` at each ` ки`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab import prompts
from lab.training.tokens import encode, token_id


@dataclass(frozen=True)
class MarkedTrace:
    """What the marker PRM reads."""

    passage: str | None
    question: str
    steps: Sequence[str]


@torch.inference_mode()
def marker_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    traces: Sequence[MarkedTrace],
    batch_size: int = 16,
) -> list[list[float]]:
    """Return the step scores of each trace, in the order given."""
    marker, positive, negative = (
        token_id(tokenizer, text) for text in (prompts.MARKER, prompts.POSITIVE, prompts.NEGATIVE)
    )
    rows = [
        encode(
            tokenizer,
            prompts.generation_prompt(prompts.marked_user_text(t.passage, t.question, t.steps)),
        )
        for t in traces
    ]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found: list[list[float]] = [[] for _ in rows]
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        width = max(len(rows[index]) for index in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        for row, index in enumerate(part):
            ids[row, : len(rows[index])] = torch.tensor(rows[index])
        logits = model(input_ids=ids, use_cache=False).logits[..., [positive, negative]].float()
        scores = logits.softmax(dim=-1)[..., 0]
        for row, index in enumerate(part):
            found[index] = scores[row][ids[row] == marker].tolist()
    return found
