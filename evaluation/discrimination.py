"""How well step scores tell good steps from bad ones, without any threshold, and what they are worth as probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluated import EvaluatedTrace, neutral_steps, split_by_gold, step_calls
from evaluation.figures import (
    RESAMPLES,
    Estimate,
    Floats,
    Mask,
    as_list,
    estimate,
    generator,
    ratio,
    resampled_sums,
)


@dataclass(frozen=True, slots=True)
class ScoredSteps:
    """The steps that have both a score and a truth; all columns have the same length."""

    score: Floats
    """In [0, 1]: how good the labeler holds the step to be."""
    correct: Mask
    """Whether gold calls the step correct."""
    problem: NDArray[np.int64]
    """Number of the step's problem, 0-based, without gaps."""
    unscored: int
    """Steps with a truth, but without a score: left out, counted."""

    def __len__(self) -> int:
        return len(self.score)


def scored_steps(traces: Iterable[EvaluatedTrace]) -> ScoredSteps:
    """The scored steps of traces with usable gold.

    Steps that gold calls neutral are left out, and where gold is a first error only, those behind it.
    """
    scores: list[float] = []
    correct: list[bool] = []
    problems: list[int] = []
    numbers: dict[str, int] = {}
    unscored = 0
    for trace in split_by_gold(traces).usable:
        if trace.gold is None:
            continue
        neutral = neutral_steps(trace, trace.gold)
        truth = step_calls(trace, trace.gold, 0.5)
        said = step_scores(trace)
        for index, (incorrect, score) in enumerate(zip(truth, said, strict=True)):
            if incorrect is None or index in neutral:
                continue
            if score is None:
                unscored += 1
                continue
            scores.append(score)
            correct.append(not incorrect)
            problems.append(numbers.setdefault(trace.problem_id, len(numbers)))
    return ScoredSteps(
        np.array(scores, dtype=np.float64),
        np.array(correct, dtype=np.bool_),
        np.array(problems, dtype=np.int64),
        unscored,
    )


def step_scores(trace: EvaluatedTrace) -> list[float | None]:
    """The labeler's score of each step; None where it gave none.

    Raises:
        ValueError: the label has another number of steps than the trace.
    """
    label = trace.predicted
    if label is None or not label.step_labels:
        return [None] * trace.n_steps
    if len(label.step_labels) != trace.n_steps:
        raise ValueError(
            f"{len(label.step_labels)} step labels for the {trace.n_steps} steps of trace '{trace.trace_id}'"
        )
    return [step.score for step in label.step_labels]


# --- Average precision of finding the incorrect steps, with an interval that lets steps of one


NORMAL_975 = 1.959963984540054
"""The 97.5% point of the standard normal distribution."""


def average_precision(scores: Floats, positive: Mask, *, descending: bool = True) -> float | None:
    """Precision at each threshold, weighted by the recall gained there (scikit-learn's); None without positives."""
    return _value_and_influence(scores if not descending else -scores, positive)[0]


def average_precision_of_incorrect(steps: ScoredSteps) -> Estimate:
    """Average precision of incorrect steps, ranked from the lowest score up.

    The interval is the infinitesimal jackknife's (Efron, JRSS B 54:83, 1992): what each problem adds
    to the figure, to first order, is known in closed form, so that no resampling of sorted scores is
    needed. Clipped to [0, 1]; None where fewer than two problems hold incorrect steps.
    """
    value, influence = _value_and_influence(steps.score, ~steps.correct)
    if value is None:
        return Estimate(None, None)
    problems = int(steps.problem.max()) + 1
    if len(np.unique(steps.problem[~steps.correct])) < 2:
        return Estimate(value, None)
    of_problem = np.bincount(steps.problem, influence, problems)
    half = NORMAL_975 * math.sqrt(problems / (problems - 1) * float(of_problem @ of_problem))
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))


def _value_and_influence(keys: Floats, positive: Mask) -> tuple[float | None, Floats]:
    """The figure over steps ranked by ascending keys, and its derivative by the weight of each step."""
    total = int(positive.sum())
    if not total:
        return None, np.zeros(len(keys))
    values, at = np.unique(keys, return_inverse=True)
    at = at.reshape(-1)
    found = np.bincount(at, positive, len(values))
    ranked = np.bincount(at, minlength=len(values)).cumsum().astype(np.float64)
    hits = found.cumsum()
    precision = hits / ranked
    value = float((precision * found).sum() / total)
    # A step counts in the precision of its own threshold and of every later one.
    as_hit = (found / ranked)[::-1].cumsum()[::-1]
    as_ranked = (found * hits / ranked**2)[::-1].cumsum()[::-1]
    gained = np.where(positive, precision[at] + as_hit[at] - value, 0.0)
    influence: Floats = (gained - as_ranked[at]) / total
    return value, influence


# --- How well step scores tell good steps from bad ones, without any threshold, and what they


BINS = 10
"""Bins of the calibration curve, of equal width."""


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The steps whose score lies in one bin."""

    low: float
    """Lower edge; it belongs to the bin."""
    high: float
    """Upper edge; it belongs to the next bin, in the last bin to this one."""
    n: int
    """Steps."""
    mean_score: float | None
    """Their mean score; None without steps."""
    share_correct: float | None
    """Share of them that gold calls correct: equal to the mean score if the scores are probabilities."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "mean_score": self.mean_score,
            "share_correct": self.share_correct,
        }


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """The measures of step scores that need no threshold."""

    n_correct: int
    """Scored steps that gold calls correct."""
    n_incorrect: int
    """Scored steps that gold calls incorrect."""
    unscored: int
    """Steps with a truth, but without a score: left out of everything here."""
    auroc: Estimate
    """Chance that a correct step has the higher score of a pair, ties half; None if a class is empty. The
    interval allows for steps of one problem (Obuchowski, Biometrics 53:567, 1997)."""
    average_precision_incorrect: Estimate
    """Of incorrect steps, ranked from the lowest score up; None without any. Its floor is their share."""
    brier: Estimate
    """Mean squared distance of score and truth, in [0, 1], lower is better; None without steps."""
    calibration_error: float | None
    """Mean distance of mean score and share correct over the bins, by steps; None without steps."""
    calibration: tuple[CalibrationBin, ...]
    """The calibration curve."""

    def as_json(self) -> dict[str, Any]:
        """The key `step_scores` of the diagnostics."""
        return {
            "n_correct": self.n_correct,
            "n_incorrect": self.n_incorrect,
            "unscored": self.unscored,
            "auroc": self.auroc.value,
            "auroc_ci95": as_list(self.auroc),
            "average_precision_incorrect": self.average_precision_incorrect.value,
            "average_precision_incorrect_ci95": as_list(self.average_precision_incorrect),
            "brier": self.brier.value,
            "brier_ci95": as_list(self.brier),
            "calibration_error": self.calibration_error,
            "calibration": [part.as_json() for part in self.calibration],
        }


def score_report(steps: ScoredSteps, seed: int = 0, resamples: int = RESAMPLES) -> ScoreReport:
    """All measures of a labeler's step scores."""
    bins = calibration_curve(steps.score, steps.correct)
    return ScoreReport(
        n_correct=int(steps.correct.sum()),
        n_incorrect=int((~steps.correct).sum()),
        unscored=steps.unscored,
        auroc=auroc_with_interval(steps),
        average_precision_incorrect=average_precision_of_incorrect(steps),
        brier=_brier(steps, seed, resamples),
        calibration_error=calibration_error(bins),
        calibration=bins,
    )


def auroc(scores: Floats, positive: Mask) -> float | None:
    """Chance that a positive has a higher score than a negative, ties half; None if a class is empty."""
    above, n_positive, n_negative = _pairs_won(scores, positive)
    return None if above is None else float(above[positive].sum() / (n_positive * n_negative))


def auroc_with_interval(steps: ScoredSteps) -> Estimate:
    """AUROC of "correct" with Obuchowski's interval for clustered data, clipped to [0, 1].

    No interval where fewer than two problems hold correct, or incorrect, steps.
    """
    won, n, m = _pairs_won(steps.score, steps.correct)
    if won is None:
        return Estimate(None, None)
    # Placement of each step: the share of the other class that it lies on the right side of.
    placed = won / np.where(steps.correct, m, n)
    value = float(placed[steps.correct].mean())
    problems = int(steps.problem.max()) + 1
    excess = placed - value
    of_correct = np.bincount(steps.problem, np.where(steps.correct, excess, 0.0), problems)
    of_incorrect = np.bincount(steps.problem, np.where(steps.correct, 0.0, excess), problems)
    with_correct = len(np.unique(steps.problem[steps.correct]))
    with_incorrect = len(np.unique(steps.problem[~steps.correct]))
    if min(with_correct, with_incorrect) < 2:
        return Estimate(value, None)
    variance = (
        with_correct / (with_correct - 1) * float(of_correct @ of_correct) / n**2
        + with_incorrect / (with_incorrect - 1) * float(of_incorrect @ of_incorrect) / m**2
        + 2 * problems / (problems - 1) * float(of_correct @ of_incorrect) / (n * m)
    )
    half = NORMAL_975 * math.sqrt(max(0.0, variance))
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))


def calibration_curve(
    scores: Floats, correct: Mask, bins: int = BINS
) -> tuple[CalibrationBin, ...]:
    """Mean score and share correct in bins of equal width over [0, 1]."""
    edges = [index / bins for index in range(bins + 1)]
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    total = np.bincount(place, scores, bins)
    right = np.bincount(place, correct, bins)
    return tuple(
        CalibrationBin(
            low=low,
            high=high,
            n=int(count),
            mean_score=float(total[index] / count) if count else None,
            share_correct=float(right[index] / count) if count else None,
        )
        for index, ((low, high), count) in enumerate(zip(pairwise(edges), counts, strict=True))
    )


def calibration_error(bins: Sequence[CalibrationBin]) -> float | None:
    """Distance of mean score and share correct, averaged over steps; None without steps."""
    steps = sum(part.n for part in bins)
    if not steps:
        return None
    return (
        sum(
            part.n * abs(part.mean_score - part.share_correct)
            for part in bins
            if part.mean_score is not None and part.share_correct is not None
        )
        / steps
    )


def _brier(steps: ScoredSteps, seed: int, resamples: int) -> Estimate:
    problems = int(steps.problem.max()) + 1 if len(steps) else 0
    squares = (steps.score - steps.correct) ** 2
    counts = np.stack(
        [
            np.bincount(steps.problem, squares, problems),
            np.bincount(steps.problem, minlength=problems).astype(np.float64),
        ],
        axis=1,
    )

    def mean(sums: Floats) -> tuple[Floats, Mask]:
        return ratio(sums[..., 0], sums[..., 1])

    drawn = resampled_sums(counts, generator(seed, "brier"), resamples)
    return estimate(mean, counts.sum(axis=0), drawn)


def _pairs_won(scores: Floats, positive: Mask) -> tuple[Floats | None, int, int]:
    """For each step how many of the other class it lies on the right side of, ties half.

    Returns:
        That count, the number of positives and of negatives; None instead if a class is empty.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None, n_positive, n_negative
    _, at = np.unique(scores, return_inverse=True)
    at = at.reshape(-1)

    def below(mask: Mask) -> tuple[Floats, NDArray[np.int64]]:
        tied = np.bincount(at, mask)
        return tied.cumsum() - tied / 2, tied.astype(np.int64)

    under_positive, _ = below(~positive)
    under_negative, _ = below(positive)
    won = np.where(positive, under_positive[at], n_positive - under_negative[at])
    return won, n_positive, n_negative
