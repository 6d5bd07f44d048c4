"""Training of the lab's marker PRM: grow the policy, then train the new parts.

The policy's layers stay frozen: trained even at a rate of 3e-5, they overwrote the coordinates of
the comparison, and first-error F1 fell from .90 to 0 within two minutes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab import prompts
from lab.training.code_book import fit_code_book
from lab.training.grow import CONSTANT, EXTRA, MISMATCH, grow, rebuild_gathering
from lab.training.prm_examples import PrmMixture, verdict_batches
from lab.training.schedule import Clock
from lab.training.tokens import decoder_layers, final_states, token_id, token_table


@dataclass(frozen=True)
class PrmTraining:
    """All options of a PRM training."""

    seed: int
    steps: int
    minutes: float
    batch_tokens: int
    rate: float
    """AdamW learning rate of the last layer; that of the read-out is ten times higher."""


@dataclass
class Readout:
    """The rows of ` +` and ` -` in the tied table, trained separately from the other rows."""

    rows: torch.nn.Parameter
    ids: tuple[int, int]

    @classmethod
    def of(cls, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> Readout:
        """Start with positive reading the constant coordinate, and negative the mismatch."""
        width = model.config.hidden_size
        rows = torch.zeros(2, width)
        rows[0, CONSTANT - EXTRA] = 2.4
        rows[1, MISMATCH - EXTRA] = 8.0
        ids = tuple(token_id(tokenizer, text) for text in (prompts.POSITIVE, prompts.NEGATIVE))
        return cls(torch.nn.Parameter(rows), (ids[0], ids[1]))

    def margin(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logit(+) - logit(-)."""
        return hidden @ (self.rows[0] - self.rows[1])

    @torch.no_grad()
    def write(self, model: LlamaForCausalLM) -> None:
        """Write the rows into the model's tied table."""
        token_table(model)[list(self.ids)] = self.rows


def untrained(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Take from a grown PRM what `train_prm` taught it; what was built stays."""
    torch.manual_seed(0)
    rebuild_gathering(model)
    Readout.of(model, tokenizer).write(model)


def verdict_loss(
    model: LlamaForCausalLM,
    readout: Readout,
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Return the weighted binary cross-entropy of the verdict at every token of the traces."""
    ids, weights, targets = batch
    hidden = final_states(model, ids)
    chosen = weights > 0
    margin = readout.margin(hidden[chosen])
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        margin, targets[chosen], reduction="none"
    )
    return (losses * weights[chosen]).sum() / weights[chosen].sum()


def _parameter_groups(
    model: LlamaForCausalLM, readout: Readout, options: PrmTraining
) -> list[tuple[list[torch.nn.Parameter], float]]:
    """Return the trained parameters and their rates.

    The comparing layer and all built-in attention patterns are exact and stay as they are: Adam
    would turn their vanishing gradients into full steps.
    """
    gather = decoder_layers(model)[-1]
    kept = ("self_attn.q_proj", "self_attn.k_proj", "input_layernorm")
    new = [p for name, p in gather.named_parameters() if not name.startswith(kept)]
    return [
        ([readout.rows], 10 * options.rate),
        ([*new, *model.model.norm.parameters()], options.rate),
    ]


def train_prm(
    policy: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    options: PrmTraining,
    report: Callable[[LlamaForCausalLM, dict[str, float]], None],
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Grow the policy into a PRM and train it; `report` is called every few minutes."""
    torch.set_num_threads(1)
    clock = Clock(options.steps, options.minutes)
    book, figures = fit_code_book(policy, tokenizer, options.seed)
    model = grow(policy, book)
    readout = Readout.of(model, tokenizer)
    readout.write(model)
    report(model, {**figures, "steps": 0})
    groups = _parameter_groups(model, readout, options)
    trained = [parameter for members, _ in groups for parameter in members]
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [{"params": members} for members, _ in groups], betas=(0.9, 0.98), weight_decay=0.0
    )
    stream = verdict_batches(
        random.Random(options.seed), tokenizer, PrmMixture(), options.batch_tokens
    )
    spoken, tokens, average = time.monotonic(), 0, 0.0
    while clock.progress < 1:
        for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = rate * clock.factor(warm_up=20)
        batch = next(stream)
        loss = verdict_loss(model, readout, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += batch[0].numel()
        clock.step += 1
        average += (loss.item() - average) / min(clock.step, 50)
        figures = {
            "steps": clock.step,
            "tokens": tokens,
            "loss": round(average, 4),
            "wall_seconds": round(time.monotonic() - clock.started),
            "cpu_seconds": round(time.process_time()),
        }
        if time.monotonic() - spoken > 90:
            readout.write(model)
            report(model, figures)
            spoken = time.monotonic()
    readout.write(model)
    return model, figures
