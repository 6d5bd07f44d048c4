"""Memory of the commands that read a whole dataset: it hardly grows with the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale import commands, measured, write_labels, write_traces

SMALL, LARGE = 2_000, 8_000
MOST_MB = 24
"""Growth from `SMALL` to `LARGE`. Objects for every step label take over 50 MB."""


def peaks(folder: Path, n: int) -> dict[str, float]:
    """The peak memory of every command on this number of traces, MB."""
    folder.mkdir()
    traces, labels = write_traces(folder, n, 1), write_labels(folder, n)
    return {
        name: measured(folder / "ws", *command)[2]
        for name, command in commands(folder, traces, labels)
        if name not in ("export trl", "evaluate prm, macro-f1")
    }


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    small, large = peaks(tmp_path / "small", SMALL), peaks(tmp_path / "large", LARGE)
    growth = {name: large[name] - small[name] for name in small}
    assert max(growth.values()) < MOST_MB, growth
