"""Average precision of finding the incorrect steps, with an interval that lets steps of one problem move together."""

from __future__ import annotations

import math

import numpy as np

from evaluation.bootstrap import Estimate
from evaluation.measures import Floats, Mask
from evaluation.scored_steps import ScoredSteps

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
