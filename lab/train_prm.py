"""Training of the lab's marker PRM: grow the policy, then tune what is new, then everything."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab import prompts
from lab.code_book import fit_code_book
from lab.grow import CONSTANT, EXTRA, MISMATCH, grow
from lab.prm_examples import PrmMixture, verdict_batches
from lab.schedule import Clock
from lab.tokens import decoder_layers, final_states, token_id, token_table


@dataclass(frozen=True)
class PrmOptions:
    """Everything a PRM training depends on."""

    seed: int
    steps: int
    minutes: float
    batch_tokens: int
    rate: float
    """AdamW learning rate of the new layers."""
    trunk_rate: float
    """AdamW learning rate of the policy's layers once they are released; 0 keeps them frozen."""
    frozen_share: float
    """Leading share of the training in which the policy's layers are frozen."""


@dataclass
class Readout:
    """The rows of ` +` and ` -` in the tied table, trained apart from the other rows."""

    rows: torch.nn.Parameter
    ids: tuple[int, int]

    @classmethod
    def of(cls, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> "Readout":
        """Start with: positive reads the constant coordinate, negative the mismatch."""
        width = model.config.hidden_size
        rows = torch.zeros(2, width)
        rows[0, CONSTANT - EXTRA] = 3.2
        rows[1, MISMATCH - EXTRA] = 8.0
        ids = tuple(token_id(tokenizer, text) for text in (prompts.POSITIVE, prompts.NEGATIVE))
        return cls(torch.nn.Parameter(rows), (ids[0], ids[1]))

    def margin(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logit(+) - logit(-)."""
        return hidden @ (self.rows[0] - self.rows[1])

    @torch.no_grad()
    def write(self, model: LlamaForCausalLM) -> None:
        """Put the rows into the model's tied table."""
        token_table(model)[list(self.ids)] = self.rows


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
    model: LlamaForCausalLM, readout: Readout
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Return what is new, what of it writes into the stream, and the policy's layers.

    The coordinates of the stream are of the order of a hundred, so writing needs larger steps. The
    attention pattern of the comparing layer is exact and stays as it was built: Adam would turn
    its vanishing gradients into full steps.
    """
    compare, gather = decoder_layers(model)[-2:]
    new: list[torch.nn.Parameter] = [*model.model.norm.parameters(), readout.rows]
    writing: list[torch.nn.Parameter] = []
    for layer in (compare, gather):
        for name, parameter in layer.named_parameters():
            if name.startswith(("self_attn.o_proj", "mlp.down_proj")):
                writing.append(parameter)
            elif layer is gather or name.startswith(("mlp", "post_attention", "self_attn.v_proj")):
                new.append(parameter)
    trunk = [p for layer in decoder_layers(model)[:-2] for p in layer.parameters()]
    return new, writing, trunk


def train_prm(
    policy: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    options: PrmOptions,
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
    new, writing, trunk = _parameter_groups(model, readout)
    model.requires_grad_(False)
    for parameter in new + writing:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(
        [{"params": new}, {"params": trunk}, {"params": writing}],
        lr=options.rate,
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    rates = (options.rate, options.trunk_rate, 5 * options.rate)
    stream = verdict_batches(
        random.Random(options.seed), tokenizer, PrmMixture(), options.batch_tokens
    )
    spoken, tokens, average = time.monotonic(), 0, 0.0
    while clock.progress < 1:
        if options.trunk_rate > 0 and clock.progress >= options.frozen_share:
            for parameter in trunk:
                parameter.requires_grad_(True)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * clock.factor(warm_up=20)
        batch = next(stream)
        loss = verdict_loss(model, readout, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(new + writing + trunk, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
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
