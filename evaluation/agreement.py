"""Agreement coefficients between labelers: Cohen's kappa, Krippendorff's alpha, Pearson's r. Undefined is None.

The formulas work on counts that add up over steps, so that a resampling of problems gives their
intervals; the functions on words count first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from evaluation.measures import Floats, Mask


def kappa_of_tables(tables: Floats) -> tuple[Floats, Mask]:
    """Cohen's kappa of cross tables, shape (..., words, words), with a mask of where it is defined.

    Not defined without steps, and where chance alone explains everything (both always say one word).
    """
    n = tables.sum(axis=(-2, -1))
    agreed = np.trace(tables, axis1=-2, axis2=-1)
    by_chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1)
    # Counts are whole numbers below 2**53, so that "exactly one" is exact.
    defined = np.asarray(by_chance != n * n)
    room = np.where(defined, n * n - by_chance, 1.0)
    return np.where(defined, n * agreed - by_chance, 0.0) / room, defined


def alpha_of_counts(totals: Floats, observed: Floats) -> tuple[Floats, Mask]:
    """Krippendorff's nominal alpha, with a mask of where it is defined.

    Args:
        totals: how often each word was said on steps with two words or more, shape (..., words).
        observed: sum over those steps of (m² - sum of squared counts) / (m - 1), m words on a step; shape (...).
    """
    n = totals.sum(axis=-1)
    expected = n * n - (totals * totals).sum(axis=-1)
    defined = np.asarray(expected > 0)
    return 1 - np.where(defined, (n - 1) * observed, 0.0) / np.where(
        defined, expected, 1.0
    ), defined


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement beyond chance of two labelers on the same steps, in [-1, 1]; None where not defined.

    Raises:
        ValueError: they do not have the same number of words.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} words against {len(second)}")
    numbers: dict[Hashable, int] = {}
    for word in (*first, *second):
        numbers.setdefault(word, len(numbers))
    table = np.zeros((len(numbers), len(numbers)))
    np.add.at(table, ([numbers[word] for word in first], [numbers[word] for word in second]), 1)
    value, defined = kappa_of_tables(table)
    return float(value) if defined else None


def pearson(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float | None:
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
    observed = sum(
        (said.total() ** 2 - sum(count * count for count in said.values())) / (said.total() - 1)
        for said in counts
    )
    value, defined = alpha_of_counts(
        np.array(list(totals.values()), dtype=np.float64), np.array(observed, dtype=np.float64)
    )
    return float(value) if defined else None
