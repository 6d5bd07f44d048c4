"""Fit the short token codes by which the grown PRM reads the policy's predictions.

A softmax over the squared distances between `reader @ hidden` and the codes is trained to predict
the next token of correct solutions: the policy's output layer, compressed to a few dimensions.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Final

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lab import prompts
from lab.names import DRUG_NAMES
from lab.training.examples import CONTEXT_WEIGHT, Mixture, batches, draw_example
from lab.training.grow import CODE, CodeBook
from lab.training.tokens import decoder_layers, final_states, token_id, token_table

OPENING: Final = "Explanation"
"""The token that opens the explanation in the marker PRM's layout."""


@torch.no_grad()
def prediction_states(
    policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, rng: random.Random, n_batches: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return final states before solution tokens, these tokens, and the scale of the states."""
    opening = token_id(tokenizer, OPENING)
    draw = partial(draw_example, rng, tokenizer, Mixture(drill=0.0, marked=1.0, window=0.6))
    stream = batches(rng, draw, 4000, token_id(tokenizer, prompts.PAD))
    states, targets, squares = [], [], []
    last_layer = decoder_layers(policy)[-1]
    hook = last_layer.register_forward_hook(
        lambda _module, _inputs, output: squares.append(
            _first(output).square().mean(-1).sqrt().median()
        )
    )
    for _ in range(n_batches):
        ids, weights = next(stream)
        hidden = final_states(policy, ids)
        inside = weights[:, 1:] > CONTEXT_WEIGHT
        inside |= (ids[:, 1:] == opening) | (ids[:, :-1] == opening)
        states.append(hidden[:, :-1][inside])
        targets.append(ids[:, 1:][inside])
    hook.remove()
    scale = float(torch.stack(squares).mean())
    return torch.cat(states), torch.cat(targets), scale


def _first(output: object) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, tuple) and isinstance(output[0], torch.Tensor):
        return output[0]
    raise TypeError(f"A decoder layer gave '{type(output).__name__}' instead of hidden states.")


def fit_code_book(
    policy: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    n_batches: int = 40,
    steps: int = 500,
) -> tuple[CodeBook, dict[str, float]]:
    """Fit codes and reader on correct solutions; also return how well the codes predict."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    states, targets, scale = prediction_states(policy, tokenizer, rng, n_batches)
    table = token_table(policy).detach()
    shared = _one_code_for_all_names(tokenizer, table.size(0))
    targets = shared[targets]
    codes = torch.nn.Parameter(torch.randn(table.size(0), CODE))
    reader = torch.nn.Parameter(torch.randn(CODE, states.size(1)) * 0.05)
    optimizer = torch.optim.Adam([codes, reader], lr=0.03)
    accuracy = 0.0
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * min(1.0, 2 * (1 - step / steps))
        pick = torch.randint(len(states), (1024,))
        guess, truth = states[pick] @ reader.T, targets[pick]
        logits = 2 * guess @ codes.T - codes.square().sum(dim=1)
        gap = (guess - codes[truth]).square().sum(dim=1).mean()
        loss = torch.nn.functional.cross_entropy(logits, truth) + 0.3 * gap
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        accuracy = float((logits.argmax(dim=1) == truth).float().mean())
    width = 0.1 * float(table.norm(dim=1).mean()) / float(codes.detach().norm(dim=1).mean())
    book = CodeBook(
        codes=(codes * width).detach()[shared],
        reader=(reader * width).detach(),
        first=token_id(tokenizer, prompts.USER),
        opening=token_id(tokenizer, OPENING),
        scale=scale,
    )
    return book, {"code_accuracy": accuracy, "code_gap": gap.item(), "state_scale": scale}


def _one_code_for_all_names(tokenizer: PreTrainedTokenizerBase, size: int) -> torch.Tensor:
    """Return for each token the token whose code it shares: codes for hundreds of names would
    crowd."""
    shared = torch.arange(size)
    for space in ("", " "):
        ids = [token_id(tokenizer, space + name) for name in DRUG_NAMES]
        shared[ids] = ids[0]
    return shared
