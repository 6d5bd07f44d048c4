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

Ranks = NDArray[np.int32]
"""One per step, or a count by rank."""


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
    at = _ranks(-scores if descending else scores)
    return _precision(_up_to(at), _up_to(at, positive))


def average_precision_of_incorrect(steps: ScoredSteps) -> Estimate:
    """Average precision of incorrect steps, ranked from the lowest score up.

    The interval is the infinitesimal jackknife's (Efron, JRSS B 54:83, 1992): the first-order
    contribution of each problem has a closed form, so sorted scores need no resampling. Clipped to
    [0, 1]; None if fewer than two problems have incorrect steps.
    """
    at, incorrect = _ranks(steps.score), ~steps.correct
    ranked, hits = _up_to(at), _up_to(at, incorrect)
    value = _precision(ranked, hits)
    if value is None:
        return Estimate(None, None)
    problems = int(steps.problem.max()) + 1
    if len(np.unique(steps.problem[incorrect])) < 2:
        return Estimate(value, None)

    # A step counts in the precision at its own threshold and at every later one. By rank, what an
    # incorrect step adds and what any step takes away; one after the other, for there may be as
    # many ranks as steps.
    def added(part: slice) -> Floats:
        return np.asarray(_steps_at(hits, part) / ranked[part])

    def taken(part: slice) -> Floats:
        by = ranked[part].astype(np.float64) ** 2
        return np.asarray(_steps_at(hits, part) * hits[part].astype(np.float64) / by)

    later, total = _from_the_end(added, len(ranked)), int(hits[-1])

    def gained(part: slice) -> Floats:
        here = at[part]
        return np.where(incorrect[part], hits[here] / ranked[here] + later[here] - value, 0.0)

    of_problem = summed(steps.problem, gained, problems)
    del later
    later = _from_the_end(taken, len(ranked))
    of_problem -= summed(steps.problem, lambda part: later[at[part]], problems)
    of_problem /= total
    half = NORMAL_975 * math.sqrt(problems / (problems - 1) * float(of_problem @ of_problem))
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))


def _precision(ranked: Ranks, hits: Ranks) -> float | None:
    """Average precision of the positives up to each rank among the steps up to it; None without
    positives."""
    if not len(hits) or not hits[-1]:
        return None
    total = 0.0
    for start in range(0, len(hits), _BLOCK):
        part = slice(start, start + _BLOCK)
        total += float((hits[part] / ranked[part] * _steps_at(hits, part)).sum())
    return total / int(hits[-1])


def _up_to(at: Ranks, mask: Mask | None = None) -> Ranks:
    """By rank the number of the steps (for which the mask holds) up to it."""
    counts = np.zeros(int(at.max()) + 1 if len(at) else 0, np.int32)
    for start in range(0, len(at), _BLOCK):
        part = at[start : start + _BLOCK]
        np.add.at(counts, part if mask is None else part[mask[start : start + _BLOCK]], 1)
    return np.cumsum(counts, dtype=np.int32, out=counts)


def _steps_at(up_to: Ranks, ranks: slice) -> Floats:
    """The numbers of steps at these ranks, from those up to each rank."""
    before = up_to[ranks.start - 1] if ranks.start else 0
    return np.diff(up_to[ranks], prepend=before).astype(np.float64)


def _from_the_end(term: Callable[[slice], Floats], size: int) -> Floats:
    """By rank the sum of the term at it and at all later ranks, added up from the end."""
    sums, carry = np.empty(size), 0.0
    for start in reversed(range(0, size, _BLOCK)):
        part = slice(start, min(start + _BLOCK, size))
        terms = term(part)[::-1]
        terms[0] += carry
        sums[part] = terms.cumsum()[::-1]
        carry = float(sums[start])
    return sums


def _ranks(keys: Floats) -> Ranks:
    """The rank of each key among the different ones, ascending from 0.

    Keys between two cuts are ranked on their own: only a part of the keys is sorted at once.
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
    doubled = _doubled_wins(at := _ranks(scores), ~positive)
    return _won(doubled, at, positive) / (n_positive * n_negative)


def auroc_with_interval(steps: ScoredSteps) -> Estimate:
    """AUROC of "correct" with Obuchowski's interval for clustered data, clipped to [0, 1].

    No interval if fewer than two problems have correct, or incorrect, steps.
    """
    correct = steps.correct
    n = int(correct.sum())
    m = len(steps) - n
    if not n or not m:
        return Estimate(None, None)
    at = _ranks(steps.score)
    below, above = (_doubled_wins(at, mask) for mask in (~correct, correct))
    value = _won(below, at, correct) / (n * m)
    problems = int(steps.problem.max()) + 1

    # Placement of each step: the share of the other class that it is ranked right against.
    def of_correct_step(part: slice) -> Floats:
        return np.where(correct[part], below[at[part]] / 2 / m - value, 0.0)

    def of_incorrect_step(part: slice) -> Floats:
        return np.where(correct[part], 0.0, (n - above[at[part]] / 2) / n - value)

    of_correct = summed(steps.problem, of_correct_step, problems)
    of_incorrect = summed(steps.problem, of_incorrect_step, problems)
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


def _doubled_wins(at: Ranks, mask: Mask) -> Ranks:
    """By rank twice the number of the masked steps that are ranked lower, ties half."""
    up_to = _up_to(at, mask)
    doubled = up_to.copy()
    np.add(up_to[1:], up_to[:-1], out=doubled[1:])
    return doubled


def _won(doubled: Ranks, at: Ranks, mask: Mask) -> float:
    """The wins of the masked steps, added up."""
    parts = (slice(start, start + _BLOCK) for start in range(0, len(at), _BLOCK))
    return sum(int(doubled[at[part][mask[part]]].sum()) for part in parts) / 2


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
