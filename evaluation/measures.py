"""The measures, as formulas over sums of counts, and their intervals by a bootstrap over problems.

A measure is a vector of counts per trace, added up over traces, and a formula over the sums, so one
resampling of problems serves all measures. Formulas take arrays of shape (..., columns) and return
values with a mask of where they are defined. Traces of one problem are not independent, so the
percentile bootstrap resamples problems.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluated import EvaluatedTrace, neutral_steps, predicted_error, step_calls

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Formula = Callable[[Floats], tuple[Floats, Mask]]

FIRST_ERROR_COLUMNS = ("n_error", "hit_error", "n_correct", "hit_correct", "n_kept", "hit_kept")
"""Counts of `first_error_row`: traces with error, without, with a prediction, and exact hits in
each."""
STEP_COLUMNS = (
    "correct_as_correct",
    "correct_as_incorrect",
    "incorrect_as_correct",
    "incorrect_as_incorrect",
    "neutral",
    "missing",
)
"""Counts of `step_row`: steps by gold and call, neutral steps, and unlabeled ones (counted
twice)."""
SOLUTION_COLUMNS = (
    "correct_as_correct",
    "correct_as_incorrect",
    "incorrect_as_correct",
    "incorrect_as_incorrect",
    "hit_step",
    "hit_reason",
)
"""Counts of `solution_row`: traces by gold and call; of the erroneous ones, right steps and
reasons."""
REASON_KEY = "reason_correct"
"""Key of a label's meta: whether its reason for the first error is right (MR-Score's third
part)."""


def first_error_row(trace: EvaluatedTrace, threshold: float) -> tuple[int, ...]:
    """Counts of one trace for the first-error measures; a missing prediction is not a hit."""
    gold = predicted_error(trace.gold, threshold)
    if gold.missing:
        return (0, 0, 0, 0, 0, 0)
    predicted = predicted_error(trace.predicted, threshold)
    hit, error, kept = predicted == gold, gold.index is not None, not predicted.missing
    return (error, error and hit, not error, not error and hit, kept, hit)


def step_row(trace: EvaluatedTrace, threshold: float) -> tuple[int, ...]:
    """Counts of one trace for the step measures; a missing call counts as the other class."""
    counts = [0, 0, 0, 0, 0, 0]
    if trace.gold is None:
        return tuple(counts)
    neutral = neutral_steps(trace, trace.gold)
    truth = step_calls(trace, trace.gold, threshold)
    calls = step_calls(trace, trace.predicted, threshold)
    for index, (incorrect, called) in enumerate(zip(truth, calls, strict=True)):
        if index in neutral:
            counts[4] += 1
        elif incorrect is not None:
            counts[5] += called is None
            as_incorrect = not incorrect if called is None else called
            counts[2 * incorrect + as_incorrect] += 1
    return tuple(counts)


def kept_step_row(trace: EvaluatedTrace, threshold: float) -> tuple[int, ...]:
    """As `step_row` by PRMBench's rules: correct iff score > threshold, unlabeled steps left
    out."""
    counts = [0, 0, 0, 0, 0, 0]
    if trace.gold is None:
        return tuple(counts)
    neutral = neutral_steps(trace, trace.gold)
    truth = step_calls(trace, trace.gold, threshold)
    calls = step_calls(trace, trace.predicted, threshold, tie_is_correct=False)
    for index, (incorrect, called) in enumerate(zip(truth, calls, strict=True)):
        if index in neutral:
            counts[4] += 1
        elif incorrect is not None:
            counts[5 if called is None else 2 * incorrect + called] += 1
    return tuple(counts)


def solution_row(trace: EvaluatedTrace, threshold: float) -> tuple[int, ...]:
    """Counts of one trace for MR-Score; a missing prediction counts as the other class.

    A reason counts only where the trace was called incorrect at the right step.
    """
    gold = predicted_error(trace.gold, threshold)
    if gold.missing:
        return (0, 0, 0, 0, 0, 0)
    predicted = predicted_error(trace.predicted, threshold)
    incorrect = gold.index is not None
    called = not incorrect if predicted.missing else predicted.index is not None
    hit = incorrect and predicted == gold
    counts = [0, 0, 0, 0, hit, hit and stated_reason(trace) is True]
    counts[2 * incorrect + called] = 1
    return tuple(map(int, counts))


def stated_reason(trace: EvaluatedTrace) -> bool | None:
    """Whether the labeler's reason was found right; None if not assessed."""
    found = None if trace.predicted is None else trace.predicted.meta.get(REASON_KEY)
    return found if isinstance(found, bool) else None


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

    row: Callable[[EvaluatedTrace, float], tuple[int, ...]]
    """Counts of one trace at a threshold."""
    formula: Formula
    """Value over sums of such counts."""


MEASURES: dict[str, Measure] = {
    "error_accuracy": Measure(first_error_row, error_accuracy),
    "correct_accuracy": Measure(first_error_row, correct_accuracy),
    "processbench_f1": Measure(first_error_row, processbench_f1),
    "kept_share": Measure(first_error_row, kept_share),
    "first_error_precision": Measure(first_error_row, first_error_precision),
    "location_accuracy": Measure(first_error_row, location_accuracy),
    "macro_f1": Measure(step_row, macro_f1),
    "step_accuracy": Measure(step_row, step_accuracy_of),
    "balanced_f1": Measure(step_row, balanced_f1),
    "prmscore": Measure(kept_step_row, prmscore),
    "mcc": Measure(solution_row, mcc),
    "error_step_accuracy": Measure(solution_row, error_step_accuracy),
    "mr_score": Measure(solution_row, mr_score),
}


def rows_of(
    traces: Sequence[EvaluatedTrace],
    row: Callable[[EvaluatedTrace, float], tuple[int, ...]],
    threshold: float,
) -> Floats:
    """The counts of all traces, shape (traces, 6)."""
    return np.array([row(trace, threshold) for trace in traces], dtype=np.float64).reshape(
        len(traces), len(STEP_COLUMNS)
    )


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
