"""Attention over a pack: tokens of many traces in one row, each seeing its own sequence alone.

The linear layers run over all tokens of a pack at once, without padding. Here every node attends to
itself causally, and the tokens below a shared node meet its keys in one product: nothing is copied or
repeated. The parts are joined through the logarithms of their softmax sums. Where the fused kernel
does not give those (anywhere but on the processor), a node attends to its whole sequence at once,
its past laid before it.

A sibling of `inference.local.shared_attention`, which writes one token a row; this one reads many.

Token sequences as a tree: what several traces begin with stands in it once.

The candidates of a problem share system turn, evidence and question; traces that got other documents
share less, and unrelated ones nothing. The tree follows from the token ids alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from inference import is_out_of_memory
from scoring.family import LaidOutTrace

_LEAST_SAVED = 0.05
"""A common beginning is computed once if that saves this share of the tokens from there on: below it,
joining the two attentions costs more than the linear layers that are spared."""

Ids = tuple[int, ...]
"""Token ids."""


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens: what the traces below it all begin with, or what one trace has alone."""

    ids: Ids
    """The tokens, at least one."""
    parent: Node | None = None
    """The tokens before these; None at the start of a sequence."""
    trace: int | None = None
    """Number of the trace that ends here; None if the tokens are shared."""
    read_at: tuple[int, ...] = ()
    """Places in `ids` whose hidden states are read, in the order of the trace's reading positions."""
    start: int = field(init=False)
    """0-based position of the first token in its sequences."""

    def __post_init__(self) -> None:
        self.start = 0 if self.parent is None else self.parent.start + len(self.parent.ids)

    def above(self) -> Iterator[Node]:
        """The nodes before this one, nearest first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent


def plant(traces: Sequence[LaidOutTrace], *, share: bool) -> list[Node]:
    """The nodes of all traces, every parent before what is below it, nothing else in between.

    Args:
        traces: laid out, each with at least one reading position.
        share: whether common beginnings are computed once; else every trace is one node, short
            ones first.
    """
    if share:
        return list(_grow(traces))
    order = sorted(range(len(traces)), key=lambda number: len(traces[number].ids))
    return [_leaf(traces, number, None) for number in order]


def _grow(traces: Sequence[LaidOutTrace]) -> Iterator[Node]:
    """Split the traces, sorted by their ids, where they part; depth first."""
    # Hidden states are read in a trace's own tokens only: no node is read for two traces.
    heads = [trace.ids[: min(min(read) for read in trace.read_at if read)] for trace in traces]
    whole = sorted(range(len(traces)), key=heads.__getitem__)
    waiting: list[tuple[list[int], Node | None]] = [(whole, None)] if whole else []
    while waiting:
        numbers, parent = waiting.pop()
        if len(numbers) == 1:
            yield _leaf(traces, numbers[0], parent)
            continue
        depth = 0 if parent is None else parent.start + len(parent.ids)
        first, last = heads[numbers[0]], heads[numbers[-1]]
        common = _common(first, last)
        below = sum(len(traces[number].ids) - depth for number in numbers)
        if (len(numbers) - 1) * (common - depth) > _LEAST_SAVED * below:
            parent = Node(first[depth:common], parent)
            yield parent
        parts = [
            list(part)
            for _, part in groupby(numbers, key=lambda n: heads[n][common : common + 1] or n)
        ]
        waiting += [(part, parent) for part in reversed(parts)]


def _leaf(traces: Sequence[LaidOutTrace], number: int, parent: Node | None) -> Node:
    """What a trace has alone, behind `parent`."""
    depth = 0 if parent is None else parent.start + len(parent.ids)
    places = (place - depth for positions in traces[number].read_at for place in positions)
    return Node(traces[number].ids[depth:], parent, number, tuple(places))


def _common(a: Ids, b: Ids) -> int:
    """How many leading tokens two sequences share."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


# --- Attention over a pack: tokens of many traces in one row, each seeing its own sequence alone


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


# --- Forward passes: a pack of nodes in, the hidden states that are read out


_CHECKED = ((5, 9, 2, 7, 11, 3, 8, 13), (5, 9, 2, 7, 11, 3, 1, 6, 4), (12, 10, 2, 6, 7))
"""Sequences of the proof: two that begin alike, one of its own."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of hidden states, as a share of their largest size; 0.05 for half precision."""


class Forward(Protocol):
    """Runs packs through one model."""

    @property
    def shares(self) -> bool:
        """Whether common beginnings are computed once."""

    @property
    def why(self) -> str | None:
        """Why they are not; None if they are."""

    def tokens(self, pack: Sequence[Node]) -> int:
        """The tokens that a forward of this pack computes, padding included."""

    def hidden(self, pack: Sequence[Node], following: Node | None) -> Tensor:
        """Run a pack.

        Args:
            pack: nodes in the order of the tree; what they stand behind lies in it or came before.
            following: the first node of the next pack; None at the end of the tree.

        Returns:
            `[reading places, width]`: the last hidden states, node by node, place by place.
        """

    def keep_for(self, following: Node | None) -> None:
        """Let go of what no pack from `following` on stands behind (None: of everything).

        Apart from `hidden`, as a pack whose read-out ran out of memory is run again in parts.
        """


class PackedForward:
    """All tokens of a pack in one row, without padding; shared nodes are computed once."""

    shares, why = True, None

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a model with the attention of `scoring.engine.forward`.

        Args:
            model: gives hidden states; see `prepare`.
        """
        self._model = model
        self._past: Past = {}

    def tokens(self, pack: Sequence[Node]) -> int:
        """All tokens of the pack."""
        return sum(len(node.ids) for node in pack)

    @torch.inference_mode()
    def hidden(self, pack: Sequence[Node], following: Node | None) -> Tensor:
        """Run a pack; keys and values are added for the nodes that `following` stands behind."""
        device = self._model.device
        needed = frozenset(following.above() if following is not None else ())
        view = PackView(pack, self._past, needed, joined=device.type == "cpu")
        ids = torch.tensor([i for node in pack for i in node.ids], device=device)
        positions = torch.cat(
            [torch.arange(node.start, node.start + len(node.ids)) for node in pack]
        )
        output = self._model(
            input_ids=ids.unsqueeze(0),
            position_ids=positions.unsqueeze(0).to(device),
            use_cache=False,
            pack=view,
        )
        self._past |= view.kept
        rows = [view.spans[node].start + place for node in pack for place in node.read_at]
        hidden: Tensor = output.last_hidden_state[0, torch.tensor(rows, device=device).long()]
        return hidden

    def keep_for(self, following: Node | None) -> None:
        """Keys and values stay for the nodes that `following` stands behind."""
        needed = frozenset(following.above() if following is not None else ())
        self._past = {node: layers for node, layers in self._past.items() if node in needed}


class PaddedForward:
    """Whole traces side by side, padded on the right; for models whose attention cannot be shared.

    Causal models never look at what stands behind a token: no mask is needed.
    """

    shares = False

    def __init__(self, model: PreTrainedModel, *, why: str | None = None) -> None:
        """Take a model that gives hidden states, and why no faster forward will do."""
        self._model, self.why = model, why

    def tokens(self, pack: Sequence[Node]) -> int:
        """The tokens of the padded batch."""
        return len(pack) * max((len(node.ids) for node in pack), default=0)

    @torch.inference_mode()
    def hidden(self, pack: Sequence[Node], following: Node | None) -> Tensor:
        """Run whole traces; `following` is of no concern."""
        longest = max(len(node.ids) for node in pack)
        ids = torch.tensor([node.ids + (0,) * (longest - len(node.ids)) for node in pack])
        places = [(row, place) for row, node in enumerate(pack) for place in node.read_at]
        device = self._model.device
        rows, columns = torch.tensor(places, device=device).view(-1, 2).T
        output = self._model(input_ids=ids.to(device), use_cache=False)
        hidden: Tensor = output.last_hidden_state[rows, columns]
        return hidden

    def keep_for(self, following: Node | None) -> None:
        """Nothing is kept from pack to pack."""


def prepare(model: PreTrainedModel) -> Forward:
    """The fastest forward that is right for this model: shared if that is proven, else padded."""
    before = model.config._attn_implementation or "eager"
    try:
        model.set_attn_implementation(ATTENTION)
        difference = _difference(model, before)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as fault:
        if is_out_of_memory(fault):
            raise
        difference = f"{type(fault).__name__}: {fault}"
    if difference is None:
        return PackedForward(model)
    model.set_attn_implementation(before)
    return PaddedForward(model, why=difference)


def _difference(model: PreTrainedModel, attention: str) -> str | None:
    """What a small tree gives other than whole sequences under another attention; None if nothing."""
    size = int(model.config.vocab_size)
    traces = [
        LaidOutTrace("", tuple(i % size for i in ids), ((len(ids) - 2, len(ids) - 1),))
        for ids in _CHECKED
    ]
    nodes = plant(traces, share=True)
    shared = PackedForward(model)
    # Cut behind the first nodes, so that keys and values of an earlier pack are used too.
    parts = [shared.hidden(nodes[:2], nodes[2]), shared.hidden(nodes[2:], None)]
    got = torch.cat(parts).float()
    model.set_attn_implementation(attention)
    order = [traces[node.trace] for node in nodes if node.trace is not None]
    alone = [PaddedForward(model).hidden(plant([trace], share=False), None) for trace in order]
    model.set_attn_implementation(ATTENTION)
    wanted = torch.cat(alone).float()
    limit = _TOLERANCE.get(model.dtype, 0.05) * max(float(wanted.abs().max()), 1.0)
    found = float((wanted - got).abs().max())
    return None if found <= limit else f"hidden states differ by {found:.2g}"
