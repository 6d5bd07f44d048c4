"""Training examples for the language models: token ids with a loss weight for each token."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from lab import prompts
from lab.domain import DrugFacts, decisive_passage, draw_facts, draw_question
from lab.prose import draw_window
from lab.solution import solution_steps
from lab.training.tokens import decode, encode

CONTEXT_WEIGHT = 0.05


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of language-model examples."""

    drill: float
    """Calculation lines without a passage: short, and nothing but arithmetic to learn."""
    marked: float
    """Laid out as the marker PRM reads them."""
    window: float
    """Passage cut from a whole document instead of the decisive sentences alone."""


@dataclass(frozen=True)
class Encoded:
    """One training sequence."""

    ids: list[int]
    weights: list[float]
    """Loss weight of predicting each token; that of the first is never used."""


def draw_example(
    rng: random.Random, tokenizer: PreTrainedTokenizerBase, mixture: Mixture
) -> Encoded:
    """Draw one right solution with its prompt, or a drill."""
    facts = draw_facts(rng)
    question = draw_question(rng, facts)
    steps = solution_steps(facts, question)
    if rng.random() < mixture.drill:
        return _encode_drill(tokenizer, steps)
    passage = draw_passage(rng, facts, mixture.window)
    if rng.random() < mixture.marked:
        head = f"{prompts.USER}{prompts.user_text(passage, question.text)}\n\nExplanation:"
        tail = " " + prompts.MARKED_STEP_SEPARATOR.join(step + prompts.MARKER for step in steps)
    else:
        head = prompts.generation_prompt(prompts.user_text(passage, question.text))
        tail = prompts.STEP_SEPARATOR.join(steps)
    head_ids, tail_ids = encode(tokenizer, head), encode(tokenizer, tail + prompts.END)
    weights = [CONTEXT_WEIGHT] * len(head_ids) + [1.0] * len(tail_ids)
    return Encoded(head_ids + tail_ids, weights)


def draw_passage(rng: random.Random, facts: DrugFacts, window: float) -> str:
    """Draw the passage a model sees: cut from a document with probability `window`, else bare."""
    if rng.random() < window:
        return draw_window(rng, facts)
    return decisive_passage(facts)


def _encode_drill(tokenizer: PreTrainedTokenizerBase, steps: list[str]) -> Encoded:
    ids = encode(tokenizer, prompts.ASSISTANT)
    weights = [0.0]
    for step in steps:
        line = encode(tokenizer, step + "\n")
        known = len(line)
        if " = " in step:
            known = len(encode(tokenizer, step[: step.index(" =") + 2]))
            known = (
                0 if known < len(line) and " count is " in decode(tokenizer, ids[-8:]) else known
            )
        elif ", so " in step and " contraindicated " in step:
            known = len(encode(tokenizer, step[: step.index(", so ") + 4]))
        elif " above " in step or step.startswith("The answer"):
            known = 0
        elif " below " in step and step[0].isdigit():
            known = len(encode(tokenizer, step[: step.index(" is")]))
        ids += line
        weights += [0.0] * known + [1.0] * (len(line) - known)
    return Encoded(ids, weights)


def batches(
    rng: random.Random, draw: Callable[[], Encoded], tokens: int, pad_id: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (ids, weights) for ever: right-padded, of like length, about `tokens` tokens each."""
    while True:
        pool = sorted((draw() for _ in range(256)), key=lambda example: len(example.ids))
        groups: list[list[Encoded]] = [[]]
        for example in pool:
            if len(example.ids) * (len(groups[-1]) + 1) > tokens:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            yield pad(group, pad_id)


def pad(group: list[Encoded], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack sequences to the right-padded width of the longest; padding has weight zero."""
    width = max(len(example.ids) for example in group)
    ids = torch.full((len(group), width), pad_id)
    weights = torch.zeros(len(group), width)
    for row, example in enumerate(group):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
    return ids, weights
