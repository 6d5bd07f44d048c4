"""The share of traces for which something holds, with its interval by problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.bootstrap import RESAMPLES, Estimate, by_problem, estimate, resampled_sums
from evaluation.measures import Floats, Mask, ratio


def share_by_problem(
    problem_ids: Sequence[str],
    holds: Sequence[bool],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Share of the traces for which it holds; None without traces.

    Args:
        problem_ids: the problem of each trace; traces of one problem are resampled together.
        holds: whether it holds, one per trace.
    """

    def share(sums: Floats) -> tuple[Floats, Mask]:
        return ratio(sums[..., 0], sums[..., 1])

    rows = np.array([(one, 1) for one in holds], dtype=np.float64).reshape(-1, 2)
    counts = by_problem(problem_ids, rows)
    return estimate(share, counts.sum(axis=0), resampled_sums(counts, rng, resamples))
