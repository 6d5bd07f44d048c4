"""Timing of alternatives in turns, so that a busy moment of the machine meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def best_of(rounds: int, alternatives: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest wall time of each alternative in seconds, over rounds that run all in turn."""
    shortest = dict.fromkeys(alternatives, float("inf"))
    for _ in range(rounds):
        for name, run in alternatives.items():
            began = time.perf_counter()
            run()
            shortest[name] = min(shortest[name], time.perf_counter() - began)
    return shortest
