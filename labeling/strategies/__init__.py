"""Which continuations are worth drawing: all of them, or only what decides the labels.

A strategy is a pure function of what was drawn so far, so that a run can be killed anywhere and go
on, and every strategy draws a subset of what `all` draws: continuation `i` of a step is the same one.
"""

from __future__ import annotations

from collections.abc import Callable

from labeling.drawn import Bounds, Drawn
from labeling.strategies.adaptive import adaptive
from labeling.strategies.binary import binary
from labeling.strategies.early_stop import early_stop
from labeling.strategies.every import every
from traces.continuation import Wanted
from traces.errors import InputError

Strategy = Callable[[Drawn, Bounds], list[Wanted]]
"""What to draw next; nothing once the trace is decided."""

STRATEGIES: dict[str, Strategy] = {
    "all": every,
    "early-stop": early_stop,
    "binary": binary,
    "adaptive": adaptive,
}
"""By the name given to `--strategy`."""


def strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        InputError: there is none.
    """
    if name not in STRATEGIES:
        raise InputError(
            f"'{name}' is not a strategy.", remedy=f"use one of {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]
