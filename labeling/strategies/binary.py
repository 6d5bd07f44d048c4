"""`binary`: search for the first error by halving, with a probe past it.

As in OmegaPRM (Luo et al., arXiv 2406.06592): a prefix from which the answer can still be reached
holds no error, one from which it cannot holds one, and the first error lies between. That assumes
that no later prefix reaches the answer again. One probe behind the error found tests it; where it
fails the trace is measured step by step instead.
"""

from __future__ import annotations

from labeling.drawn import Bounds, Drawn
from labeling.strategies.early_stop import early_stop, next_of
from traces.continuation import Wanted


def binary(drawn: Drawn, bounds: Bounds) -> list[Wanted]:
    """The next continuations of the one step under test."""
    alive, dead = -1, drawn.steps
    while dead - alive > 1:
        middle = (alive + dead) // 2
        right = drawn.decided(middle, bounds)
        if right is None:
            return [next_of(drawn, middle, bounds)]
        alive, dead = (middle, dead) if right else (alive, middle)
    past = dead + 1
    if past >= drawn.steps:
        return []
    reached_again = drawn.decided(past, bounds)
    if reached_again is None:
        return [next_of(drawn, past, bounds)]
    return early_stop(drawn, bounds) if reached_again else []
