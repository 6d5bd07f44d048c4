"""Candidates for a problem, and what the steps of one come to as a single figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

Normalise = Callable[[str], str]
"""Turns an answer into the form in which equal answers are equal strings."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One solution of a problem."""

    answer: str | None
    """Its final answer as it is compared; None if it gives none."""
    correct: bool
    """Whether that is the right answer."""
    step_scores: tuple[float, ...] | None
    """In [0, 1], one per step; None if a step has none: then no score selects this candidate."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of one problem, in the order in which "the first N" counts."""

    problem_id: str
    """The problem."""
    candidates: tuple[Candidate, ...]
    """In order."""

    def normalised(self, normalise: Normalise) -> Pool:
        """The same pool with every answer in its normal form."""
        return replace(
            self,
            candidates=tuple(
                replace(one, answer=None if one.answer is None else normalise(one.answer))
                for one in self.candidates
            ),
        )

    def answer_is_correct(self) -> Mapping[str, bool]:
        """Whether each answer is right, as the first candidate with it says."""
        said: dict[str, bool] = {}
        for one in self.candidates:
            if one.answer is not None:
                said.setdefault(one.answer, one.correct)
        return said

    def disputed_answers(self) -> int:
        """Answers that are right for one candidate and wrong for another."""
        told = {(one.answer, one.correct) for one in self.candidates if one.answer is not None}
        return len(told) - len({answer for answer, _ in told})


def log_product(scores: Sequence[float]) -> float:
    """Logarithm of the product of scores in [0, 1]: long traces do not underflow. -inf for a score of 0.

    >>> log_product([0.5, 0.5]) == log_product([0.25])
    True
    """
    return math.fsum(map(math.log, scores)) if all(scores) else -math.inf


def mean(scores: Sequence[float]) -> float:
    """Mean of at least one score, independent of their order to the last bit."""
    return math.fsum(scores) / len(scores)


def last(scores: Sequence[float]) -> float:
    """The score of the last step."""
    return scores[-1]


AGGREGATIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": log_product,
    "last": last,
    "mean": mean,
}
"""A trace's step scores as one figure to rank by (product: its logarithm, which ranks alike)."""


def rewards(pool: Pool, aggregation: str) -> list[float | None]:
    """What each candidate is ranked by; None for an unscored one."""
    aggregate = AGGREGATIONS[aggregation]
    return [
        None if one.step_scores is None else aggregate(one.step_scores) for one in pool.candidates
    ]
