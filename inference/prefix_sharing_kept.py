"""Prefilled prefixes that are kept for the next round: asked for again, only new tokens are computed.

Kept is what fits. A prefix that does not fit is not taken in, and none is thrown out for it: rounds come
back to all open traces in turn, and whoever throws out the oldest then has nothing that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from inference.cache_argument import kept_in
from inference.prefix_sharing import PrefixLayer, prefill

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """One prefilled prefix."""

    ids: Ids
    """Its tokens."""
    layers: tuple[PrefixLayer, ...]
    """One per layer of the model, without padding, for one trace."""
    shift: int = 0
    """What is added to the place of a token behind it to get its position; see `prefix_sharing_heads`."""

    def cut(self, tokens: int) -> Kept:
        """Its first tokens (a view)."""
        layers = [PrefixLayer(one.keys[..., :tokens, :], one.values[..., :tokens, :]) for one in self.layers]  # fmt: skip
        return Kept(self.ids[:tokens], tuple(layers), self.shift)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a trace begins with that is prefilled elsewhere."""

    tokens: int
    """How many tokens it has."""
    prefilled: Callable[[], Kept]
    """Gives it, where it is not kept as part of the trace."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The traces of a group, ready to be continued."""

    layers: list[PrefixLayer]
    """One per layer of the model, right-padded, rows in the order asked."""
    computed: list[int]
    """How many tokens of each trace were computed now."""
    shifts: list[int]
    """What is added to places in each trace, behind its images, to get positions; 0 for text."""


class KeptPrefixes:
    """Prefixes by name, at most `budget` tokens of them."""

    def __init__(self, budget: int) -> None:
        """Keep nothing yet.

        Args:
            budget: key-value positions kept at most; 0 keeps nothing.
        """
        self.budget = budget
        self._by_name: dict[Hashable, Kept] = {}

    @property
    def tokens(self) -> int:
        """Key-value positions kept now."""
        return sum(len(one.ids) for one in self._by_name.values())

    def release(self, names: Iterable[Hashable]) -> None:
        """Let prefixes go; names that are not kept are no fault."""
        for name in names:
            self._by_name.pop(name, None)

    def prefill(
        self,
        model: PreTrainedModel,
        asked: Sequence[tuple[Hashable | None, Ids]],
        beginnings: Sequence[Beginning | None] | None = None,
    ) -> Prefilled:
        """Keys and values of all traces of a group.

        Args:
            model: loaded with the shared-prefix attention.
            asked: name and tokens of each trace, at least one token; what has no name is not kept.
            beginnings: what each trace begins with that is prefilled elsewhere; None for nothing.
        """
        heads = beginnings or [None] * len(asked)
        known = [self._known(*one, head) for one, head in zip(asked, heads, strict=True)]
        computed = [len(ids) - len(one.ids if one else ()) for (_, ids), one in zip(asked, known, strict=True)]  # fmt: skip
        if not any(known):
            layers = prefill(model, [ids for _, ids in asked])
            for row, (name, ids) in enumerate(asked):
                if name is not None:
                    self._keep(name, _row(layers, row, ids))
            return Prefilled(layers, computed, [0] * len(asked))
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
        return Prefilled(_together(whole), computed, [one.shift for one in whole])

    def _known(self, name: Hashable | None, ids: Ids, head: Beginning | None) -> Kept | None:
        """What is prefilled of a trace; None for nothing."""
        kept = None if name is None else self._by_name.get(name)
        shared = 0 if kept is None else common_tokens(kept.ids, ids)
        if kept is not None and shared and (head is None or shared >= head.tokens):
            return kept.cut(shared)
        return None if head is None else head.prefilled()

    def _keep(self, name: Hashable, prefix: Kept) -> None:
        before = self._by_name.pop(name, None)
        if self.tokens + len(prefix.ids) <= self.budget:
            own = [PrefixLayer(one.keys.clone(), one.values.clone()) for one in prefix.layers]
            self._by_name[name] = Kept(prefix.ids, tuple(own), prefix.shift)
        elif before is not None:
            self._by_name[name] = before


@torch.inference_mode()
def extend(model: PreTrainedModel, pasts: Sequence[Kept], ids: Sequence[Ids]) -> list[Kept]:
    """Compute what stands behind prefilled prefixes, all traces in one forward.

    Args:
        model: loaded with the shared-prefix attention.
        pasts: what is known of each trace, at least one token.
        ids: all tokens of each trace; they begin with those of its past and go on.
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
        **kept_in(model.base_model, cache),
    )
    layers: list[Any] = cache.layers
    return [
        Kept(
            one,
            tuple(_joined(layer, row, len(past.ids), seen, len(one)) for layer in layers),
            past.shift,
        )
        for row, (past, one) in enumerate(zip(pasts, ids, strict=True))
    ]


def common_tokens(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    for place, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return place
    return min(len(a), len(b))


def _visible(known: Tensor, seen: int, steps: Tensor) -> Tensor:
    """Bool `[traces, 1, new, seen + new]`: a new token sees its trace's past, itself and new ones before."""
    past = torch.arange(seen, device=known.device) < known.unsqueeze(1)
    own = steps <= steps.unsqueeze(1)
    rows, new = len(known), len(steps)
    return torch.cat(
        [past[:, None, None].expand(rows, 1, new, seen), own.expand(rows, 1, new, new)], dim=-1
    )


def _joined(layer: Any, row: int, known: int, seen: int, whole: int) -> PrefixLayer:
    """One trace's past and new tokens behind each other, without what padded them."""
    keys, values = (
        torch.cat([part[row : row + 1, :, :known], part[row : row + 1, :, seen : seen + whole - known]], dim=2)
        for part in (layer.keys, layer.values)
    )  # fmt: skip
    return PrefixLayer(keys, values)


def _row(layers: Sequence[PrefixLayer], row: int, ids: Ids) -> Kept:
    """One trace of a padded group (a view)."""
    one = slice(row, row + 1)
    cut = [PrefixLayer(each.keys[one, :, : len(ids)], each.values[one, :, : len(ids)]) for each in layers]  # fmt: skip
    return Kept(ids, tuple(cut))


def _together(prefixes: Sequence[Kept]) -> list[PrefixLayer]:
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
