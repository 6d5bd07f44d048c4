"""Forward passes over packs: tokens of many traces in one row, common prefixes computed once.

Token sequences form a tree: what several traces begin with is one node. The candidates of a problem
share system turn, evidence and question; traces with different documents share less, and unrelated
ones nothing. The tree depends on the token ids only.

The linear layers run over all tokens of a pack at once, without padding. In attention every node
attends to itself causally, and the tokens below a shared node attend to its keys in one product,
without copies. The parts are combined through the logarithms of their softmax sums. Where the fused
kernel does not return those (anywhere but on the CPU), a node attends to its whole sequence at
once, with its past prepended.

`inference.local.shared_attention` does the same for generation, with one new token per row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from inference import is_out_of_memory
from scoring.family import LaidOutTrace

_LEAST_SAVED = 0.05
"""Least share of the remaining tokens that a shared node must save. Below it, combining the two
attentions costs more than the linear layers that are spared."""

Ids = tuple[int, ...]
"""Token ids."""


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens: a prefix that several traces share, or the rest of one trace."""

    ids: Ids
    """The tokens, at least one."""
    parent: Node | None = None
    """The tokens before these; None at the start of a sequence."""
    trace: int | None = None
    """Number of the trace that ends here; None if the tokens are shared."""
    read_at: tuple[int, ...] = ()
    """Places in `ids` whose hidden states are read, in the order of the trace's reading positions.
    """
    start: int = field(init=False)
    """0-based position of the first token in its sequences."""

    def __post_init__(self) -> None:
        self.start = 0 if self.parent is None else self.parent.start + len(self.parent.ids)

    def above(self) -> Iterator[Node]:
        """Yield the nodes before this one, nearest first."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent


def plant(traces: Sequence[LaidOutTrace], *, share: bool) -> list[Node]:
    """Return the nodes of all traces in depth-first order, every parent before its children.

    Args:
        traces: laid out, each with at least one reading position.
        share: whether common prefixes are computed once; else every trace is one node, short ones
            first.
    """
    if share:
        return list(_grow(traces))
    order = sorted(range(len(traces)), key=lambda number: len(traces[number].ids))
    return [_leaf(traces, number, None) for number in order]


def _grow(traces: Sequence[LaidOutTrace]) -> Iterator[Node]:
    """Split the traces, sorted by their ids, where they diverge; depth first."""
    # Hidden states are read in a trace's own tokens only, never in shared nodes.
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
    """Return the tokens of a trace after `parent`."""
    depth = 0 if parent is None else parent.start + len(parent.ids)
    places = (place - depth for positions in traces[number].read_at for place in positions)
    return Node(traces[number].ids[depth:], parent, number, tuple(places))


def _common(a: Ids, b: Ids) -> int:
    """Return how many leading tokens two sequences share."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


ATTENTION = "stepgold_pack"
"""Name under which the attention is registered with transformers."""

KeysValues = tuple[Tensor, Tensor]
"""One layer's keys and values of a node, each `[1, key-value heads, tokens, head width]`."""
Past = dict[Node, list[KeysValues]]
"""The keys and values of shared nodes, layer by layer."""


@dataclass(slots=True)
class PackView:
    """Which tokens of a pack belong to which node, for the attention of every layer."""

    nodes: Sequence[Node]
    """The pack, in the order of the tree."""
    past: Mapping[Node, Sequence[KeysValues]]
    """Shared nodes of earlier packs that precede tokens of this one."""
    keep: frozenset[Node]
    """Shared nodes of this pack that precede later ones."""
    joined: bool
    """Whether past and own tokens are attended to separately and combined (the CPU's kernel can).
    """
    kept: Past = field(default_factory=dict)
    """Filled in layer by layer: keys and values of the nodes in `keep`."""
    spans: dict[Node, slice] = field(init=False)
    """The tokens of each node."""
    below: dict[Node, slice] = field(init=False)
    """The tokens after each shared node; contiguous, since the nodes are in tree order."""

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
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None
    ) -> Tensor:
        """Return one layer's attention; transposes `[1, heads, tokens, width]` to tokens first."""
        for node, layers in self.kept.items():
            span = self.spans[node]
            # Contiguous, so that later packs read each head's keys without gaps.
            layers.append((key[:, :, span].contiguous(), value[:, :, span].contiguous()))
        work = self._joined if self.joined else self._whole
        return work(layer, query, key, value, scale)

    def _of(self, node: Node, layer: int, key: Tensor, value: Tensor) -> KeysValues:
        """Return keys and values of a shared node, from this pack or an earlier one."""
        if node in self.kept:
            return self.kept[node][-1]
        if node in self.spans:
            span = self.spans[node]
            return key[:, :, span], value[:, :, span]
        return self.past[node][layer]

    def _joined(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None
    ) -> Tensor:
        """Attend to own tokens node by node, then to each shared node for all tokens after it."""
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
        """Attend from every node to its whole sequence, with past keys before its own."""
        parts = []
        for node, span in self.spans.items():
            own = [self._of(shared, layer, key, value) for shared in reversed(list(node.above()))]
            own.append((key[:, :, span], value[:, :, span]))
            keys, values = (torch.cat(part, dim=2) for part in zip(*own, strict=True))
            mask = causal_lower_right(span.stop - span.start, keys.shape[2])
            parts.append(
                scaled_dot_product_attention(
                    query[:, :, span],
                    keys,
                    values,
                    attn_mask=mask,
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
    """Return the attention of a pack; plain attention without one.

    Args:
        module: the attention layer; `layer_idx` is its number.
        query: `[1, heads, tokens, head width]`.
        key: `[1, key-value heads, tokens, head width]`.
        value: as `key`.
        attention_mask: as transformers passes it; None for a pack.
        scaling: factor on the logits; None for `1 / sqrt(head width)`.
        pack: passed through the model's forward as a keyword.
        kwargs: other arguments of the model; `prepare` detects those that change the result.
    """
    if pack is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return plain
    layer = cast(int, module.layer_idx)
    return pack.attend(layer, query, key, value, scale=scaling), None


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, scale: float | None, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Run the CPU's fused attention; grouped heads need no copies.

    Returns:
        `[1, heads, tokens, head width]`, and float32 `[1, heads, tokens]`: the logarithm of the
        softmax's sum, scale included.
    """
    out, mass = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, 0.0, causal, scale=scale
    )
    return out, mass


AttentionInterface.register(ATTENTION, pack_attention)


_CHECKED = ((5, 9, 2, 7, 11, 3, 8, 13), (5, 9, 2, 7, 11, 3, 1, 6, 4), (12, 10, 2, 6, 7))
"""Sequences of the check: two with a common prefix, one without."""
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of hidden states, as a share of their largest value; 0.05 for half precision.
"""


class Forward(Protocol):
    """Runs packs through one model."""

    @property
    def shares(self) -> bool:
        """Whether common prefixes are computed once."""

    @property
    def why(self) -> str | None:
        """Why they are not; None if they are."""

    def tokens(self, pack: Sequence[Node]) -> int:
        """Return the tokens that a forward pass of this pack computes, padding included."""

    def hidden(self, pack: Sequence[Node], following: Node | None) -> Tensor:
        """Run a pack.

        Args:
            pack: nodes in the order of the tree; their ancestors are in it or came before.
            following: the first node of the next pack; None at the end of the tree.

        Returns:
            `[reading positions, width]`: the last hidden states, node by node.
        """

    def keep_for(self, following: Node | None) -> None:
        """Free what no pack from `following` on depends on (None: everything).

        Separate from `hidden`, because a pack whose read-out ran out of memory is run again in
        parts.
        """


class PackedForward:
    """All tokens of a pack in one row, without padding; shared nodes are computed once."""

    shares, why = True, None

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a model that gives hidden states with this module's attention; see `prepare`."""
        self._model = model
        self._past: Past = {}

    def tokens(self, pack: Sequence[Node]) -> int:
        """Return the tokens of the pack."""
        return sum(len(node.ids) for node in pack)

    @torch.inference_mode()
    def hidden(self, pack: Sequence[Node], following: Node | None) -> Tensor:
        """Run a pack; keep keys and values of the nodes that precede `following`."""
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
        """Keep keys and values of the nodes that precede `following` only."""
        needed = frozenset(following.above() if following is not None else ())
        self._past = {node: layers for node, layers in self._past.items() if node in needed}


class PaddedForward:
    """Whole traces as a right-padded batch, for models whose attention cannot be shared.

    Causal models never attend to later tokens: no mask is needed.
    """

    shares = False

    def __init__(self, model: PreTrainedModel, *, why: str | None = None) -> None:
        """Take a model that gives hidden states, and the reason for padding."""
        self._model, self.why = model, why

    def tokens(self, pack: Sequence[Node]) -> int:
        """Return the tokens of the padded batch."""
        return len(pack) * max((len(node.ids) for node in pack), default=0)

    @torch.inference_mode()
    def hidden(self, pack: Sequence[Node], following: Node | None) -> Tensor:
        """Run whole traces; `following` is not used."""
        longest = max(len(node.ids) for node in pack)
        ids = torch.tensor([node.ids + (0,) * (longest - len(node.ids)) for node in pack])
        places = [(row, place) for row, node in enumerate(pack) for place in node.read_at]
        device = self._model.device
        rows, columns = torch.tensor(places, device=device).view(-1, 2).T
        output = self._model(input_ids=ids.to(device), use_cache=False)
        hidden: Tensor = output.last_hidden_state[rows, columns]
        return hidden

    def keep_for(self, following: Node | None) -> None:
        """Do nothing: nothing is kept between packs."""


def prepare(model: PreTrainedModel) -> Forward:
    """Return the fastest forward that is right for this model: shared if verified, else padded."""
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
    """Return how a small tree differs from whole sequences under plain attention; None if it does
    not."""
    size = int(model.config.vocab_size)
    traces = [
        LaidOutTrace("", tuple(i % size for i in ids), ((len(ids) - 2, len(ids) - 1),))
        for ids in _CHECKED
    ]
    nodes = plant(traces, share=True)
    shared = PackedForward(model)
    # Two packs, so that keys and values of an earlier pack are used too.
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
