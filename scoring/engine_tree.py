"""Token sequences as a tree: what several traces begin with stands in it once.

The candidates of a problem share system turn, evidence and question; traces that got other documents
share less, and unrelated ones nothing. The tree follows from the token ids alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

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
