"""Attention over a pack: tokens of many traces in one row, each seeing its own sequence alone.

The linear layers run over all tokens of a pack at once, without padding. Here every node attends to
itself causally, and the tokens below a shared node meet its keys in one product: nothing is copied or
repeated. The parts are joined through the logarithms of their softmax sums. Where the fused kernel
does not give those (anywhere but on the processor), a node attends to its whole sequence at once,
its past laid before it.

A sibling of `inference.prefix_sharing`, which writes one token a row; this one reads many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from scoring.engine_tree import Node

ATTENTION = "stepgold_pack"
"""Name under which the attention is registered with transformers."""

KeysValues = tuple[Tensor, Tensor]
"""One layer's keys and values of a node, each `[1, key-value heads, tokens, head width]`."""
Past = dict[Node, list[KeysValues]]
"""The keys and values of shared nodes, layer by layer."""


@dataclass(slots=True)
class PackView:
    """Which tokens of a pack are whose, for the attention of every layer."""

    nodes: Sequence[Node]
    """The pack: nodes in the order of the tree."""
    past: Mapping[Node, Sequence[KeysValues]]
    """Shared nodes of earlier packs that tokens of this one stand behind."""
    keep: frozenset[Node]
    """Shared nodes of this pack that later ones stand behind."""
    joined: bool
    """Whether past and own tokens are attended to apart and joined (the processor's kernel can)."""
    kept: Past = field(default_factory=dict)
    """Filled in layer by layer: keys and values of the nodes in `keep`."""
    spans: dict[Node, slice] = field(init=False)
    """The tokens of each node."""
    below: dict[Node, slice] = field(init=False)
    """The tokens that stand behind each shared node; contiguous, as the tree is in order."""

    def __post_init__(self) -> None:
        self.spans, self.below = {}, {}
        end = 0
        for node in self.nodes:
            begin, end = end, end + len(node.ids)
            self.spans[node] = slice(begin, end)
            for shared in node.above():
                first = self.below[shared].start if shared in self.below else begin
                self.below[shared] = slice(first, end)
        self.kept = {node: [] for node in self.nodes if node in self.keep}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None
    ) -> Tensor:
        """Attention of one layer: `[1, heads, tokens, head width]` in, `[1, tokens, heads, ...]` out."""
        for node, layers in self.kept.items():
            span = self.spans[node]
            # Heads apart, so that later packs stride through one head's keys without gaps.
            layers.append((key[:, :, span].contiguous(), value[:, :, span].contiguous()))
        work = self._joined if self.joined else self._whole
        return work(layer, query, key, value, scale)

    def _of(self, node: Node, layer: int, key: Tensor, value: Tensor) -> KeysValues:
        """Keys and values of a shared node, from this pack or an earlier one."""
        if node in self.kept:
            return self.kept[node][-1]
        if node in self.spans:
            span = self.spans[node]
            return key[:, :, span], value[:, :, span]
        return self.past[node][layer]

    def _joined(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None
    ) -> Tensor:
        """Own tokens node by node, then shared ones for all tokens behind them at once."""
        _, heads, tokens, width = query.shape
        if len(self.nodes) == 1 and not self.below:
            return _attend(query, key, value, scale, causal=True)[0].transpose(1, 2)
        out = query.new_empty((1, tokens, heads, width))
        exact = torch.promote_types(query.dtype, torch.float32)
        mass = torch.empty((1, tokens, heads), dtype=exact, device=query.device)
        for span in self.spans.values():
            own, own_mass = _attend(
                query[:, :, span], key[:, :, span], value[:, :, span], scale, causal=True
            )
            out[:, span], mass[:, span] = own.transpose(1, 2), own_mass.transpose(1, 2)
        for shared, span in self.below.items():
            keys, values = self._of(shared, layer, key, value)
            past, past_mass = _attend(query[:, :, span], keys, values, scale, causal=False)
            past, past_mass = past.transpose(1, 2), past_mass.transpose(1, 2)
            weight = torch.sigmoid(past_mass - mass[:, span]).unsqueeze(-1).to(out.dtype)
            out[:, span].lerp_(past, weight)
            torch.logaddexp(mass[:, span], past_mass, out=mass[:, span])
        return out

    def _whole(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None
    ) -> Tensor:
        """Every node against its whole sequence, past and own keys laid one behind the other."""
        parts = []
        for node, span in self.spans.items():
            own = [self._of(shared, layer, key, value) for shared in reversed(list(node.above()))]
            own.append((key[:, :, span], value[:, :, span]))
            keys, values = (torch.cat(part, dim=2) for part in zip(*own, strict=True))
            behind = causal_lower_right(span.stop - span.start, keys.shape[2])
            parts.append(
                scaled_dot_product_attention(
                    query[:, :, span],
                    keys,
                    values,
                    attn_mask=behind,
                    scale=scale,
                    enable_gqa=query.shape[1] != keys.shape[1],
                )
            )
        return torch.cat(parts, dim=2).transpose(1, 2)


def pack_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    pack: PackView | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention of a pack; plain attention where none is given.

    Args:
        module: the attention layer; `layer_idx` is its number.
        query: `[1, heads, tokens, head width]`.
        key: `[1, key-value heads, tokens, head width]`.
        value: as `key`.
        attention_mask: as transformers hands it over; None for a pack.
        scaling: factor on the logits; None for `1 / sqrt(head width)`.
        pack: handed through the model's forward as a keyword.
        kwargs: what else the model gives; what changes the result is found out by `sharing_works`.
    """
    if pack is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return plain
    return pack.attend(int(module.layer_idx), query, key, value, scaling), None  # type: ignore[arg-type]


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, scale: float | None, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """The processor's fused attention; grouped heads need no copies.

    Returns:
        `[1, heads, tokens, head width]`, and float32 `[1, heads, tokens]`: the logarithm of the
        softmax's sum, scale included.
    """
    out, mass = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, 0.0, causal, scale=scale
    )
    return out, mass


AttentionInterface.register(ATTENTION, pack_attention)
