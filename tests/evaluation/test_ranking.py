"""Ranking measures against their definitions written out slowly, and scikit-learn's nDCG."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score  # type: ignore[import-untyped]

from evaluation.discrimination import (
    RankedProblem,
    evaluate_rankings,
    ndcg,
    recall_within,
    reciprocal_rank,
)

GRADES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), min_size=1).filter(
    lambda grades: any(grades.values())
)
PROBLEMS = st.builds(
    RankedProblem,
    st.permutations("abcdefghij").flatmap(
        lambda order: st.integers(0, 10).map(lambda n: tuple(order[:n]))
    ),
    GRADES,
)


def slow_ndcg(problem: RankedProblem, depth: int) -> float:
    def gain(documents: list[str]) -> float:
        total = 0.0
        for place in range(min(depth, len(documents))):
            grade = problem.grades.get(documents[place], 0)
            total += (math.pow(2, grade) - 1) / (math.log(place + 2) / math.log(2))
        return total

    best = list(problem.grades)
    best.sort(key=lambda document: problem.grades[document], reverse=True)
    return gain(list(problem.documents)) / gain(best)


@given(PROBLEMS, st.integers(1, 12))
def test_measures_are_their_definitions(problem: RankedProblem, depth: int) -> None:
    assert ndcg(problem, depth) == pytest.approx(slow_ndcg(problem, depth), abs=1e-12)
    assert 0 <= ndcg(problem, depth) <= 1 + 1e-12
    relevant = [document for document in problem.grades if problem.grades[document]]
    hits = [document for document in relevant if document in problem.documents[:depth]]
    assert recall_within(problem, depth) == len(hits) / len(relevant)
    ranks = [place + 1 for place, each in enumerate(problem.documents) if each in relevant]
    assert reciprocal_rank(problem) == (1 / min(ranks) if ranks else 0)


@pytest.mark.slow
@given(st.permutations(range(6)), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_ndcg_of_whole_rankings_is_scikit_learns(order: list[int], grades: list[int]) -> None:
    if not any(grades):
        return
    names = [str(place) for place in range(6)]
    problem = RankedProblem(
        tuple(names[place] for place in order), dict(zip(names, grades, strict=True))
    )
    scores = np.zeros((1, 6))
    for rank, place in enumerate(order):
        scores[0, place] = -rank
    gains = np.array([[2**grade - 1 for grade in grades]])
    for depth in (1, 3, 6):
        assert ndcg(problem, depth) == pytest.approx(ndcg_score(gains, scores, k=depth))


def test_means_intervals_and_the_empty_case() -> None:
    right = RankedProblem(("a", "b"), {"a": 1})
    second = RankedProblem(("b", "a"), {"a": 1})
    lost = RankedProblem((), {"a": 1})
    measured = evaluate_rankings([right, second, lost], recall_at=(1, 100))
    assert measured["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert measured["mrr"] == pytest.approx(0.5)
    assert (measured["recall@1"], measured["recall@100"]) == (1 / 3, 2 / 3)
    interval = measured["ndcg@10_ci95"]
    assert isinstance(interval, list)
    assert 0 <= interval[0] < 0.55 < interval[1] <= 1
    assert measured == evaluate_rankings([right, second, lost], recall_at=(1, 100))
    assert set(evaluate_rankings([], recall_at=(5,)).values()) == {None}
