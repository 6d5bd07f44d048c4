"""Training of the lab's policy and judge: small Llama models on correct solutions only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from lab import prompts
from lab.training.examples import Mixture, batches, draw_example, draw_line, draw_solution
from lab.training.schedule import Clock, Optimizers
from lab.training.tokens import final_states, token_id, token_table


@dataclass(frozen=True)
class LanguageOptions:
    """All options of a language-model training."""

    seed: int
    steps: int
    minutes: float
    batch_tokens: int
    bare_share: float
    """First share of the training on bare passages, before whole documents."""
    marked: float
    """Share of examples in the marker PRM's layout."""
    drill: float
    decay: float
    """Last share of the training, over which the learning rate falls to zero."""
    start: LlamaForCausalLM | None = None
    """A model to train further; None for a new one."""


def fresh_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """Return an untrained model; a word starts like the word with a leading space."""
    torch.manual_seed(seed)
    end = token_id(tokenizer, prompts.END)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.04,
        pad_token_id=token_id(tokenizer, prompts.PAD),
        bos_token_id=None,
        eos_token_id=end,
    )
    model = LlamaForCausalLM(config)
    vocabulary = tokenizer.get_vocab()
    with torch.no_grad():
        table = token_table(model)
        for token, index in vocabulary.items():
            twin = vocabulary.get(" " + token)
            if twin is not None and token.strip():
                table[twin] = table[index] + 0.3 * table[twin]
    return model


def language_loss(
    model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the weighted mean next-token loss of a right-padded batch."""
    hidden = final_states(model, ids)[:, :-1]
    chosen = weights[:, 1:] > 0
    logits = hidden[chosen] @ token_table(model).T
    losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][chosen], reduction="none")
    share = weights[:, 1:][chosen]
    return (losses * share).sum() / share.sum()


def train_language(
    tokenizer: PreTrainedTokenizerBase,
    options: LanguageOptions,
    report: Callable[[LlamaForCausalLM, dict[str, float]], None],
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Train a model; `report` is called every few minutes with the model and figures."""
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    model = options.start or fresh_model(tokenizer, options.seed)
    model.train()
    optimizers = Optimizers(model.named_parameters())
    clock = Clock(options.steps, options.minutes)
    mixtures = [Mixture(options.drill, options.marked, window) for window in (0.0, 0.75)]
    pad_id = token_id(tokenizer, prompts.PAD)
    streams = [
        batches(rng, partial(draw_example, rng, tokenizer, mixture), options.batch_tokens, pad_id)
        for mixture in mixtures
    ]
    tokens, spoken = 0, time.monotonic()
    figures: dict[str, float] = {}
    while clock.progress < 1:
        ids, weights = next(streams[clock.progress >= options.bare_share])
        loss = language_loss(model, ids, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers.step(clock.factor(decay=options.decay))
        tokens += ids.numel()
        clock.step += 1
        if clock.step % 20 == 0:
            figures = {
                "steps": clock.step,
                "tokens": tokens,
                "loss": round(loss.item(), 4),
                "wall_seconds": round(time.monotonic() - clock.started),
                "cpu_seconds": round(time.process_time()),
            }
        if figures and time.monotonic() - spoken > 150:
            report(model, figures)
            spoken = time.monotonic()
    return model, figures


MATRIX_RATE, REST_RATE = 0.01, 1.5e-3
"""Half of the first training's rates."""
LINE_SHARE = 0.5
DECAY = 0.5


def train_conditions(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    options: LanguageOptions,
    report: Callable[[LlamaForCausalLM, dict[str, float]], None],
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Train `model` further on contraindications: half the batches are bare lines, half whole
    solutions.

    `report` is called every few minutes with the model and figures.
    """
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    model.train()
    optimizers = Optimizers(model.named_parameters(), MATRIX_RATE, REST_RATE)
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
        optimizers.step(clock.factor(warm_up=20, decay=DECAY))
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
