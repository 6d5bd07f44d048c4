"""Votes over answers. The first seen wins a tie; whoever gives no answer has no vote."""

from __future__ import annotations

from collections.abc import Sequence


def majority(answers: Sequence[str | None]) -> str | None:
    """The answer given most often; of equally frequent ones the first seen; None if nobody gives one.

    >>> majority(["A", None, "B", "B", None, None]), majority(["A", "B"]), majority([None])
    ('B', 'A', None)
    """
    return weighted_majority(answers, [1.0] * len(answers))


def weighted_majority(answers: Sequence[str | None], weights: Sequence[float | None]) -> str | None:
    """The answer with the highest sum of weights; of equally heavy ones the first seen.

    None if nobody has both an answer and a weight; whoever lacks one of them has no vote.

    >>> weighted_majority(["A", "B", "B", None, "C"], [0.9, 0.5, 0.3, 5.0, None])
    'A'
    """
    sums: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None and weight is not None:
            sums[answer] = sums.get(answer, 0.0) + weight
    # max keeps the first of equals, and a dict the order of arrival.
    return max(sums, key=lambda answer: sums[answer]) if sums else None
