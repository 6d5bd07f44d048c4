"""The measures, as formulas over sums of counts, and their intervals by a bootstrap over problems.

A measure is a vector of counts per trace, added up over traces, and a formula over the sums, so one
resampling of problems serves all measures. Formulas take arrays of shape (..., columns) and return
values with a mask of where they are defined. Traces of one problem are not independent, so the
percentile bootstrap resamples problems.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces
from evaluation.frames import (
    NEUTRAL,
    RIGHT,
    Counts,
    Floats,
    Index,
    Mask,
    block_calls,
    numbered,
)

Formula = Callable[[Floats], tuple[Floats, Mask]]
Rows = Callable[[EvaluatedTraces, float | Floats], Counts]
"""Counts of each trace at a threshold, shape (traces, 6): `first_error_rows` and its like."""

FIRST_ERROR_COLUMNS = ("n_error", "hit_error", "n_correct", "hit_correct", "n_kept", "hit_kept")
"""Counts of `first_error_rows`: traces with error, without, with a prediction, and exact hits in
each."""
STEP_COLUMNS = (
    "correct_as_correct",
    "correct_as_incorrect",
    "incorrect_as_correct",
    "incorrect_as_incorrect",
    "neutral",
    "missing",
)
"""Counts of `step_rows`: steps by gold and call, neutral steps, and unlabeled ones (counted
twice)."""
SOLUTION_COLUMNS = (
    "correct_as_correct",
    "correct_as_incorrect",
    "incorrect_as_correct",
    "incorrect_as_incorrect",
    "hit_step",
    "hit_reason",
)
"""Counts of `solution_rows`: traces by gold and call; of the erroneous ones, right steps and
reasons."""


def first_error_rows(traces: EvaluatedTraces, threshold: float | Floats) -> Counts:
    """Counts for the first-error measures; a missing prediction is not a hit."""
    gold, found = traces.gold_errors(threshold), traces.found_errors(threshold)
    usable = ~gold.missing
    hit = usable & found.equal(gold)
    error, correct = usable & gold.named, usable & ~gold.named
    columns = (error, error & hit, correct, correct & hit, usable & ~found.missing, hit)
    return np.stack(columns, axis=1).astype(np.int32)


def step_rows(traces: EvaluatedTraces, threshold: float | Floats) -> Counts:
    """Counts for the step measures; a missing call counts as the other class."""
    return _step_counts(traces, threshold, strictly_above=False)


def kept_step_rows(traces: EvaluatedTraces, threshold: float | Floats) -> Counts:
    """As `step_rows` by PRMBench's rules: correct iff score > threshold, unlabeled steps left
    out."""
    return _step_counts(traces, threshold, strictly_above=True)


def _step_counts(
    traces: EvaluatedTraces, threshold: float | Floats, *, strictly_above: bool
) -> Counts:
    """`STEP_COLUMNS`; by PRMBench's rules if a score has to be above the threshold."""
    frame = traces.frame
    counts = np.zeros((len(frame), len(STEP_COLUMNS)), np.int32)
    for block in frame.blocks():
        places, steps = block
        known, called = block_calls(
            frame, traces.predicted, threshold, block, tie_is_correct=not strictly_above
        )
        truth, incorrect = block_calls(frame, traces.gold, threshold, block)
        neutral = traces.gold.verdict[steps] == NEUTRAL
        scored = truth & ~neutral
        counts[places, 4] = frame.total_of(neutral, places)
        counts[places, 5] = frame.total_of(scored & ~known, places)
        if strictly_above:
            scored &= known
        else:
            called = np.where(known, called, ~incorrect)
        for column, of_class in ((0, scored & ~incorrect), (2, scored & incorrect)):
            counts[places, column] = frame.total_of(of_class & ~called, places)
            counts[places, column + 1] = frame.total_of(of_class & called, places)
    return counts


def solution_rows(traces: EvaluatedTraces, threshold: float | Floats) -> Counts:
    """Counts for MR-Score; a missing prediction counts as the other class.

    A reason counts only where the trace was called incorrect at the right step.
    """
    gold, found = traces.gold_errors(threshold), traces.found_errors(threshold)
    usable, incorrect = ~gold.missing, gold.named
    called = np.where(found.missing, ~incorrect, found.named)
    hit = usable & incorrect & found.equal(gold)
    correct, wrong = usable & ~incorrect, usable & incorrect
    return np.stack(
        (
            correct & ~called,
            correct & called,
            wrong & ~called,
            wrong & called,
            hit,
            hit & (traces.predicted.reason == RIGHT),
        ),
        axis=1,
    ).astype(np.int32)


def ratio(part: Floats, whole: Floats) -> tuple[Floats, Mask]:
    """part / whole where whole > 0."""
    defined = whole > 0
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=defined), defined


def error_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of traces with an error whose first error was predicted exactly."""
    return ratio(sums[..., 1], sums[..., 0])


def correct_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of traces without an error for which none was predicted."""
    return ratio(sums[..., 3], sums[..., 2])


def processbench_f1(sums: Floats) -> tuple[Floats, Mask]:
    """Harmonic mean of the two accuracies: 0 if both are 0, undefined if a group is empty."""
    (error, has_errors), (correct, has_correct) = error_accuracy(sums), correct_accuracy(sums)
    value, _ = ratio(2 * error * correct, error + correct)
    return value, has_errors & has_correct


def kept_share(sums: Floats) -> tuple[Floats, Mask]:
    """Share of traces with a prediction."""
    return ratio(sums[..., 4], sums[..., 0] + sums[..., 2])


def first_error_precision(sums: Floats) -> tuple[Floats, Mask]:
    """Share of the traces with a prediction whose first error, or lack of one, is exactly right."""
    return ratio(sums[..., 5], sums[..., 4])


def location_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of all traces whose first error, or lack of one, was predicted exactly."""
    return ratio(sums[..., 1] + sums[..., 3], sums[..., 0] + sums[..., 2])


def f1_correct(sums: Floats) -> tuple[Floats, Mask]:
    """F1 of correct steps; 0 if absent from gold and calls, undefined without any step."""
    value, _ = ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])
    return value, sums[..., :4].sum(axis=-1) > 0


def f1_incorrect(sums: Floats) -> tuple[Floats, Mask]:
    """F1 of incorrect steps; 0 if absent from gold and calls, undefined without any step."""
    value, _ = ratio(2 * sums[..., 3], 2 * sums[..., 3] + sums[..., 1] + sums[..., 2])
    return value, sums[..., :4].sum(axis=-1) > 0


def macro_f1(sums: Floats) -> tuple[Floats, Mask]:
    """Mean of the two class F1s over pooled steps."""
    (correct, defined), (incorrect, _) = f1_correct(sums), f1_incorrect(sums)
    return (correct + incorrect) / 2, defined


def step_accuracy_of(sums: Floats) -> tuple[Floats, Mask]:
    """Share of the scored steps called right."""
    return ratio(sums[..., 0] + sums[..., 3], sums[..., :4].sum(axis=-1))


def correct_recall(sums: Floats) -> tuple[Floats, Mask]:
    """Share of the correct steps (or responses) called correct."""
    return ratio(sums[..., 0], sums[..., 0] + sums[..., 1])


def incorrect_recall(sums: Floats) -> tuple[Floats, Mask]:
    """Share of the incorrect steps (or responses) called incorrect."""
    return ratio(sums[..., 3], sums[..., 2] + sums[..., 3])


def balanced_f1(sums: Floats) -> tuple[Floats, Mask]:
    """Harmonic mean of both recalls: 0 if both are 0, undefined if gold lacks a class."""
    (good, has_good), (bad, has_bad) = correct_recall(sums), incorrect_recall(sums)
    value, _ = ratio(2 * good * bad, good + bad)
    return value, has_good & has_bad


def balanced_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Mean of both recalls; undefined if gold lacks a class."""
    (good, has_good), (bad, has_bad) = correct_recall(sums), incorrect_recall(sums)
    return (good + bad) / 2, has_good & has_bad


def good_step_f1(sums: Floats) -> tuple[Floats, Mask]:
    """F1 of good steps; undefined if absent from gold and calls."""
    return ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


def bad_step_f1(sums: Floats) -> tuple[Floats, Mask]:
    """F1 of bad steps; undefined if absent from gold and calls."""
    return ratio(2 * sums[..., 3], 2 * sums[..., 3] + sums[..., 1] + sums[..., 2])


def prmscore(sums: Floats) -> tuple[Floats, Mask]:
    """Mean of the F1 of good and of bad steps; undefined if either is."""
    (good, has_good), (bad, has_bad) = good_step_f1(sums), bad_step_f1(sums)
    return (good + bad) / 2, has_good & has_bad


def mcc(sums: Floats) -> tuple[Floats, Mask]:
    """Matthews correlation of "solution correct", in [-1, 1].

    0 where its denominator is 0, as in MR-Score and scikit-learn; undefined without any trace.
    """
    tp, fn, fp, tn = (sums[..., column] for column in range(4))
    whole = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    value, _ = ratio(tp * tn - fp * fn, np.sqrt(whole))
    return value, sums[..., :4].sum(axis=-1) > 0


def error_step_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of erroneous traces called incorrect at the right step."""
    return ratio(sums[..., 4], sums[..., 2] + sums[..., 3])


def error_reason_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of erroneous traces called incorrect at the right step for the right reason."""
    return ratio(sums[..., 5], sums[..., 2] + sums[..., 3])


def mr_score(sums: Floats) -> tuple[Floats, Mask]:
    """0.2 max(0, MCC) + 0.3 step accuracy + 0.5 reason accuracy (dvlab-research/MR-GSM8K)."""
    (matthews, known), (step, has_errors) = mcc(sums), error_step_accuracy(sums)
    reason, _ = error_reason_accuracy(sums)
    return 0.2 * np.maximum(0, matthews) + 0.3 * step + 0.5 * reason, known & has_errors


@dataclass(frozen=True, slots=True)
class Measure:
    """The counts of a trace, and the formula over their sums."""

    rows: Rows
    """Counts of each trace at a threshold."""
    formula: Formula
    """Value over sums of such counts."""


MEASURES: dict[str, Measure] = {
    "error_accuracy": Measure(first_error_rows, error_accuracy),
    "correct_accuracy": Measure(first_error_rows, correct_accuracy),
    "processbench_f1": Measure(first_error_rows, processbench_f1),
    "kept_share": Measure(first_error_rows, kept_share),
    "first_error_precision": Measure(first_error_rows, first_error_precision),
    "location_accuracy": Measure(first_error_rows, location_accuracy),
    "macro_f1": Measure(step_rows, macro_f1),
    "step_accuracy": Measure(step_rows, step_accuracy_of),
    "balanced_f1": Measure(step_rows, balanced_f1),
    "prmscore": Measure(kept_step_rows, prmscore),
    "mcc": Measure(solution_rows, mcc),
    "error_step_accuracy": Measure(solution_rows, error_step_accuracy),
    "mr_score": Measure(solution_rows, mr_score),
}


RESAMPLES = 2000
"""Default number of resamples."""
TAILS = (2.5, 97.5)
"""Percentiles of a 95% interval."""
_BLOCK = 250_000
"""Draws in memory at once: few enough for the cache."""
_FREQUENT = 24
"""Number of equal problems from which one binomial draw is cheaper than single draws."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure with its interval."""

    value: float | None
    """None where undefined (an empty group)."""
    ci95: Interval | None
    """95% percentile interval; None where the value, or all resamples, are undefined."""


def generator(seed: int, name: str = "") -> np.random.Generator:
    """A generator seeded by seed and name, so that subsets have independent draws."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def by_problem(problems: NDArray[Any], rows: NDArray[Any]) -> Floats:
    """Sum the rows of each problem.

    Args:
        problems: one number or name per row.
        rows: counts, shape (traces, columns).

    Returns:
        Shape (problems, columns), problems in order of their first trace.
    """
    places = numbered(np.asarray(problems))
    summed = np.zeros((int(places.max()) + 1 if len(places) else 0, rows.shape[1]))
    np.add.at(summed, places, rows)
    return summed


def resampled_sums(counts: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Sums over problems drawn with replacement, shape (resamples, columns).

    Problems with equal counts are exchangeable: their number in a resample is one multinomial draw,
    which has the distribution of single draws and makes a million steps cheap. Problems with rare
    counts are drawn one by one.
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
    """Rows of many problems, the share of each (and of all others), and the other rows."""
    rows, kind, found = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    frequent = found >= _FREQUENT
    rare = counts[~frequent[kind.reshape(-1)]]
    groups = [*found[frequent], len(rare)] if len(rare) else list(found[frequent])
    return rows[frequent], np.array(groups) / len(counts), rare


def _drawn_one_by_one(rows: Floats, draws: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Sums of `draws[i]` rows drawn with replacement, for each i."""
    drawn = rng.integers(0, len(rows), int(draws.sum()))
    # Draws of each row, for all resamples of the block in one count.
    flat = drawn + np.repeat(np.arange(len(draws)) * len(rows), draws)
    weights = np.bincount(flat, minlength=len(draws) * len(rows)).reshape(len(draws), len(rows))
    sums: Floats = weights @ rows
    return sums


def interval(values: Floats, defined: Mask) -> Interval | None:
    """95% percentile interval over the resamples where the measure is defined; None without any."""
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
    """The unweighted mean of a measure over subsets, each resampled within itself; None if one is
    None."""
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


@dataclass(frozen=True, slots=True)
class Group:
    """Traces that are reported together."""

    name: str
    """The subset; empty for the whole."""
    problem: Index
    """The number of each trace's problem."""
    at: Index
    """Positions of its traces among those that were grouped."""
    counts: Counts
    """Of all traces that were grouped, shape (traces, 6)."""

    def __len__(self) -> int:
        return len(self.at)

    @property
    def rows(self) -> Floats:
        """The counts of its traces, shape (traces, 6)."""
        return self.counts[self.at].astype(np.float64)

    def resampled(self, seed: int, resamples: int = RESAMPLES) -> tuple[Floats, Floats]:
        """Sums of the counts, shape (6,), and over resampled problems, shape (resamples, 6)."""
        counts = by_problem(self.problem, self.counts[self.at])
        return counts.sum(axis=0), resampled_sums(counts, generator(seed, self.name), resamples)


def whole_and_subsets(
    traces: Iterable[EvaluatedTrace],
    rows_of: Rows,
    threshold: float,
    *,
    not_pooled: str | None = None,
) -> tuple[Group, dict[str, Group]]:
    """All traces as one group, and one group per subset in alphabetical order.

    Args:
        rows_of: counts of each trace at a threshold (`measures`).
        not_pooled: a subset that the whole leaves out; None for none.
    """
    known = EvaluatedTraces.of(traces)
    frame, rows = known.frame, rows_of(known, threshold)

    def group(name: str, at: Index) -> Group:
        return Group(name, frame.problem[at], at, rows)

    places = subset_places(known)
    pooled = np.ones(len(frame), np.bool_)
    if not_pooled in places:
        pooled[places[not_pooled]] = False
    return group("", np.flatnonzero(pooled)), {name: group(name, at) for name, at in places.items()}


def subset_places(traces: EvaluatedTraces, among: Index | None = None) -> dict[str, Index]:
    """The positions of the traces of each subset, in alphabetical order.

    Args:
        traces: of any number of subsets.
        among: ascending positions; only these. None for all.
    """
    frame = traces.frame
    at = np.arange(len(frame)) if among is None else among
    numbers = {name: number for number, name in enumerate(frame.subsets)}
    found = {name: at[frame.subset[at] == numbers[name]] for name in sorted(numbers)}
    return {name: at for name, at in found.items() if len(at)}


def share_by_problem(
    problems: NDArray[Any],
    holds: Mask,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Share of the traces for which it holds; None without traces.

    Args:
        problems: the problem of each trace; traces of one problem are resampled together.
        holds: whether it holds, one per trace.
    """

    def share(sums: Floats) -> tuple[Floats, Mask]:
        return ratio(sums[..., 0], sums[..., 1])

    rows = np.stack([holds, np.ones(len(holds))], axis=1).astype(np.float64)
    counts = by_problem(problems, rows)
    return estimate(share, counts.sum(axis=0), resampled_sums(counts, rng, resamples))
