"""Percentile bootstrap over problems: traces of one problem are not independent, so they move together."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.measures import Floats, Formula, Mask

RESAMPLES = 2000
"""Resamples of every interval (design.md section 3)."""
TAILS = (2.5, 97.5)
"""Percentiles of a 95% interval."""
_BLOCK = 250_000
"""Draws held in memory at once: few enough to stay in the cache."""
_FREQUENT = 24
"""From so many equal problems on, one binomial draw is cheaper than drawing them one by one."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure with its interval."""

    value: float | None
    """The measure; None where it is not defined (an empty group)."""
    ci95: Interval | None
    """95% percentile interval; None where the value is, or in no resample was, defined."""


def generator(seed: int, name: str = "") -> np.random.Generator:
    """A generator that depends on the seed and a name, so that one subset's draws leave another's alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def by_problem(problem_ids: Sequence[str], rows: Floats) -> Floats:
    """Sum the rows of each problem.

    Args:
        problem_ids: one per row.
        rows: counts, shape (traces, columns).

    Returns:
        Shape (problems, columns), problems in order of their first trace.
    """
    numbers: dict[str, int] = {}
    for problem_id in problem_ids:
        numbers.setdefault(problem_id, len(numbers))
    summed = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(summed, [numbers[problem_id] for problem_id in problem_ids], rows)
    return summed


def resampled_sums(counts: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Sums over problems drawn with replacement, as many as there are; shape (resamples, columns).

    Problems with equal counts are exchangeable: how many of them a resample holds is drawn at once
    (multinomial), which has the same distribution as drawing them one by one and makes a million
    steps cheap. Problems whose counts are rare are drawn one by one.
    """
    problems = len(counts)
    sums = np.zeros((resamples, counts.shape[1]))
    if problems == 0:
        return sums
    common, shares, rare = _by_frequency(counts)
    block = max(1, _BLOCK // max(len(rare), len(shares)))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        left = np.full(size, problems)
        if len(common):
            drawn = rng.multinomial(problems, shares, size)
            sums[start : start + size] = drawn[:, : len(common)] @ common
            left -= drawn[:, : len(common)].sum(axis=1)
        if len(rare):
            sums[start : start + size] += _drawn_one_by_one(rare, left, rng)
    return sums


def _by_frequency(counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Rows that many problems share, the share of each (and of all others), and the rows of the others."""
    rows, kind, found = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    frequent = found >= _FREQUENT
    rare = counts[~frequent[kind.reshape(-1)]]
    groups = [*found[frequent], len(rare)] if len(rare) else list(found[frequent])
    return rows[frequent], np.array(groups) / len(counts), rare


def _drawn_one_by_one(rows: Floats, draws: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Sums of `draws[i]` rows drawn with replacement, for each i."""
    drawn = rng.integers(0, len(rows), int(draws.sum()))
    # How often each row was drawn, for all resamples of the block in one count.
    flat = drawn + np.repeat(np.arange(len(draws)) * len(rows), draws)
    weights = np.bincount(flat, minlength=len(draws) * len(rows)).reshape(len(draws), len(rows))
    sums: Floats = weights @ rows
    return sums


def interval(values: Floats, defined: Mask) -> Interval | None:
    """The 95% percentile interval of the resamples in which the measure is defined; None without any."""
    if not defined.any():
        return None
    low, high = np.percentile(values[defined], TAILS)
    return float(low), float(high)


def estimate(formula: Formula, sums: Floats, resampled: Floats) -> Estimate:
    """The value over `sums` (columns,) with the interval over `resampled` (resamples, columns)."""
    value, defined = formula(sums[None, :])
    if not defined[0]:
        return Estimate(None, None)
    return Estimate(float(value[0]), interval(*formula(resampled)))


def mean_estimate(formula: Formula, totals: Sequence[Floats], draws: Sequence[Floats]) -> Estimate:
    """The unweighted mean of a measure over subsets, each resampled within itself; None if one is None."""
    if len(totals) == 1:
        return estimate(formula, totals[0], draws[0])
    if not totals:
        return Estimate(None, None)
    values, defined = formula(np.stack(totals))
    if not defined.all():
        return Estimate(None, None)
    drawn, drawn_defined = formula(np.stack(draws))
    return Estimate(
        float(values.mean()), interval(drawn.mean(axis=0), np.asarray(drawn_defined.all(axis=0)))
    )


def as_list(estimated: Estimate) -> list[float] | None:
    """The interval as JSON has it."""
    return None if estimated.ci95 is None else list(estimated.ci95)
