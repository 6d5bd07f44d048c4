"""Packs within a token budget; a pack that runs out of memory goes again in halves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from inference.device_memory import is_out_of_memory, let_go
from scoring.engine_forward import Forward
from scoring.engine_tree import Node
from scoring.engine_work import LayerWork

_NOTED = 1_000
"""Packs whose operations and time are kept."""

ReadOut = Callable[[Tensor, Sequence[Node]], list[float]]
"""Hidden states of a pack's reading places, and its nodes, to one value a place."""


@dataclass(frozen=True, slots=True)
class Read:
    """A trace that was run."""

    trace: int
    """Its number."""
    values: tuple[tuple[float, ...], ...] | None
    """For each model one per reading place, in order; None if not even the trace alone fits into the
    memory."""


class Batches:
    """Runs trees of nodes pack by pack; remembers what the memory did not hold."""

    def __init__(
        self,
        forwards: Sequence[Forward],
        device: torch.device,
        budget: int,
        work: LayerWork,
    ) -> None:
        """Take the forward passes of one model or several.

        Args:
            forwards: run packs; every pack goes through each of them.
            device: where the models lie.
            budget: tokens of one pack, padding included; a longer node goes alone.
            work: what a token costs the models together.
        """
        self._forwards, self._device, self._work = forwards, device, work
        self.passes: list[tuple[float, float]] = []
        """Operations and seconds of each pack that was run, the last thousand."""
        self.budget = budget
        """Tokens of one pack; halved whenever the memory runs out."""

    def run(self, nodes: Sequence[Node], read_outs: Sequence[ReadOut]) -> Iterator[list[Read]]:
        """Run all nodes; yield the traces of each pack as it is done, every trace once.

        Args:
            nodes: in the order of the tree.
            read_outs: for each of the models.
        """
        waiting = deque(nodes)
        while waiting:
            pack = self._take(waiting)
            started = time.perf_counter()
            values = self._values(pack, waiting[0] if waiting else None, read_outs)
            if values is not None:
                self._note(pack, time.perf_counter() - started)
                yield list(_by_trace(pack, values))
            elif len(pack) > 1:
                self.budget = max(1, self._tokens(pack) // 2)
                waiting.extendleft(reversed(pack))
            else:
                yield list(_lost(pack[0], waiting))

    def _take(self, waiting: deque[Node]) -> list[Node]:
        """The next nodes within the budget, at least one."""
        pack = [waiting.popleft()]
        while waiting and self._tokens([*pack, waiting[0]]) <= self.budget:
            pack.append(waiting.popleft())
        return pack

    def _tokens(self, pack: Sequence[Node]) -> int:
        """The tokens of the model that pads most."""
        return max(forward.tokens(pack) for forward in self._forwards)

    def _keep_for(self, following: Node | None) -> None:
        for forward in self._forwards:
            forward.keep_for(following)

    def _note(self, pack: Sequence[Node], seconds: float) -> None:
        done = sum(self._work.tokens(len(node.ids), node.start) for node in pack)
        self.passes.append((done, seconds))
        del self.passes[:-_NOTED]

    def _values(
        self, pack: Sequence[Node], following: Node | None, read_outs: Sequence[ReadOut]
    ) -> list[list[float]] | None:
        """What each model gives for the pack, one after the other; None if the memory ran out."""
        try:
            values = [
                read_out(forward.hidden(pack, following), pack)
                for forward, read_out in zip(self._forwards, read_outs, strict=True)
            ]
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault):
                raise
        else:
            self._keep_for(following)
            return values
        # Outside the handler: the fault would hold on to the tensors of the failed forward.
        self._keep_for(pack[0])
        let_go(self._device)
        return None


def _by_trace(pack: Sequence[Node], values: Sequence[Sequence[float]]) -> Iterator[Read]:
    """Deal the values of each model out to the traces that end in the pack."""
    following = [iter(of_model) for of_model in values]
    for node in pack:
        if node.trace is not None:
            count = len(node.read_at)
            yield Read(node.trace, tuple(tuple(islice(each, count)) for each in following))


def _lost(node: Node, waiting: deque[Node]) -> Iterator[Read]:
    """The traces that go with a node for which alone there is no room."""
    if node.trace is not None:
        yield Read(node.trace, None)
    while waiting and node in waiting[0].above():
        below = waiting.popleft()
        if below.trace is not None:
            yield Read(below.trace, None)
