"""Agreement coefficients against scikit-learn, scipy and the krippendorff package."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr  # type: ignore[import-untyped]
from sklearn.metrics import cohen_kappa_score  # type: ignore[import-untyped]

from evaluation.comparison import cohen_kappa, krippendorff_alpha, pearson

word = st.sampled_from([1, 0, -1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(word, word), max_size=20))
def test_kappa_is_scikit_learns_where_that_is_defined(rows: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in rows], [b for _, b in rows]
    found = cohen_kappa(first, second)
    if len({*first, *second}) < 2:
        assert found is None
    else:
        assert found == pytest.approx(float(cohen_kappa_score(first, second)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20))
def test_pearson_is_scipys_where_that_is_defined(rows: list[tuple[int, int]]) -> None:
    first, second = [a / 20 for a, _ in rows], [b / 20 for _, b in rows]
    found = pearson(first, second)
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(float(pearsonr(first, second)[0]), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 12).flatmap(lambda n: st.lists(st.lists(st.none() | word, min_size=n, max_size=n), min_size=2, max_size=4)))  # fmt: skip
def test_alpha_is_that_of_the_package_where_that_is_defined(rows: list[list[int | None]]) -> None:
    found = krippendorff_alpha(rows)
    columns = [[said for said in column if said is not None] for column in zip(*rows, strict=True)]
    paired = [said for column in columns if len(column) > 1 for said in column]
    if len(set(paired)) < 2:
        assert found is None
        return
    table = np.array([[np.nan if said is None else said for said in row] for row in rows])
    expected = krippendorff.alpha(table, level_of_measurement="nominal", value_domain=[-1, 0, 1])
    assert found == pytest.approx(float(expected))


def test_words_of_different_lengths_are_never_lined_up() -> None:
    with pytest.raises(ValueError, match="2 labels and 1 labels"):
        cohen_kappa([1, 1], [1])
    with pytest.raises(ValueError, match="2 scores and 1 scores"):
        pearson([1, 1], [1])
    with pytest.raises(ValueError, match="different numbers of steps"):
        krippendorff_alpha([[1], [1, 0]])
