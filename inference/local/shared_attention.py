"""Attention of many continuations over one copy of their prefix.

A trace is prefilled once. Each continuation (a *row*) sees a cut of that key-value cache followed
by its own tokens. Nothing is copied: for each trace, the queries of all its rows meet the trace's
keys in one product, their own tokens are attended separately, and the two softmaxes are combined
through their log-sums. Any transformers model that takes its attention from `AttentionInterface`
works; `assert_sharing_works` proves it for a model.

Prefilled prefixes are cached for the next round, which then computes only new tokens. A prefix that
does not fit is not cached, and none is evicted for it: rounds revisit all open traces in turn, so
evicting the oldest would always evict what is needed next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from inference.local.checkpoints import cache_keywords

ATTENTION = "stepgold_shared_prefix"
"""Name of the attention in transformers."""


@dataclass(frozen=True, slots=True)
class PrefixLayer:
    """One layer's keys and values of all traces of a group, right-padded."""

    keys: Tensor
    """`[traces, key-value heads, tokens, head width]`, as are the values."""
    values: Tensor


class SharedPrefix:
    """The prefilled traces of a group, and which row continues which cut of which trace."""

    def __init__(self, layers: Sequence[PrefixLayer], trace_of: Tensor, cuts: Tensor) -> None:
        """Lay the rows out as a grid of traces by slots.

        Args:
            layers: one per layer of the model.
            trace_of: int64 `[rows]`, ascending: the trace each row continues.
            cuts: int64 `[rows]`: how many of the trace's tokens the row sees.
        """
        self.layers = layers
        self.trace_of = trace_of
        self.cuts = cuts
        traces, _, tokens, _ = layers[0].values.shape
        counts = torch.bincount(trace_of, minlength=traces)
        first_row = counts.cumsum(0) - counts
        self.slots = int(counts.max())
        rank = torch.arange(len(trace_of), device=trace_of.device) - first_row[trace_of]
        self.cell_of = trace_of * self.slots + rank
        self._full = traces * self.slots == len(trace_of)
        seen = torch.arange(tokens, device=cuts.device) < self.to_grid(cuts.unsqueeze(1))
        least = torch.finfo(layers[0].keys.dtype).min
        hidden = torch.zeros(seen.shape, dtype=layers[0].keys.dtype, device=cuts.device)
        self.bias = hidden.masked_fill_(~seen, least).view(traces, 1, self.slots, tokens)

    def to_grid(self, rows: Tensor) -> Tensor:
        """Put rows `[rows, ...]` in their cells `[traces * slots, ...]`; empty cells are zero."""
        if self._full:
            return rows
        cells = len(self.layers[0].keys) * self.slots
        return rows.new_zeros((cells, *rows.shape[1:])).index_copy_(0, self.cell_of, rows)

    def from_grid(self, cells: Tensor) -> Tensor:
        """Take the rows back out of their cells."""
        return cells if self._full else cells[self.cell_of]

    def select(self, rows: Tensor) -> SharedPrefix:
        """Keep the given rows (ascending indices); traces without rows are dropped."""
        traces, trace_of = torch.unique_consecutive(self.trace_of[rows], return_inverse=True)
        layers = self.layers
        if len(traces) < len(layers[0].keys):
            layers = [PrefixLayer(layer.keys[traces], layer.values[traces]) for layer in layers]
        return SharedPrefix(layers, trace_of, self.cuts[rows])


class OwnTokens(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers is not annotated
    """One layer's keys and values of the rows' own tokens, written in place into one block."""

    def __init__(self, capacity: int) -> None:
        """Reserve `capacity` tokens per row, allocated with the first token."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._capacity = capacity
        self._filled = 0
        self._block: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append one or more tokens per row; return all of the rows' own keys and values."""
        if self._block is None:
            rows, heads, _, width = key_states.shape
            self._block = key_states.new_empty((2, rows, heads, self._capacity, width))
            self.is_initialized = True
        end = self._filled + key_states.shape[2]
        self._block[0, :, :, self._filled : end] = key_states
        self._block[1, :, :, self._filled : end] = value_states
        self._filled = end
        keys, values = self._block[0, :, :, :end], self._block[1, :, :, :end]
        self.keys, self.values = keys, values
        return keys, values

    def select(self, rows: Tensor) -> None:
        """Keep the given rows only."""
        if self._block is not None:
            block = self._block.new_empty((2, len(rows), *self._block.shape[2:]))
            used = slice(0, self._filled)
            for kept, old in zip(block, self._block, strict=True):
                torch.index_select(old[:, :, used], 0, rows, out=kept[:, :, used])
            self._block = block


class OwnCache(Cache):
    """The rows' own tokens in all layers, as a cache that transformers models write into."""

    def __init__(self, layers: int, capacity: int) -> None:
        """Reserve `capacity` tokens per row in each of `layers` layers."""
        self._own = [OwnTokens(capacity) for _ in range(layers)]
        super().__init__(layers=list(self._own))

    def select(self, rows: Tensor) -> None:
        """Keep the given rows only."""
        for layer in self._own:
            layer.select(rows)


@torch.inference_mode()
def prefill(model: PreTrainedModel, ids: Sequence[Sequence[int]]) -> list[PrefixLayer]:
    """Run traces through the model once and keep their keys and values.

    Args:
        model: loaded with `attn_implementation=ATTENTION`.
        ids: token ids of each trace, at least one each. Right padding needs no mask, because a
            causal model's tokens never see later ones.
    """
    longest = max(map(len, ids))
    padded = torch.zeros((len(ids), longest), dtype=torch.int64)
    for row, trace in enumerate(ids):
        padded[row, : len(trace)] = torch.tensor(trace)
    cache = DynamicCache()
    model.base_model(input_ids=padded.to(model.device), **cache_keywords(model.base_model, cache))
    layers: list[Any] = cache.layers
    return [PrefixLayer(layer.keys.contiguous(), layer.values.contiguous()) for layer in layers]


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend to the shared prefix and to the rows' own tokens; plain attention without a prefix.

    Args:
        module: the attention layer; `layer_idx` finds its part of the prefix.
        query: `[rows, heads, 1, head width]`: one new token per row.
        key: `[rows, key-value heads, own tokens, head width]`, including the new token.
        value: as `key`.
        attention_mask: as transformers passes it; None while a prefix is shared.
        scaling: factor on the logits; None for `1 / sqrt(head width)`.
        kwargs: passed through the model's forward: `shared_prefix` (`SharedPrefix`), or, where
            several tokens per row follow pasts of different lengths, `extension_mask` (bool
            `[rows, 1, queries, keys]`).
    """
    shared_prefix: SharedPrefix | None = kwargs.pop("shared_prefix", None)
    extension_mask: Tensor | None = kwargs.pop("extension_mask", None)
    if shared_prefix is None:
        mask = attention_mask if extension_mask is None else extension_mask
        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, mask, scaling=scaling, **kwargs
        )
        return plain
    rows, heads, _, width = query.shape
    kv_heads = key.shape[1]
    query = query.view(rows, kv_heads, heads // kv_heads, width)
    query = query * (width**-0.5 if scaling is None else scaling)
    own, own_mass = _attend(query, key.transpose(-1, -2), value, None)
    layer = shared_prefix.layers[int(module.layer_idx)]  # type: ignore[arg-type]
    past, past_mass = _attend_prefix(query, layer, shared_prefix)
    weight = torch.sigmoid(past_mass - own_mass).to(own.dtype)
    joined = torch.lerp(own, past, weight)
    return joined.reshape(rows, 1, heads, width), None


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Softmax attention in float32, and the log of its unnormalized mass (last axis 1)."""
    logits = torch.matmul(query, keys)
    if bias is not None:
        logits += bias
    logits = logits.float()
    shares = logits.softmax(dim=-1)
    # The total mass is that of the largest part divided by its share: no second exponential.
    mass = logits.amax(dim=-1, keepdim=True) - shares.amax(dim=-1, keepdim=True).log()
    return torch.matmul(shares.to(values.dtype), values), mass


def _attend_prefix(
    query: Tensor, layer: PrefixLayer, shared: SharedPrefix
) -> tuple[Tensor, Tensor]:
    """Attend to the prefix with all rows of a trace at once; rows in, rows out."""
    traces, slots = len(layer.keys), shared.slots
    kv_heads, group, width = query.shape[1:]
    grid = shared.to_grid(query).view(traces, slots, kv_heads, group, width)
    grid = grid.permute(0, 2, 3, 1, 4).reshape(traces, kv_heads, group * slots, width)
    bias = shared.bias.repeat(1, 1, group, 1) if group > 1 else shared.bias
    if grid.device.type == "cpu" and grid.dtype == torch.float32:
        # Fused, block by block in the CPU's cache: a quarter of the time of separate products.
        out, mass = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            grid, layer.keys, layer.values, 0.0, False, attn_mask=bias, scale=1.0
        )
        mass = mass.unsqueeze(-1)
    else:
        out, mass = _attend(grid, layer.keys.transpose(-1, -2), layer.values, bias)
    out, mass = (
        shared.from_grid(
            part.view(traces, kv_heads, group, slots, -1)
            .permute(0, 3, 1, 2, 4)
            .reshape(traces * slots, kv_heads, group, -1)
        )
        for part in (out, mass)
    )
    return out, mass


AttentionInterface.register(ATTENTION, shared_prefix_attention)


Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PrefilledPrefix:
    """A prefilled prefix of one trace."""

    ids: Ids
    layers: tuple[PrefixLayer, ...]
    """One per layer of the model, without padding."""
    shift: int = 0
    """Added to the index of a later token to get its position; nonzero after images."""

    def cut(self, tokens: int) -> PrefilledPrefix:
        """Its first tokens (a view)."""
        layers = [
            PrefixLayer(one.keys[..., :tokens, :], one.values[..., :tokens, :])
            for one in self.layers
        ]
        return PrefilledPrefix(self.ids[:tokens], tuple(layers), self.shift)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The beginning of a trace that is prefilled elsewhere."""

    tokens: int
    """Number of tokens."""
    prefilled: Callable[[], PrefilledPrefix]
    """Returns it, if it is not cached as part of the trace."""


@dataclass(frozen=True, slots=True)
class PrefilledGroup:
    """The prefilled traces of a group."""

    layers: list[PrefixLayer]
    """One per layer of the model, right-padded, in the order given."""
    computed: list[int]
    """Number of tokens of each trace that were computed now."""
    shifts: list[int]
    """Added to token indices of each trace, after its images, to get positions; 0 for text."""


class PrefixCache:
    """Prefilled prefixes by name, at most `budget` tokens (key-value positions) in total."""

    def __init__(self, budget: int) -> None:
        """An empty cache; a budget of 0 caches nothing."""
        self.budget = budget
        self._by_name: dict[Hashable, PrefilledPrefix] = {}

    @property
    def tokens(self) -> int:
        """Key-value positions cached now."""
        return sum(len(one.ids) for one in self._by_name.values())

    def release(self, names: Iterable[Hashable]) -> None:
        """Remove prefixes; unknown names are ignored."""
        for name in names:
            self._by_name.pop(name, None)

    def prefill(
        self,
        model: PreTrainedModel,
        asked: Sequence[tuple[Hashable | None, Ids]],
        beginnings: Sequence[Beginning | None] | None = None,
    ) -> PrefilledGroup:
        """Keys and values of all traces of a group.

        Args:
            model: loaded with the shared-prefix attention.
            asked: name and tokens of each trace, at least one token; None as name: do not cache it.
            beginnings: the beginning of each trace that is prefilled elsewhere; None without any.
        """
        heads = beginnings or [None] * len(asked)
        known = [self._known(*one, head) for one, head in zip(asked, heads, strict=True)]
        computed = [
            len(ids) - len(one.ids if one else ())
            for (_, ids), one in zip(asked, known, strict=True)
        ]
        if not any(known):
            layers = prefill(model, [ids for _, ids in asked])
            for row, (name, ids) in enumerate(asked):
                if name is not None:
                    self._keep(name, _row(layers, row, ids))
            return PrefilledGroup(layers, computed, [0] * len(asked))
        found = dict(enumerate(known))
        fresh = [row for row, one in enumerate(known) if one is None]
        if fresh:
            layers = prefill(model, [asked[row][1] for row in fresh])
            found |= {row: _row(layers, at, asked[row][1]) for at, row in enumerate(fresh)}
        longer = [row for row, one in enumerate(known) if one is not None and computed[row]]
        if longer:
            pasts = [one for row in longer if (one := known[row]) is not None]
            extended = extend(model, pasts, [asked[row][1] for row in longer])
            found |= dict(zip(longer, extended, strict=True))
        whole = [one for _, one in sorted(found.items()) if one is not None]
        for (name, _), one, new in zip(asked, whole, computed, strict=True):
            if new and name is not None:
                self._keep(name, one)
        return PrefilledGroup(_together(whole), computed, [one.shift for one in whole])

    def _known(
        self, name: Hashable | None, ids: Ids, head: Beginning | None
    ) -> PrefilledPrefix | None:
        """The part of a trace that is already prefilled; None without any."""
        kept = None if name is None else self._by_name.get(name)
        shared = 0 if kept is None else common_tokens(kept.ids, ids)
        if kept is not None and shared and (head is None or shared >= head.tokens):
            return kept.cut(shared)
        return None if head is None else head.prefilled()

    def _keep(self, name: Hashable, prefix: PrefilledPrefix) -> None:
        before = self._by_name.pop(name, None)
        if self.tokens + len(prefix.ids) <= self.budget:
            own = [PrefixLayer(one.keys.clone(), one.values.clone()) for one in prefix.layers]
            self._by_name[name] = PrefilledPrefix(prefix.ids, tuple(own), prefix.shift)
        elif before is not None:
            self._by_name[name] = before


@torch.inference_mode()
def extend(
    model: PreTrainedModel, pasts: Sequence[PrefilledPrefix], ids: Sequence[Ids]
) -> list[PrefilledPrefix]:
    """Compute the rest of traces after prefilled prefixes, all traces in one forward pass.

    Args:
        model: loaded with the shared-prefix attention.
        pasts: the prefilled part of each trace, at least one token.
        ids: all tokens of each trace, more than those of its past.
    """
    device = model.device
    known = torch.tensor([len(past.ids) for past in pasts], device=device)
    shifts = torch.tensor([past.shift for past in pasts], device=device)
    rest = [one[len(past.ids) :] for one, past in zip(ids, pasts, strict=True)]
    seen, new = int(known.max()), max(map(len, rest))
    fed = torch.zeros((len(rest), new), dtype=torch.int64)
    for row, tokens in enumerate(rest):
        fed[row, : len(tokens)] = torch.tensor(tokens)
    cache = DynamicCache()
    for number, layer in enumerate(_together(pasts)):
        cache.update(layer.keys, layer.values, number)
    steps = torch.arange(new, device=device)
    model.base_model(
        input_ids=fed.to(device),
        position_ids=(known + shifts).unsqueeze(1) + steps,
        extension_mask=_visible(known, seen, steps),
        **cache_keywords(model.base_model, cache),
    )
    layers: list[Any] = cache.layers
    return [
        PrefilledPrefix(
            one,
            tuple(
                _joined(layer, row, known=len(past.ids), seen=seen, whole=len(one))
                for layer in layers
            ),
            past.shift,
        )
        for row, (past, one) in enumerate(zip(pasts, ids, strict=True))
    ]


def common_tokens(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading tokens that two sequences share."""
    for place, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return place
    return min(len(a), len(b))


def _visible(known: Tensor, seen: int, steps: Tensor) -> Tensor:
    """Bool `[traces, 1, new, seen + new]`: a token sees the past, earlier new ones, and itself."""
    past = torch.arange(seen, device=known.device) < known.unsqueeze(1)
    own = steps <= steps.unsqueeze(1)
    rows, new = len(known), len(steps)
    return torch.cat(
        [past[:, None, None].expand(rows, 1, new, seen), own.expand(rows, 1, new, new)], dim=-1
    )


def _joined(layer: Any, row: int, *, known: int, seen: int, whole: int) -> PrefixLayer:
    """One trace's past followed by its new tokens, without padding."""
    one, new = slice(row, row + 1), slice(seen, seen + whole - known)
    keys, values = (
        torch.cat([part[one, :, :known], part[one, :, new]], dim=2)
        for part in (layer.keys, layer.values)
    )
    return PrefixLayer(keys, values)


def _row(layers: Sequence[PrefixLayer], row: int, ids: Ids) -> PrefilledPrefix:
    """One trace of a padded group (a view)."""
    one = slice(row, row + 1)
    cut = [
        PrefixLayer(each.keys[one, :, : len(ids)], each.values[one, :, : len(ids)])
        for each in layers
    ]
    return PrefilledPrefix(ids, tuple(cut))


def _together(prefixes: Sequence[PrefilledPrefix]) -> list[PrefixLayer]:
    """Prefixes as one right-padded group."""
    longest = max(len(one.ids) for one in prefixes)
    layers = []
    for number, first in enumerate(prefixes[0].layers):
        _, heads, _, width = first.keys.shape
        keys = first.keys.new_zeros((len(prefixes), heads, longest, width))
        values = first.values.new_zeros((len(prefixes), heads, longest, first.values.shape[-1]))
        for row, one in enumerate(prefixes):
            keys[row, :, : len(one.ids)] = one.layers[number].keys[0]
            values[row, :, : len(one.ids)] = one.layers[number].values[0]
        layers.append(PrefixLayer(keys, values))
    return layers
