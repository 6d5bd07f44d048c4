"""`early-stop`: a step is left as soon as its hard label is decided, so hard labels equal those of `all`."""

from __future__ import annotations

from labeling.drawn import Bounds, Drawn
from traces.continuation import Wanted


def early_stop(drawn: Drawn, bounds: Bounds) -> list[Wanted]:
    """The next continuations of every step that is still open."""
    return [
        next_of(drawn, step, bounds)
        for step in range(drawn.steps)
        if drawn.decided(step, bounds) is None
    ]


def next_of(drawn: Drawn, step: int, bounds: Bounds) -> Wanted:
    """As many again as there are: 1, 1, 2, 4, 8, so that few rounds overshoot by little."""
    have = drawn.n(step)
    return Wanted(step, have, min(bounds.k - have, max(1, have)))
