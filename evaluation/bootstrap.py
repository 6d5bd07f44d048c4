"""Percentile bootstrap over problems: traces of one problem are not independent, so they move together."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.evaluated import EvaluatedTrace, split_by_gold
from evaluation.measures import MEASURES, Floats, Formula, Mask, rows_of
from traces.errors import InputError

RESAMPLES = 2000
"""Resamples of every interval (design.md section 3)."""
TAILS = (2.5, 97.5)
"""Percentiles of a 95% interval."""
_BLOCK = 4_000_000
"""Draws held in memory at once."""

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
    """Sums over problems drawn with replacement, as many as there are; shape (resamples, columns)."""
    problems = len(counts)
    sums = np.zeros((resamples, counts.shape[1]))
    if problems == 0:
        return sums
    block = max(1, _BLOCK // problems)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, problems, (size, problems))
        # How often each problem was drawn, for all resamples of the block in one count.
        flat = (drawn + np.arange(size)[:, None] * problems).ravel()
        weights = np.bincount(flat, minlength=size * problems).reshape(size, problems)
        sums[start : start + size] = weights @ counts
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


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much higher one labeler stands than another on the same traces."""

    first: float | None
    """The measure of the first labeler; None where it is not defined."""
    second: float | None
    """The measure of the second."""
    difference: float | None
    """first - second; None if one is None."""
    ci95: Interval | None
    """95% interval of the difference, both resampled together; None if the difference is."""
    n_traces: int
    """Traces with usable gold that both were measured on."""


def paired_difference(
    first: Sequence[EvaluatedTrace],
    second: Sequence[EvaluatedTrace],
    measure: str,
    *,
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedDifference:
    """Compare two labelers on the same traces, by a bootstrap in which both see the same problems.

    Args:
        first: the traces with the first labeler's labels.
        second: the same traces with the second's, in any order.
        measure: a name of `measures.MEASURES`.
        threshold: a step is correct iff its score is at least this.

    Raises:
        InputError: unknown measure, or the traces are not the same.
    """
    if measure not in MEASURES:
        raise InputError(f"'{measure}' is no measure.", remedy=f"use one of {', '.join(MEASURES)}")
    others = {trace.trace_id: trace for trace in split_by_gold(second).usable}
    traces = split_by_gold(first).usable
    if {trace.trace_id for trace in traces} != others.keys() or len(traces) != len(others):
        raise InputError("The two labelers were not measured on the same traces.")
    row, formula = MEASURES[measure].row, MEASURES[measure].formula
    paired = [
        rows_of(side, row, threshold)
        for side in (traces, [others[trace.trace_id] for trace in traces])
    ]
    counts = by_problem([trace.problem_id for trace in traces], np.hstack(paired))
    half = counts.shape[1] // 2
    sums, resampled = counts.sum(axis=0), resampled_sums(counts, generator(seed), resamples)
    one, two = (
        estimate(formula, sums[:half], resampled[:, :half]),
        estimate(formula, sums[half:], resampled[:, half:]),
    )
    if one.value is None or two.value is None:
        return PairedDifference(one.value, two.value, None, None, len(traces))
    (values, defined), (other_values, other_defined) = (
        formula(resampled[:, :half]),
        formula(resampled[:, half:]),
    )
    ci95 = interval(values - other_values, defined & other_defined)
    return PairedDifference(one.value, two.value, one.value - two.value, ci95, len(traces))
