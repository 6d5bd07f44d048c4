"""Forward passes: a pack of nodes in, the hidden states that are read out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.device_memory import is_out_of_memory
from scoring.engine_attention import ATTENTION, PackView, Past
from scoring.engine_tree import Node, plant
from scoring.family import LaidOutTrace

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
        """Take a model with the attention of `scoring.engine_attention`.

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
