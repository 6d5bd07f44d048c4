"""The measures as sums of counts per trace, so that one resampling of problems serves them all.

A measure is a vector of counts for each trace, added up over traces, and a formula over the sums.
Formulas work on arrays of shape (..., columns) and return values with a mask of where they are defined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluated import EvaluatedTrace, neutral_steps, predicted_error, step_calls

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Formula = Callable[[Floats], tuple[Floats, Mask]]

FIRST_ERROR_COLUMNS = ("n_error", "hit_error", "n_correct", "hit_correct", "n_kept", "hit_kept")
"""What `first_error_row` counts: traces with and without an error, with a prediction, and exact hits in each."""
STEP_COLUMNS = (
    "correct_as_correct",
    "correct_as_incorrect",
    "incorrect_as_correct",
    "incorrect_as_incorrect",
    "neutral",
    "missing",
)
"""What `step_row` counts: steps by gold and call, neutral ones left out, silent ones counted twice."""
SOLUTION_COLUMNS = (
    "correct_as_correct",
    "correct_as_incorrect",
    "incorrect_as_correct",
    "incorrect_as_incorrect",
    "hit_step",
    "hit_reason",
)
"""What `solution_row` counts: traces by gold and call, and of the erroneous ones what was named rightly."""
REASON_KEY = "reason_correct"
"""Key of a label's meta that says whether its reason for the first error is right (MR-Ben's third part)."""


def first_error_row(trace: EvaluatedTrace, threshold: float) -> tuple[int, ...]:
    """Counts of one trace for the first-error measures; a missing prediction is no hit."""
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
    """As `step_row` by PRMBench's rules: correct iff score > threshold, silent steps left out."""
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
    """Whether somebody found the labeler's reason right; None if nobody looked."""
    found = None if trace.predicted is None else trace.predicted.meta.get(REASON_KEY)
    return found if isinstance(found, bool) else None


def ratio(part: Floats, whole: Floats) -> tuple[Floats, Mask]:
    """part / whole where whole > 0."""
    defined = whole > 0
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=defined), defined


def error_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of traces with an error whose first error was named exactly."""
    return ratio(sums[..., 1], sums[..., 0])


def correct_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of traces without an error that were called so."""
    return ratio(sums[..., 3], sums[..., 2])


def processbench_f1(sums: Floats) -> tuple[Floats, Mask]:
    """Harmonic mean of the two accuracies: 0 if both are 0, undefined if a group is empty."""
    (error, has_errors), (correct, has_correct) = error_accuracy(sums), correct_accuracy(sums)
    value, _ = ratio(2 * error * correct, error + correct)
    return value, has_errors & has_correct


def kept_share(sums: Floats) -> tuple[Floats, Mask]:
    """Share of traces on which the labeler says where the first error is, or that there is none."""
    return ratio(sums[..., 4], sums[..., 0] + sums[..., 2])


def first_error_precision(sums: Floats) -> tuple[Floats, Mask]:
    """Share of the kept traces whose first error, or lack of one, was named exactly."""
    return ratio(sums[..., 5], sums[..., 4])


def location_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of all traces whose first error, or lack of one, was named exactly."""
    return ratio(sums[..., 1] + sums[..., 3], sums[..., 0] + sums[..., 2])


def f1_correct(sums: Floats) -> tuple[Floats, Mask]:
    """F1 of the class of correct steps; 0 if it is absent from both sides, undefined without any step."""
    value, _ = ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])
    return value, sums[..., :4].sum(axis=-1) > 0


def f1_incorrect(sums: Floats) -> tuple[Floats, Mask]:
    """F1 of the class of incorrect steps; 0 if it is absent from both sides, undefined without any step."""
    value, _ = ratio(2 * sums[..., 3], 2 * sums[..., 3] + sums[..., 1] + sums[..., 2])
    return value, sums[..., :4].sum(axis=-1) > 0


def macro_f1(sums: Floats) -> tuple[Floats, Mask]:
    """Mean of the two class F1s over pooled steps."""
    (correct, defined), (incorrect, _) = f1_correct(sums), f1_incorrect(sums)
    return (correct + incorrect) / 2, defined


def step_accuracy_of(sums: Floats) -> tuple[Floats, Mask]:
    """Share of the scored steps that were called as they are."""
    return ratio(sums[..., 0] + sums[..., 3], sums[..., :4].sum(axis=-1))


def good_step_f1(sums: Floats) -> tuple[Floats, Mask]:
    """F1 of the class of good steps; undefined if it is absent from both sides."""
    return ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


def bad_step_f1(sums: Floats) -> tuple[Floats, Mask]:
    """F1 of the class of bad steps; undefined if it is absent from both sides."""
    return ratio(2 * sums[..., 3], 2 * sums[..., 3] + sums[..., 1] + sums[..., 2])


def prmscore(sums: Floats) -> tuple[Floats, Mask]:
    """Mean of the F1 of good and of bad steps; undefined if one of them is."""
    (good, has_good), (bad, has_bad) = good_step_f1(sums), bad_step_f1(sums)
    return (good + bad) / 2, has_good & has_bad


def mcc(sums: Floats) -> tuple[Floats, Mask]:
    """Matthews correlation of "solution correct", in [-1, 1].

    0 where its denominator is 0, as MR-Score and scikit-learn have it; undefined without any trace.
    """
    tp, fn, fp, tn = (sums[..., column] for column in range(4))
    whole = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    value, _ = ratio(tp * tn - fp * fn, np.sqrt(whole))
    return value, sums[..., :4].sum(axis=-1) > 0


def error_step_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of erroneous traces that were called so at the right step."""
    return ratio(sums[..., 4], sums[..., 2] + sums[..., 3])


def error_reason_accuracy(sums: Floats) -> tuple[Floats, Mask]:
    """Share of erroneous traces that were called so at the right step for the right reason."""
    return ratio(sums[..., 5], sums[..., 2] + sums[..., 3])


def mr_score(sums: Floats) -> tuple[Floats, Mask]:
    """0.2 max(0, MCC) + 0.3 step accuracy + 0.5 reason accuracy (github.com/dvlab-research/MR-GSM8K)."""
    (matthews, known), (step, has_errors) = mcc(sums), error_step_accuracy(sums)
    reason, _ = error_reason_accuracy(sums)
    return 0.2 * np.maximum(0, matthews) + 0.3 * step + 0.5 * reason, known & has_errors


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure by name: what is counted, and the formula over the sums."""

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
    """The counts of all traces, shape (traces, 6): all kinds of rows have six columns."""
    return np.array([row(trace, threshold) for trace in traces], dtype=np.float64).reshape(
        len(traces), len(STEP_COLUMNS)
    )
