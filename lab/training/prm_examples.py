"""Training examples for the marker PRM: a verdict target at every token of a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from lab import prompts
from lab.corruption import draw_trace
from lab.domain import draw_facts, draw_question
from lab.solution import solution_steps
from lab.training.examples import Encoded, draw_passage, pad
from lab.training.tokens import encode, token_id

TOKEN_WEIGHT = 0.5


@dataclass(frozen=True)
class PrmMixture:
    """Shares of the kinds of traces."""

    error_share: float = 0.6
    window: float = 0.6
    """Share of passages cut from whole documents."""
    wrong_passage: float = 0.03
    """Share of passages about another drug, where no step is supported and all are incorrect."""


@dataclass(frozen=True)
class Verdicts:
    """One training sequence with its targets."""

    encoded: Encoded
    right: list[float]
    """1 while the trace is correct up to and including this token, else 0."""


def draw_verdicts(
    rng: random.Random, tokenizer: PreTrainedTokenizerBase, mixture: PrmMixture
) -> Verdicts:
    """Draw a trace in the PRM's layout, with a target at every token of its steps."""
    facts = draw_facts(rng)
    question = draw_question(rng, facts)
    trace = draw_trace(rng, facts, question, error_share=mixture.error_share)
    wrong_passage = rng.random() < mixture.wrong_passage
    passage = draw_passage(rng, draw_facts(rng) if wrong_passage else facts, mixture.window)
    truth = [] if wrong_passage else solution_steps(facts, question)
    head = f"{prompts.USER}{prompts.user_text(passage, question.text)}\n\nExplanation:"
    return encode_verdicts(tokenizer, head, trace.steps, truth)


def encode_verdicts(
    tokenizer: PreTrainedTokenizerBase, head: str, steps: Sequence[str], truth: Sequence[str]
) -> Verdicts:
    """Encode steps after their head; targets change at the first token that leaves `truth`."""
    separator, marker = prompts.MARKED_STEP_SEPARATOR, prompts.MARKER
    marked = encode(tokenizer, "".join(separator + step + marker for step in steps))
    right_way = encode(tokenizer, "".join(separator + step + marker for step in truth))
    marker_id = encode(tokenizer, marker)[0]
    agreed = 0
    while agreed < min(len(marked), len(right_way)) and marked[agreed] == right_way[agreed]:
        agreed += 1
    head_ids = encode(tokenizer, head)
    weights = [1.0 if token == marker_id else TOKEN_WEIGHT for token in marked]
    return Verdicts(
        Encoded(head_ids + marked, [0.0] * len(head_ids) + weights),
        [1.0] * (len(head_ids) + agreed) + [0.0] * (len(marked) - agreed),
    )


def verdict_batches(
    rng: random.Random, tokenizer: PreTrainedTokenizerBase, mixture: PrmMixture, tokens: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield (ids, weights, targets) endlessly, sorted by length, about `tokens` tokens each."""
    pad_id = token_id(tokenizer, prompts.PAD)
    while True:
        pool = [draw_verdicts(rng, tokenizer, mixture) for _ in range(256)]
        pool.sort(key=lambda v: len(v.encoded.ids))
        groups: list[list[Verdicts]] = [[]]
        for example in pool:
            if len(example.encoded.ids) * (len(groups[-1]) + 1) > tokens:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            ids, weights = pad([v.encoded for v in group], pad_id)
            targets = torch.zeros_like(weights)
            for row, verdicts in enumerate(group):
                targets[row, : len(verdicts.right)] = torch.tensor(verdicts.right)
            yield ids, weights, targets
