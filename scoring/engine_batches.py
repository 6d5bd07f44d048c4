"""Packs within a token budget; a pack that runs out of memory goes again in halves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.device_memory import is_out_of_memory, let_go
from scoring.engine_forward import Forward
from scoring.engine_tree import Node
from scoring.engine_work import LayerWork

_NOTED = 1_000
"""Packs whose operations and time are kept."""

ReadOut = Callable[[Tensor, Sequence[Node]], list[float]]
"""Hidden states of a pack's reading places, and its nodes, to probabilities."""


@dataclass(frozen=True, slots=True)
class Read:
    """A trace that was run."""

    trace: int
    """Its number."""
    probabilities: tuple[float, ...] | None
    """One per reading place, in order; None if not even the trace alone fits into the memory."""


class Batches:
    """Runs trees of nodes pack by pack; remembers what the memory did not hold."""

    def __init__(
        self, forward: Forward, device: torch.device, budget: int, work: LayerWork
    ) -> None:
        """Take a forward pass.

        Args:
            forward: runs packs.
            device: where the model lies.
            budget: tokens of one pack, padding included; a longer node goes alone.
            work: what a token costs the model.
        """
        self._forward, self._device, self._work = forward, device, work
        self.passes: list[tuple[float, float]] = []
        """Operations and seconds of each pack that was run, the last thousand."""
        self.budget = budget
        """Tokens of one pack; halved whenever the memory runs out."""

    def run(self, nodes: Sequence[Node], read_out: ReadOut) -> Iterator[list[Read]]:
        """Run all nodes; yield the traces of each pack as it is done, every trace once."""
        waiting = deque(nodes)
        while waiting:
            pack = self._take(waiting)
            started = time.perf_counter()
            probabilities = self._probabilities(pack, waiting[0] if waiting else None, read_out)
            if probabilities is not None:
                self._note(pack, time.perf_counter() - started)
                yield list(_by_trace(pack, probabilities))
            elif len(pack) > 1:
                self.budget = max(1, self._forward.tokens(pack) // 2)
                waiting.extendleft(reversed(pack))
            else:
                yield list(_lost(pack[0], waiting))

    def _take(self, waiting: deque[Node]) -> list[Node]:
        """The next nodes within the budget, at least one."""
        pack = [waiting.popleft()]
        while waiting and self._forward.tokens([*pack, waiting[0]]) <= self.budget:
            pack.append(waiting.popleft())
        return pack

    def _note(self, pack: Sequence[Node], seconds: float) -> None:
        done = sum(self._work.tokens(len(node.ids), node.start) for node in pack)
        self.passes.append((done, seconds))
        del self.passes[:-_NOTED]

    def _probabilities(
        self, pack: Sequence[Node], following: Node | None, read_out: ReadOut
    ) -> list[float] | None:
        """What is read in the pack; None if the memory ran out."""
        try:
            probabilities = read_out(self._forward.hidden(pack, following), pack)
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault):
                raise
        else:
            self._forward.keep_for(following)
            return probabilities
        # Outside the handler: the fault would hold on to the tensors of the failed forward.
        self._forward.keep_for(pack[0])
        let_go(self._device)
        return None


def _by_trace(pack: Sequence[Node], probabilities: Sequence[float]) -> Iterator[Read]:
    """Deal the probabilities out to the traces that end in the pack."""
    values = iter(probabilities)
    for node in pack:
        if node.trace is not None:
            yield Read(node.trace, tuple(next(values) for _ in node.read_at))


def _lost(node: Node, waiting: deque[Node]) -> Iterator[Read]:
    """The traces that go with a node for which alone there is no room."""
    if node.trace is not None:
        yield Read(node.trace, None)
    while waiting and node in waiting[0].above():
        below = waiting.popleft()
        if below.trace is not None:
            yield Read(below.trace, None)
