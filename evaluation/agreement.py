"""Agreement coefficients between labelers: Cohen's kappa, Krippendorff's alpha, Pearson's r. Undefined is None."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement beyond chance of two labelers on the same steps, in [-1, 1].

    None without steps, and where chance alone explains everything (both always say the same one word).

    Raises:
        ValueError: they do not have the same number of words.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} words against {len(second)}")
    n = len(first)
    if not n:
        return None
    agreed = sum(one == two for one, two in zip(first, second, strict=True))
    said, also_said = Counter(first), Counter(second)
    # In whole numbers, so that "exactly one" is exact.
    by_chance = sum(count * also_said[word] for word, count in said.items())
    if by_chance == n * n:
        return None
    return (n * agreed - by_chance) / (n * n - by_chance)


def pearson(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Correlation of two labelers' scores in [-1, 1]; None below two steps or where one is constant.

    Raises:
        ValueError: they do not have the same number of scores.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scores against {len(second)}")
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return None
    x, y = x - x.mean(), y - y.mean()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    if length == 0:
        return None
    return max(-1.0, min(1.0, float(x @ y) / length))


def krippendorff_alpha(words: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Nominal alpha of any number of labelers, in [-1, 1], silence allowed.

    None if no step has two words, or only one word was ever used.

    Args:
        words: one row per labeler, one column per step; None where it is silent.

    Raises:
        ValueError: the rows have different lengths.
    """
    if len({len(row) for row in words}) > 1:
        raise ValueError("the labelers have different numbers of steps")
    counts = [
        Counter(word for word in column if word is not None) for column in zip(*words, strict=True)
    ]
    counts = [said for said in counts if said.total() > 1]
    totals = sum(counts, Counter[Hashable]())
    n = totals.total()
    expected = n * n - sum(count * count for count in totals.values())
    if not expected:
        return None
    observed = sum(
        (said.total() ** 2 - sum(count * count for count in said.values())) / (said.total() - 1)
        for said in counts
    )
    return 1 - (n - 1) * observed / expected
