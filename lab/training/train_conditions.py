"""Further training on contraindications: half of the batches are bare lines, half whole solutions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab import prompts
from lab.training.condition_examples import draw_line, draw_solution
from lab.training.examples import batches
from lab.training.schedule import Clock, Optimisers
from lab.training.tokens import token_id
from lab.training.train_language import LanguageOptions, language_loss

MATRIX_RATE, REST_RATE = 0.01, 1.5e-3
"""Half of the rates of the first training."""
LINE_SHARE = 0.5
DECAY = 0.5


def train_conditions(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    options: LanguageOptions,
    report: Callable[[LlamaForCausalLM, dict[str, float]], None],
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Train `model` further; `report` is called every few minutes with it and the figures so far."""
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    model.train()
    optimisers = Optimisers(model.named_parameters(), MATRIX_RATE, REST_RATE)
    clock = Clock(options.steps, options.minutes)
    pad_id = token_id(tokenizer, prompts.PAD)
    lines = batches(rng, partial(draw_line, rng, tokenizer), options.batch_tokens // 2, pad_id)
    draw = partial(draw_solution, rng, tokenizer, options.marked)
    solutions = batches(rng, draw, options.batch_tokens, pad_id)
    figures: dict[str, float] = {}
    tokens, spoken = 0, time.monotonic()
    while clock.progress < 1:
        ids, weights = next(lines if rng.random() < LINE_SHARE else solutions)
        loss = language_loss(model, ids, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        optimisers.step(clock.factor(warm_up=20, decay=DECAY))
        tokens += ids.numel()
        clock.step += 1
        figures = {
            "steps": clock.step,
            "tokens": tokens,
            "wall_seconds": round(time.monotonic() - clock.started),
            "cpu_seconds": round(time.process_time()),
        }
        if time.monotonic() - spoken > 150:
            report(model, figures)
            spoken = time.monotonic()
    return model, figures
