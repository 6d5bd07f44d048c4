"""Threshold-free measures: AUROC, average precision and calibration of step scores, nDCG.

nDCG is Järvelin and Kekäläinen's ("Cumulated gain-based evaluation of IR techniques", TOIS 2002)
with the gain 2^grade - 1 of Burges et al. (ICML 2005); trec_eval's `ndcg_cut` uses the grade
itself, which is the same for grades 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluated import EvaluatedTrace, split_by_gold
from evaluation.frames import NEUTRAL, Floats, Mask, numbered
from evaluation.measures import RESAMPLES, Estimate, estimate, generator, ratio, resampled_sums
from evaluation.wording import figures_json


@dataclass(frozen=True, slots=True)
class ScoredSteps:
    """The steps with both a score and gold; columns of equal length."""

    score: Floats
    """In [0, 1]; high for good steps."""
    correct: Mask
    """Whether gold calls the step correct."""
    problem: NDArray[np.integer[Any]]
    """Number of the step's problem, 0-based, without gaps."""
    unscored: int
    """Steps with gold but without a score, which are left out."""

    def __len__(self) -> int:
        return len(self.score)


def scored_steps(traces: Iterable[EvaluatedTrace]) -> ScoredSteps:
    """The scored steps of traces with usable gold.

    Steps that gold calls neutral are left out, and steps after a first error if gold is only that.
    """
    known = split_by_gold(traces).usable
    truth, incorrect = known.gold_calls(0.5)
    truth &= known.gold.verdict != NEUTRAL
    unscored = int((truth & ~known.predicted.scored).sum())
    kept = truth & known.predicted.scored
    frame = known.frame
    per_trace = frame.total(kept)
    places = np.flatnonzero(per_trace)
    score = known.predicted.score
    return ScoredSteps(
        score if kept.all() else score[kept],
        ~incorrect[kept],
        np.repeat(numbered(frame.problem[places]).astype(np.int32), per_trace[places]),
        unscored,
    )


NORMAL_975 = 1.959963984540054
"""The 97.5% point of the standard normal distribution."""


def average_precision(scores: Floats, positive: Mask, *, descending: bool = True) -> float | None:
    """Precision at each threshold weighted by the recall gained, as in scikit-learn.

    None without positives.
    """
    return _precision_of_ranks(_ranks(-scores if descending else scores), positive)[0]


def average_precision_of_incorrect(steps: ScoredSteps) -> Estimate:
    """Average precision of incorrect steps, ranked from the lowest score up.

    The interval is the infinitesimal jackknife's (Efron, JRSS B 54:83, 1992): the first-order
    contribution of each problem has a closed form, so sorted scores need no resampling. Clipped to
    [0, 1]; None if fewer than two problems have incorrect steps.
    """
    at = _ranks(steps.score)
    value, of_hit, of_any = _precision_of_ranks(at, ~steps.correct)
    if value is None:
        return Estimate(None, None)
    problems = int(steps.problem.max()) + 1
    if len(np.unique(steps.problem[~steps.correct])) < 2:
        return Estimate(value, None)
    total = len(steps) - int(steps.correct.sum())

    def influence(part: slice) -> Floats:
        gained = np.where(steps.correct[part], 0.0, of_hit[at[part]])
        return np.asarray((gained - of_any[at[part]]) / total)

    of_problem = summed(steps.problem, influence, problems)
    half = NORMAL_975 * math.sqrt(problems / (problems - 1) * float(of_problem @ of_problem))
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))


def _precision_of_ranks(
    at: NDArray[np.int32], positive: Mask
) -> tuple[float | None, Floats, Floats]:
    """Average precision over ascending ranks, and its derivative by the weight of a step.

    Returns:
        The value (None without positives), and by rank two parts of the derivative, times the
        number of positives: what a positive step adds, and what any step takes away.
    """
    total = int(positive.sum())
    if not total:
        return None, np.zeros(0), np.zeros(0)
    ranked = np.bincount(at).astype(np.int64)
    found = np.bincount(at[positive], minlength=len(ranked)).astype(np.float64)
    ranked = ranked.cumsum().astype(np.float64)
    hits = found.cumsum()
    precision = hits / ranked
    value = float((precision * found).sum() / total)
    # A step counts in the precision at its own threshold and at every later one.
    as_hit = (found / ranked)[::-1].cumsum()[::-1]
    as_ranked = (found * hits / ranked**2)[::-1].cumsum()[::-1]
    return value, precision + as_hit - value, as_ranked


def _ranks(keys: Floats) -> NDArray[np.int32]:
    """The rank of each key among the different ones, ascending from 0.

    Keys between two cuts are ranked on their own, so that only a part of the keys is sorted at once.
    """
    ranks, used = np.zeros(len(keys), np.int32), 0
    cuts = np.unique(keys[:: max(1, len(keys) // _SAMPLE)])
    cuts = np.unique(cuts[:: max(1, len(cuts) // max(1, len(keys) // _BLOCK))])
    for low, high in pairwise([-math.inf, *cuts.tolist(), math.inf]):
        for at in (np.flatnonzero(keys == low), np.flatnonzero((keys > low) & (keys < high))):
            found, kind = np.unique(keys[at], return_inverse=True)
            ranks[at] = kind + used
            used += len(found)
    return ranks


_BLOCK = 1 << 20
"""Steps whose weights, or about whose ranks, are in memory at once."""
_SAMPLE = 10_000
"""Keys among which cuts are chosen."""


def summed(groups: NDArray[Any], weights: Callable[[slice], Floats], number: int) -> Floats:
    """The weights of each group added up in order, some steps at a time."""
    total = np.zeros(number)
    for start in range(0, len(groups), _BLOCK):
        part = slice(start, start + _BLOCK)
        np.add.at(total, groups[part], weights(part))
    return total


BINS = 10
"""Bins of the calibration curve, of equal width."""


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The steps with a score in one bin."""

    low: float
    """Lower edge, included."""
    high: float
    """Upper edge, included in the last bin only."""
    n: int
    """Steps."""
    mean_score: float | None
    """Their mean score; None without steps."""
    share_correct: float | None
    """Share that gold calls correct: the mean score, if scores are calibrated."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return figures_json(self)


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """Threshold-free measures of step scores."""

    n_correct: int
    """Scored steps that gold calls correct."""
    n_incorrect: int
    """Scored steps that gold calls incorrect."""
    unscored: int
    """Steps with gold but without a score, which are left out."""
    auroc: Estimate
    """Of correct steps; None if a class is empty. The interval accounts for steps of one problem
    (Obuchowski, Biometrics 53:567, 1997)."""
    average_precision_incorrect: Estimate
    """Of incorrect steps, from the lowest score up; None without any. Chance level is their
    share."""
    brier: Estimate
    """Mean squared distance of score and gold, in [0, 1], lower is better; None without steps."""
    calibration_error: float | None
    """Mean distance of mean score and share correct over bins, weighted by steps; None without
    steps."""
    calibration: tuple[CalibrationBin, ...]

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return figures_json(self)


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
    """Probability that a positive scores above a negative, ties half; None if a class is empty."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    at = _ranks(scores)
    above, _ = _won_by_rank(at, positive)
    return float(above[at[positive]].sum() / (n_positive * n_negative))


def auroc_with_interval(steps: ScoredSteps) -> Estimate:
    """AUROC of "correct" with Obuchowski's interval for clustered data, clipped to [0, 1].

    No interval if fewer than two problems have correct, or incorrect, steps.
    """
    correct = steps.correct
    n = int(correct.sum())
    m = len(steps) - n
    if not n or not m:
        return Estimate(None, None)
    # Placement of each step: the share of the other class that it is ranked right against.
    at = _ranks(steps.score)
    of_positive, of_negative = (
        won / size for won, size in zip(_won_by_rank(at, correct), (m, n), strict=True)
    )
    value = float(of_positive[at[correct]].mean())
    problems = int(steps.problem.max()) + 1

    def excess(placed: Floats, mask: Mask) -> Floats:
        def of_part(part: slice) -> Floats:
            return np.where(mask[part], placed[at[part]] - value, 0.0)

        return summed(steps.problem, of_part, problems)

    of_correct, of_incorrect = excess(of_positive, correct), excess(of_negative, ~correct)
    with_correct = len(np.unique(steps.problem[correct]))
    with_incorrect = len(np.unique(steps.problem[~correct]))
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
    # A score belongs to the last edge that it reaches.
    place = np.zeros(len(scores), np.int8)
    for edge in edges[1:-1]:
        place += scores >= edge
    counts = np.bincount(place, minlength=bins)
    total = summed(place, lambda part: scores[part], bins)
    right = np.bincount(place[correct], minlength=bins)
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

    def squares(part: slice) -> Floats:
        return np.asarray((steps.score[part] - steps.correct[part]) ** 2)

    counts = np.stack(
        [
            summed(steps.problem, squares, problems),
            np.bincount(steps.problem, minlength=problems).astype(np.float64),
        ],
        axis=1,
    )

    def mean(sums: Floats) -> tuple[Floats, Mask]:
        return ratio(sums[..., 0], sums[..., 1])

    drawn = resampled_sums(counts, generator(seed, "brier"), resamples)
    return estimate(mean, counts.sum(axis=0), drawn)


def _won_by_rank(at: NDArray[np.int32], positive: Mask) -> tuple[Floats, Floats]:
    """By rank the number of steps of the other class that a step is ranked right against, ties
    half: if it is positive, and if it is negative."""
    size = int(at.max()) + 1

    def below(mask: Mask) -> Floats:
        tied = np.bincount(at[mask], minlength=size).astype(np.float64)
        return np.asarray(tied.cumsum() - tied / 2)

    return below(~positive), int(positive.sum()) - below(positive)


@dataclass(frozen=True, slots=True)
class RankedProblem:
    """The documents found for one problem, and the relevant ones."""

    documents: tuple[str, ...]
    """Best first, without duplicates."""
    grades: Mapping[str, int]
    """Grades of the judged documents; others count as 0."""


def ndcg(problem: RankedProblem, depth: int) -> float:
    """Normalized discounted cumulative gain of the first `depth` documents, in [0, 1].

    >>> ndcg(RankedProblem(("b", "a"), {"a": 1}), 10) == 1 / log2(3)
    True
    """
    gains = [problem.grades.get(document, 0) for document in problem.documents[:depth]]
    ideal = sorted(problem.grades.values(), reverse=True)[:depth]
    return _discounted(gains) / _discounted(ideal)


def recall_within(problem: RankedProblem, depth: int) -> float:
    """Share of the relevant documents among the first `depth`, in [0, 1]."""
    relevant = {document for document, grade in problem.grades.items() if grade > 0}
    return len(relevant.intersection(problem.documents[:depth])) / len(relevant)


def reciprocal_rank(problem: RankedProblem) -> float:
    """1 / rank of the first relevant document, rank from 1; 0 if none was found."""
    for rank, document in enumerate(problem.documents, start=1):
        if problem.grades.get(document, 0) > 0:
            return 1 / rank
    return 0.0


def evaluate_rankings(
    problems: Sequence[RankedProblem], *, recall_at: Sequence[int], seed: int = 0
) -> dict[str, float | list[float] | None]:
    """Means over problems; None without problems.

    Args:
        problems: each with at least one grade above 0.
        recall_at: depths of recall.
        seed: of the bootstrap by problem for the interval of nDCG.

    Returns:
        `ndcg@10` with `ndcg@10_ci95`, `mrr` over all documents found, `recall@K` by depth.
    """
    gains = [ndcg(problem, 10) for problem in problems]
    measured: dict[str, float | list[float] | None] = {
        "ndcg@10": _mean(gains),
        "ndcg@10_ci95": _interval(gains, seed),
        "mrr": _mean([reciprocal_rank(problem) for problem in problems]),
    }
    for depth in sorted(set(recall_at)):
        measured[f"recall@{depth}"] = _mean([recall_within(problem, depth) for problem in problems])
    return measured


def _discounted(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1) / log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _interval(values: Sequence[float], seed: int) -> list[float] | None:
    if not values:
        return None
    draws = generator(seed, "ranking").integers(0, len(values), (RESAMPLES, len(values)))
    means = np.asarray(values)[draws].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return [float(low), float(high)]
