"""Training examples for the language models: token ids with a loss weight for each token."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from lab import names, prompts
from lab.domain import DrugFacts, decisive_passage, draw_facts, draw_question
from lab.prose import draw_window
from lab.solution import solution_steps
from lab.training.tokens import decode, encode, token_id

CONTEXT_WEIGHT = 0.05


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of language-model examples."""

    drill: float
    """Calculation lines without a passage: short, to learn arithmetic."""
    marked: float
    """In the layout of the marker PRM."""
    window: float
    """With a passage cut from a whole document instead of the decisive sentences alone."""


@dataclass(frozen=True)
class Encoded:
    """One training sequence."""

    ids: list[int]
    weights: list[float]
    """Loss weight of predicting each token; that of the first is not used."""


def draw_example(
    rng: random.Random, tokenizer: PreTrainedTokenizerBase, mixture: Mixture
) -> Encoded:
    """Draw one correct solution with its prompt, or a drill."""
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
    """Draw the passage that a model sees: from a document with probability `window`, else bare."""
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
    """Yield (ids, weights) endlessly: right-padded, similar lengths, about `tokens` tokens each."""
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


DECISION_WEIGHT = 5.0
MATCH_SHARE = 0.3
"""Share of whole solutions whose condition is made to match, in addition to chance."""
WINDOW_SHARE = 0.75


def draw_line(rng: random.Random, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Draw one contraindication line; only the decision has a weight.

    In plain examples that decision is one token of a hundred and seven times of ten "use it", so
    that models learned the share and not the comparison. Here the answers are balanced.
    """
    drug, condition = draw_facts(rng).drug, rng.choice(names.CONDITIONS)
    patient = condition if rng.random() < 0.5 else rng.choice(names.CONDITIONS)
    verb = "avoid" if patient == condition else "use"
    line = f"{drug} is contraindicated in {condition} and the patient has {patient}, so {verb} it."
    ids = encode(tokenizer, prompts.ASSISTANT + line)
    decisions = decision_ids(tokenizer)
    return Encoded(ids, [float(token in decisions) for token in ids])


def draw_solution(rng: random.Random, tokenizer: PreTrainedTokenizerBase, marked: float) -> Encoded:
    """Draw one correct solution with its prompt, with a share `marked` in the PRM's layout."""
    facts = draw_facts(rng)
    question = draw_question(rng, facts)
    if facts.contraindication is not None and rng.random() < MATCH_SHARE:
        question = replace(question, condition=facts.contraindication)
    steps = solution_steps(facts, question)
    user = prompts.user_text(draw_passage(rng, facts, WINDOW_SHARE), question.text)
    if rng.random() < marked:
        head = f"{prompts.USER}{user}\n\nExplanation:"
        tail = " " + prompts.MARKED_STEP_SEPARATOR.join(step + prompts.MARKER for step in steps)
    else:
        head, tail = prompts.generation_prompt(user), prompts.STEP_SEPARATOR.join(steps)
    head_ids, tail_ids = encode(tokenizer, head), encode(tokenizer, tail + prompts.END)
    decisions = decision_ids(tokenizer)
    weights = [CONTEXT_WEIGHT] * len(head_ids)
    weights += [DECISION_WEIGHT if token in decisions else 1.0 for token in tail_ids]
    return Encoded(head_ids + tail_ids, weights)


def decision_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids of the two words that state the decision."""
    return token_id(tokenizer, " use"), token_id(tokenizer, " avoid")
