"""How good a ranking of documents is: nDCG, recall and reciprocal rank.

Jaervelin and Kekaelaeinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, with the
gain 2^grade - 1 of Burges et al. (ICML 2005); trec_eval's `ndcg_cut` takes the grade itself, which
is the same for grades 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from evaluation.figures import generator

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class RankedProblem:
    """What was found for one problem, and what is relevant to it."""

    documents: tuple[str, ...]
    """Documents found, best first, each once."""
    grades: Mapping[str, int]
    """Grades of the judged documents; those not judged count as 0."""


def ndcg(problem: RankedProblem, depth: int) -> float:
    """Normalised discounted cumulated gain of the first `depth` documents, in [0, 1].

    >>> ndcg(RankedProblem(("b", "a"), {"a": 1}), 10) == 1 / log2(3)
    True
    """
    gains = [problem.grades.get(document, 0) for document in problem.documents[:depth]]
    ideal = sorted(problem.grades.values(), reverse=True)[:depth]
    return _discounted(gains) / _discounted(ideal)


def recall(problem: RankedProblem, depth: int) -> float:
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
    """Means over the problems that have a relevant document; None where there is no such problem.

    Args:
        problems: every one with at least one grade above 0.
        recall_at: depths of recall.
        seed: of the bootstrap by problem (2,000 resamples) behind the interval of nDCG.

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
        measured[f"recall@{depth}"] = _mean([recall(problem, depth) for problem in problems])
    return measured


def _discounted(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1) / log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _interval(values: Sequence[float], seed: int) -> list[float] | None:
    if not values:
        return None
    draws = generator(seed, "ranking").integers(0, len(values), (_RESAMPLES, len(values)))
    means = np.asarray(values)[draws].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return [float(low), float(high)]
