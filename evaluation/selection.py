"""Best-of-N on one problem: over its first N candidates, or in expectation over all subsets of size N."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import generator
from evaluation.measures import Floats
from evaluation.pools import AGGREGATIONS, Pool, rewards
from evaluation.votes import majority, weighted_majority

SUBSETS = 1000
"""Subsets drawn for the majorities where the expectation has no closed form."""

Chances = dict[str, float | None]
"""By measure the chance in [0, 1] that the problem is solved; None where no candidate can be chosen."""


def first_n(pool: Pool, n: int) -> Chances:
    """Every measure over the first n candidates: 1.0 solved, 0.0 not. The first wins a tie.

    None for the measures that need scores, if none of the n is scored. A vote to which nobody
    brings an answer solves nothing.
    """
    correct_answers = pool.answer_is_correct()
    cut = Pool(pool.problem_id, pool.candidates[:n])
    answers = [one.answer for one in cut.candidates]
    found: Chances = {}
    for name in AGGREGATIONS:
        best = best_index(rewards(cut, name))
        found[name] = None if best is None else float(cut.candidates[best].correct)
    voted = majority(answers)
    found["majority"] = float(voted is not None and correct_answers[voted])
    weights = rewards(cut, "min")
    chosen = weighted_majority(answers, weights)
    found["weighted_majority"] = (
        float(chosen is not None and correct_answers[chosen])
        if any(weight is not None for weight in weights)
        else None
    )
    found["pass"] = float(any(one.correct for one in cut.candidates))
    found["mean_accuracy"] = sum(one.correct for one in cut.candidates) / n
    return found


def best_index(figures: Sequence[float | None]) -> int | None:
    """Index of the highest figure, of equal ones the first; None if there is none."""
    known = [(figure, index) for index, figure in enumerate(figures) if figure is not None]
    # max keeps the first of equals.
    return max(known, key=lambda pair: pair[0])[1] if known else None


def expected(pool: Pool, n: int, seed: int = 0, subsets: int = SUBSETS) -> Chances:
    """Every measure in expectation over all subsets of n candidates, ties shared equally.

    Exact but for the two majorities where there are more than `subsets` subsets: these are means
    over so many, drawn by the seed and the problem's id. Subsets without a scored candidate are left out of what needs scores.
    """
    total = len(pool.candidates)
    right = sum(one.correct for one in pool.candidates)
    correct = [one.correct for one in pool.candidates]
    found: Chances = {name: expected_best(rewards(pool, name), correct, n) for name in AGGREGATIONS}
    drawn = _drawn_subsets(pool, n, seed, subsets)
    found["majority"] = _expected_vote(pool, drawn, [1.0] * total)
    found["weighted_majority"] = _expected_vote(pool, drawn, rewards(pool, "min"))
    found["pass"] = 1 - math.comb(total - right, n) / math.comb(total, n)
    found["mean_accuracy"] = right / total
    return found


def expected_best(figures: Sequence[float | None], correct: Sequence[bool], n: int) -> float | None:
    """Chance that the highest figure in a random subset of n belongs to a correct candidate.

    The best of a subset has a given figure in as many subsets as lie below or at it, less those
    that lie below it (whole numbers, so exact); those who share it share the chance. Candidates
    without a figure lie below all others and are never chosen; None if there is none with one.
    """
    groups: dict[float, list[bool]] = defaultdict(list)
    for figure, right in zip(figures, correct, strict=True):
        if figure is not None:
            groups[figure].append(right)
    below = sum(figure is None for figure in figures)
    possible = math.comb(len(figures), n) - math.comb(below, n)
    if not possible:
        return None
    won = 0.0
    for figure in sorted(groups):
        tied = groups[figure]
        subsets = math.comb(below + len(tied), n) - math.comb(below, n)
        won += subsets / possible * (sum(tied) / len(tied))
        below += len(tied)
    # Shares add up to one but for the last bit.
    return min(1.0, won)


def _drawn_subsets(pool: Pool, n: int, seed: int, subsets: int) -> NDArray[np.bool_]:
    """Subsets of n candidates as a mask, shape (subsets, candidates): all if they are no more, else random ones."""
    total = len(pool.candidates)
    if math.comb(total, n) <= subsets:
        every = np.array(list(combinations(range(total), n)), dtype=np.int64)
        chosen = np.zeros((len(every), total), dtype=np.bool_)
        chosen[np.arange(len(every))[:, None], every] = True
        return chosen
    order = generator(seed, pool.problem_id).random((subsets, len(pool.candidates))).argsort(axis=1)
    return np.asarray(order.argsort(axis=1) < n)


def _expected_vote(
    pool: Pool, drawn: NDArray[np.bool_], weights: Sequence[float | None]
) -> float | None:
    """Share of the drawn subsets whose vote is right, equal answers sharing; subsets without a weight left out."""
    correct_answers: Mapping[str, bool] = pool.answer_is_correct()
    names = {answer: column for column, answer in enumerate(correct_answers)}
    weight: Floats = np.array([0.0 if value is None else value for value in weights])
    known = np.array([value is not None for value in weights])
    usable = drawn[:, known].any(axis=1)
    if not usable.any():
        return None
    if not names:
        return 0.0
    of_answer = np.zeros((len(pool.candidates), len(names)))
    for row, one in enumerate(pool.candidates):
        if one.answer is not None:
            of_answer[row, names[one.answer]] = 1.0
    voting = (drawn & known)[usable].astype(np.float64)
    present = voting @ of_answer > 0
    sums = np.where(present, voting @ (of_answer * weight[:, None]), -1.0)
    # An answer that nobody in the subset gives stands below every sum of weights, which are not negative.
    winners = present & (sums == sums.max(axis=1, keepdims=True))
    right = winners @ np.array([correct_answers[name] for name in names], dtype=np.float64)
    won = winners.sum(axis=1)
    share = np.divide(right, won, out=np.zeros(len(right)), where=won > 0)
    return float(share.mean())
