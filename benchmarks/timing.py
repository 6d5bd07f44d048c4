"""Timing of alternatives in turns, so that a busy moment of the machine meets all of them; peak memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def best_of(rounds: int, alternatives: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest wall time of each alternative in seconds, over rounds that run all in turn."""
    shortest = dict.fromkeys(alternatives, float("inf"))
    for _ in range(rounds):
        for name, run in alternatives.items():
            began = time.perf_counter()
            run()
            shortest[name] = min(shortest[name], time.perf_counter() - began)
    return shortest


def peak_memory() -> int:
    """The most memory that this process has held, bytes.

    Not `ru_maxrss` where the system tells otherwise: a child inherits its parent's, over exec.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
