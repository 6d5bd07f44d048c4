"""Traces with their counts, as a whole and by subset; every trace is counted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.bootstrap import RESAMPLES, by_problem, generator, resampled_sums
from evaluation.evaluated import EvaluatedTrace
from evaluation.measures import Floats, rows_of


@dataclass(frozen=True, slots=True)
class Group:
    """Traces that are reported together."""

    name: str
    """The subset; empty for the whole."""
    traces: Sequence[EvaluatedTrace]
    """Its traces."""
    rows: Floats
    """Their counts, shape (traces, 6)."""

    def resampled(self, seed: int, resamples: int = RESAMPLES) -> tuple[Floats, Floats]:
        """Sums of the counts, shape (6,), and over resampled problems, shape (resamples, 6)."""
        counts = by_problem([trace.problem_id for trace in self.traces], self.rows)
        return counts.sum(axis=0), resampled_sums(counts, generator(seed, self.name), resamples)


def whole_and_subsets(
    traces: Sequence[EvaluatedTrace],
    row: Callable[[EvaluatedTrace, float], tuple[int, ...]],
    threshold: float,
    *,
    not_pooled: str | None = None,
) -> tuple[Group, dict[str, Group]]:
    """All traces as one group, and one group per subset in alphabetical order.

    Args:
        row: counts of one trace at a threshold (`measures`).
        not_pooled: a subset that the whole leaves out; None for none.
    """
    rows = rows_of(traces, row, threshold)
    members: dict[str, list[int]] = {}
    for index, trace in enumerate(traces):
        members.setdefault(trace.subset, []).append(index)

    def group(name: str, indices: Sequence[int]) -> Group:
        return Group(name, [traces[index] for index in indices], rows[np.array(indices, dtype=int)])

    pooled = [index for index, trace in enumerate(traces) if trace.subset != not_pooled]
    return group("", pooled), {name: group(name, members[name]) for name in sorted(members)}
