"""Grow a marker PRM out of a trained policy: a wider residual stream and two further layers.

The policy predicts each next token of a correct solution; the PRM has to detect where a trace
departs from that prediction. The grown model starts with this comparison built in:

- the residual stream gains `EXTRA` coordinates: a short code of the token itself, one coordinate
  for the mismatch, one for being inside the explanation and one that is constant. The policy's
  layers neither read nor write them;
- in the first new layer one head attends to the previous token and subtracts the code predicted
  there from the code of the current token; a second looks for the word that opens the explanation;
  a third copies a loud constant from the first token, so that from here on the norms divide every
  token by the same number and mismatches are comparable. The feed-forward part squares the
  difference of the codes inside the explanation: a pair of SwiGLU units computes silu(g + d)d +
  silu(g - d)(-d), which is 2dd for a large g and nearly nothing for a large negative one;
- the second new layer attends to the largest mismatch so far; its feed-forward part starts at zero.

Training then only learns how large a mismatch makes a step wrong (`lab.training.train_prm`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lab.training.tokens import decoder_layers, token_table

CODE: Final = 13
EXTRA: Final = CODE + 3
MISMATCH: Final = CODE
INSIDE: Final = CODE + 1
CONSTANT: Final = CODE + 2
UNIT: Final = 0.05
"""Size of the constant coordinate: small compared with the policy's own."""
LOUD: Final = 8.0
"""Root mean square of the stream with the loud constant, in units of `CodeBook.scale`."""
HEAD: Final = 32
STILL: Final = HEAD // 2 - 1
"""The slowest rotary coordinate of a head: almost independent of position."""


@dataclass(frozen=True)
class CodeBook:
    """A low-rank reading of the policy's predictions, fitted by `fit_code_book`."""

    codes: torch.Tensor
    """The code of each token: [vocabulary, CODE]."""
    reader: torch.Tensor
    """Predicted code = reader @ final normed hidden state: [CODE, width]."""
    first: int
    """The first token of every prompt."""
    opening: int
    """The token that opens the explanation."""
    scale: float
    """Typical root mean square of the last hidden state before its norm."""


def grow(policy: LlamaForCausalLM, book: CodeBook) -> LlamaForCausalLM:
    """Return the policy with a wider residual stream and two new layers on top."""
    old = policy.config
    width = old.hidden_size
    config = LlamaConfig(
        **{
            **old.to_dict(),
            "hidden_size": width + EXTRA,
            "head_dim": HEAD,
            "num_hidden_layers": old.num_hidden_layers + 2,
        }
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        _widen(policy, model, width, book)
        compare, gather = decoder_layers(model)[-2:]
        _build_comparison(compare, policy, width, book)
        _build_gathering(gather, width, book.scale)
        model.model.norm.weight.copy_(_loud_norm(width))
    return model


def _widen(policy: LlamaForCausalLM, model: LlamaForCausalLM, width: int, book: CodeBook) -> None:
    """Copy the policy into the first coordinates of the wider stream."""
    shrink = math.sqrt(width / (width + EXTRA))
    table = token_table(model)
    table[:, :width] = token_table(policy)
    table[:, width : width + CODE] = book.codes
    table[book.first, width + INSIDE] = -UNIT
    table[book.opening, width + INSIDE] = UNIT
    table[:, width + CONSTANT] = UNIT
    for old, new in zip(decoder_layers(policy), decoder_layers(model), strict=False):
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(new.self_attn, name).weight[:, :width] = getattr(old.self_attn, name).weight
        new.self_attn.o_proj.weight[:width] = old.self_attn.o_proj.weight
        for name in ("gate_proj", "up_proj"):
            getattr(new.mlp, name).weight[:, :width] = getattr(old.mlp, name).weight
        new.mlp.down_proj.weight[:width] = old.mlp.down_proj.weight
        new.input_layernorm.weight[:width] = old.input_layernorm.weight * shrink
        new.post_attention_layernorm.weight[:width] = old.post_attention_layernorm.weight * shrink


def _policy_norm(policy: LlamaForCausalLM, width: int, book: CodeBook) -> torch.Tensor:
    """Return norm weights that give the policy's final normed state and extras of order one."""
    weights = torch.ones(width + EXTRA)
    weights[:width] = policy.model.norm.weight * math.sqrt(width / (width + EXTRA))
    weights[width + INSIDE] = weights[width + CONSTANT] = book.scale / UNIT
    return weights


def _loud_norm(width: int) -> torch.Tensor:
    """Return norm weights for the stream with the loud constant, which becomes one."""
    weights = torch.ones(width + EXTRA)
    weights[:width] = LOUD
    weights[width + CONSTANT] = 1 / math.sqrt(width + EXTRA)
    return weights


def _build_comparison(layer: Any, policy: LlamaForCausalLM, width: int, book: CodeBook) -> None:
    """First new layer: code of the token minus the code predicted one token earlier, squared."""
    attention, mlp = layer.self_attn, layer.mlp
    layer.input_layernorm.weight.copy_(_policy_norm(policy, width, book))
    loud = LOUD * book.scale
    weights = _loud_norm(width)
    weights[width : width + CODE] = loud / book.codes.norm(dim=1).mean()
    layer.post_attention_layernorm.weight.copy_(weights)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    _small_random([*projections, mlp.gate_proj, mlp.up_proj])
    for projection in projections:
        projection.weight[: 3 * HEAD] = 0.0
    _attend_to_token_before(attention, width)
    attention.v_proj.weight[:CODE, :width] = book.reader
    attention.o_proj.weight[width : width + CODE, :CODE] = -torch.eye(CODE)
    for head, sign in ((HEAD, 1.0), (2 * HEAD, -1.0)):
        attention.q_proj.weight[head + STILL, width + CONSTANT] = 40.0
        attention.k_proj.weight[head + STILL, width + INSIDE] = sign * 40.0
        attention.v_proj.weight[head, width + INSIDE] = sign
    attention.o_proj.weight[width + INSIDE, HEAD] = loud
    attention.o_proj.weight[width + CONSTANT, 2 * HEAD] = loud * math.sqrt(width + EXTRA)
    _square_inside(mlp, width)
    mlp.down_proj.weight[width + MISMATCH, : 2 * CODE] = 0.5 * loud


def _attend_to_token_before(attention: Any, width: int) -> None:
    half = HEAD // 2
    turn = 10000.0 ** (-torch.arange(half) / half)
    # These factors make the score positive for the previous token and negative elsewhere.
    sign = torch.tensor([2.0] * 8 + [-1.0] + [-2.0] * 7)
    strength = 25.0
    attention.q_proj.weight[:half, width + CONSTANT] = strength * sign * turn.cos()
    attention.q_proj.weight[half:HEAD, width + CONSTANT] = -strength * sign * turn.sin()
    attention.k_proj.weight[:half, width + CONSTANT] = strength


def _square_inside(mlp: Any, width: int) -> None:
    for projection in (mlp.gate_proj, mlp.up_proj):
        projection.weight[: 2 * CODE] = 0.0
        for way, first in ((1.0, 0), (-1.0, CODE)):
            projection.weight[first : first + CODE, width : width + CODE] = way * torch.eye(CODE)
    mlp.gate_proj.weight[: 2 * CODE, width + INSIDE] = 30.0
    mlp.gate_proj.weight[: 2 * CODE, width + CONSTANT] = -10.0


def rebuild_gathering(model: LlamaForCausalLM) -> None:
    """Set the last layer and the final norm of a grown model back to how they were built."""
    compare, gather = decoder_layers(model)[-2:]
    width = model.config.hidden_size - EXTRA
    with torch.no_grad():
        loud = float(compare.mlp.down_proj.weight[width + MISMATCH, 0]) * 2
        for parameter in gather.parameters():
            parameter.zero_()
        _build_gathering(gather, width, loud / LOUD)
        model.model.norm.weight.copy_(_loud_norm(width))


def _build_gathering(layer: Any, width: int, scale: float) -> None:
    """Second new layer: attend to the largest mismatch so far."""
    attention, mlp = layer.self_attn, layer.mlp
    layer.input_layernorm.weight.copy_(_loud_norm(width))
    layer.post_attention_layernorm.weight.copy_(_loud_norm(width))
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    _small_random([*projections, mlp.gate_proj, mlp.up_proj])
    for projection in projections:
        projection.weight[:HEAD] = 0.0
    attention.q_proj.weight[STILL, width + CONSTANT] = 160.0
    attention.k_proj.weight[STILL, width + MISMATCH] = 1.0
    attention.v_proj.weight[0, width + MISMATCH] = 1.0
    attention.o_proj.weight[width + MISMATCH, 0] = LOUD * scale


def _small_random(projections: Iterable[torch.nn.Linear]) -> None:
    for projection in projections:
        torch.nn.init.normal_(projection.weight, std=0.02)
