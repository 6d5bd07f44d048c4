"""Exact search against a sort of the float64 matrix product."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.index import vectors as exact_search
from retrieval.index.vectors import nearest_rows

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def unit(count: int, dimension: int, rng: np.random.Generator) -> Floats:
    rows = rng.standard_normal((count, dimension)).astype(np.float32)
    normed: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


def by_sorting(
    product: NDArray[np.float64], k: int, ids: Integers, allowed: NDArray[np.bool_]
) -> tuple[Integers, NDArray[np.float64]]:
    product = np.where(allowed, product, -np.inf)
    order = np.stack([np.lexsort((ids, -row)) for row in product])[:, : min(k, allowed.sum())]
    return ids[order], np.take_along_axis(product, order, axis=1)


@settings(max_examples=50)
@given(
    count=st.integers(1, 400),
    queries=st.integers(1, 30),
    k=st.integers(1, 50),
    block=st.sampled_from([32, 64, 128]),
    repeats=st.integers(1, 40),
    removed=st.floats(0, 1),
    length=st.sampled_from([1e-3, 1, 1e3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_the_sorted_product(
    count: int,
    queries: int,
    k: int,
    block: int,
    repeats: int,
    removed: float,
    length: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    # Each vector up to 40 times, so that ids decide often, over blocks of a few rows.
    different, which = unit(count, 8, rng), rng.integers(0, -(-count // repeats), size=count)
    asked = unit(queries, 8, rng) * np.float32(length)
    ids = rng.choice(2**40, size=count, replace=False).astype(np.int64)
    allowed = rng.random(count) >= removed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_search, "_BLOCK_ROWS", (block, block))
        patch.setattr(exact_search, "_SETTLE_AT", 2)
        found, values = nearest_rows(different[which], asked, k, ids=ids, allowed=allowed)
    # Taken apart before they are repeated: equal vectors have equal products, to the last bit.
    product = (asked.astype(np.float64) @ different.astype(np.float64).T)[:, which]
    expected, products = by_sorting(product, k, ids, allowed)
    assert np.array_equal(found, expected)
    np.testing.assert_allclose(values, products, atol=1e-7 * length)


def test_equal_vectors_come_by_id() -> None:
    rng = np.random.default_rng(1)
    vectors = np.repeat(unit(3, 16, rng), 5000, axis=0)
    ids = rng.permutation(15_000).astype(np.int64)
    found, values = nearest_rows(vectors, unit(4, 16, rng), 40, ids=ids)
    for row, similarities in zip(found, values, strict=True):
        assert len(set(similarities.tolist())) == 1
        group = np.flatnonzero(ids == row[0])[0] // 5000
        assert row.tolist() == sorted(ids[group * 5000 : (group + 1) * 5000])[:40]


def test_one_by_one_is_the_same_to_the_last_bit() -> None:
    rng = np.random.default_rng(2)
    vectors, asked = unit(9000, 48, rng), unit(300, 48, rng)
    ids = np.arange(9000)
    together = nearest_rows(vectors, asked, 10, ids=ids)
    for place in range(0, 300, 29):
        alone = nearest_rows(vectors, asked[place : place + 1], 10, ids=ids)
        assert np.array_equal(together[0][place], alone[0][0])
        assert np.array_equal(together[1][place], alone[1][0])


@pytest.mark.parametrize("asked", [1, 17, 100, 232, 257])
def test_every_number_of_queries_fits_its_blocks(asked: int) -> None:
    rng = np.random.default_rng(4)
    vectors, queries = unit(12_001, 4, rng), unit(asked, 4, rng)
    ids = np.arange(12_001)
    _, values = nearest_rows(vectors, queries, 3, ids=ids)
    expected = np.sort(queries @ vectors.T, axis=1)[:, :-4:-1]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_more_than_there_is() -> None:
    rng = np.random.default_rng(3)
    vectors = unit(5, 4, rng)
    ids = np.arange(5)
    assert nearest_rows(vectors, vectors, 9, ids=ids)[0].shape == (5, 5)
    nobody = np.zeros(5, dtype=bool)
    assert nearest_rows(vectors, vectors, 9, ids=ids, allowed=nobody)[0].shape == (5, 0)
    assert nearest_rows(vectors, vectors[:0], 9, ids=ids)[0].shape == (0, 5)
