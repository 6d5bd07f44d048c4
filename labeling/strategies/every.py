"""`all`: every prefix `k` times."""

from __future__ import annotations

from labeling.drawn import Bounds, Drawn
from traces.continuation import Wanted


def every(drawn: Drawn, bounds: Bounds) -> list[Wanted]:
    """Everything that is not there yet, in one round."""
    return [
        Wanted(step, drawn.n(step), bounds.k - drawn.n(step))
        for step in range(drawn.steps)
        if step not in drawn.known and drawn.n(step) < bounds.k
    ]
