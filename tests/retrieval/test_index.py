"""The index against numpy: every kind, added to, removed from, tuned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.index.index import PassageIndex
from retrieval.index.kinds import (
    FLAT_LIMIT,
    SearchQuality,
    is_fitting,
    recall,
    require_kind,
    resolve_kind,
    sample_queries,
    tune,
)
from traces.errors import IndexMismatch, InputError

APPROXIMATE = ["hnsw", "ivf"]


def unit(count: int, dimension: int = 16, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    normed: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


def clustered(count: int, dimension: int = 32, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = unit(40, dimension)
    rows = centres[rng.integers(40, size=count)] + 0.15 * rng.normal(size=(count, dimension))
    normed = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(normed, dtype=np.float32)


@settings(max_examples=30)
@given(
    count=st.integers(1, 120),
    queries=st.integers(1, 40),
    k=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_flat_search_is_the_matrix_product(count: int, queries: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Ids far from row numbers, and beyond 32 bits.
    ids = rng.choice(2**40, size=count, replace=False).astype(np.int64)
    vectors, asked = unit(count, seed=seed), unit(queries, seed=seed + 1)
    found, similarities = PassageIndex.build(ids.tolist(), vectors).search(asked, k)
    product = asked @ vectors.T
    best = np.argsort(-product, axis=1, kind="stable")[:, :k]
    assert [row.tolist() for row in found] == ids[best].tolist()
    expected = np.take_along_axis(product, best, axis=1)
    np.testing.assert_allclose(np.stack(similarities), expected, atol=1e-6)


def test_search_in_one_batch_is_search_one_by_one() -> None:
    index = PassageIndex.build(range(300), unit(300, 32))
    asked = unit(200, 32, seed=1)
    together, similarities = index.search(asked, 7)
    for place, row in enumerate(asked):
        ids, values = index.search(row[None], 7)
        assert np.array_equal(together[place], ids[0])
        assert np.array_equal(similarities[place], values[0])


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_approximate_kinds_are_tuned_to_the_recall_asked_for(kind: str) -> None:
    rows = clustered(1500)
    flat = PassageIndex.build(range(1500), rows, kind="flat")
    near = PassageIndex.build(range(1500), rows, kind=kind)
    near.tune(target=0.9, seed=3)
    low = near.quality
    near.tune(target=0.99)
    high = near.quality
    assert low is not None
    assert high is not None
    assert low.recall_at_10 >= 0.9
    assert high.recall_at_10 >= 0.99
    assert (low.parameter, low.seed) == ({"hnsw": "efSearch", "ivf": "nprobe"}[kind], 3)
    assert low.value <= high.value
    queries = sample_queries(rows[::30], seed=9)
    exact, _ = flat.search(queries, 10)
    found, similarities = near.search(queries, 10)
    assert recall(found, exact) >= 0.97
    for asked, ids, values in zip(queries, found, similarities, strict=True):
        np.testing.assert_allclose(values, rows[ids] @ asked, atol=1e-5)
    flat.tune()
    assert flat.quality is None


def test_tuning_stops_at_the_largest_value_and_says_what_was_reached() -> None:
    asked: list[int] = []

    def search(value: int) -> list[NDArray[np.int64]]:
        asked.append(value)
        return [np.arange(min(value // 20, 10))]

    quality = tune(search, [np.arange(10)], parameter="nprobe", largest=100, target=0.95, seed=7)
    assert asked == [16, 32, 64, 100]
    assert quality == SearchQuality(0.5, 0.95, "nprobe", 100, 1, 7)
    assert recall([], []) == 1


def test_sampled_queries_lie_aside_from_their_passages() -> None:
    rows = unit(50, 32, seed=5)
    queries = sample_queries(rows, seed=0)
    np.testing.assert_allclose(np.sum(rows * queries, axis=1), 0.8, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    assert np.array_equal(queries, sample_queries(rows, seed=0))
    assert not np.array_equal(queries, sample_queries(rows, seed=1))
    assert np.isfinite(sample_queries(np.ones((2, 1), np.float32), seed=0)).all()


def test_padding_never_becomes_a_hit() -> None:
    # Two far groups in an inverted index: one probe sees one group only, FAISS pads with -1.
    rows = np.repeat(np.eye(2, 8, dtype=np.float32), [100, 100], axis=0)
    index = PassageIndex.build(range(200), rows, kind="ivf")
    index.quality = SearchQuality(0.5, 0.95, "nprobe", 1, 1, 0)
    found, similarities = index.search(np.eye(2, 8, dtype=np.float32), 150)
    for ids, values in zip(found, similarities, strict=True):
        assert len(ids) == len(values) == 100
        assert ids.min() >= 0
    few, _ = PassageIndex.build([5, 9], unit(2)).search(unit(1), 10)
    assert sorted(few[0].tolist()) == [5, 9]
    for kind in APPROXIMATE:
        few, _ = PassageIndex.build([5, 9], unit(2), kind=kind).search(unit(1), 10)
        assert sorted(few[0].tolist()) == [5, 9]


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_similarity_stays_within_one(kind: str) -> None:
    vector = unit(1, 384) * np.float32(1 + 5e-7)
    _, similarities = PassageIndex.build([1], vector, kind=kind).search(vector, 1)
    assert similarities[0][0] <= 1


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_equally_near_passages_come_by_id(kind: str) -> None:
    rows = np.repeat(unit(1), 30, axis=0)
    ids = np.random.default_rng(0).permutation(30)
    found, _ = PassageIndex.build(ids.tolist(), rows, kind=kind).search(rows[:1], 30)
    assert found[0].tolist() == list(range(30))


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_add_extends_and_refuses_what_is_there(kind: str) -> None:
    vectors = unit(4)
    index = PassageIndex.build([10, 20], vectors[:2], kind=kind)
    index.add([30], vectors[2:3])
    assert index.count == 3
    assert index.search(vectors[2:3], 1)[0][0].tolist() == [30]
    with pytest.raises(InputError, match="20"):
        index.add([20], vectors[3:])
    with pytest.raises(InputError, match="repeated"):
        index.add([40, 40], vectors[2:])
    assert index.count == 3


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_what_is_removed_is_never_found_again(kind: str) -> None:
    rows = clustered(600)
    index = PassageIndex.build(range(600), rows, kind=kind)
    gone = list(range(0, 600, 3))
    index.remove(gone)
    assert index.count == 400
    assert sorted(index.ids.tolist()) == sorted(set(range(600)) - set(gone))
    found, _ = index.search(rows[:50], 400)
    assert all(not set(ids.tolist()) & set(gone) for ids in found)
    assert min(len(ids) for ids in found) >= 300
    with pytest.raises(IndexMismatch, match="Passage 3 "):
        index.remove([1, 3])
    with pytest.raises(IndexMismatch, match="Passage 3 "):
        index.vectors([1, 3])
    assert index.count == 400
    index.add([3, 700], rows[[0, 1]])  # under an id that was removed, and a new one
    assert index.count == 402
    assert index.search(rows[:1], 1)[0][0].tolist() == [3]
    np.testing.assert_array_equal(index.vectors([700, 3, 1]), rows[[1, 0, 1]])
    assert index.removed_share == pytest.approx(0 if kind == "flat" else 200 / 602)
    index.tune(target=0.9)
    exact, _ = PassageIndex.build(index.ids.tolist(), index.vectors(index.ids)).search(rows, 10)
    assert recall(index.search(rows, 10)[0], exact) >= 0.9


@pytest.mark.parametrize("kind", ["flat", *APPROXIMATE])
def test_everything_may_be_removed(kind: str) -> None:
    index = PassageIndex.build([1, 2], unit(2), kind=kind)
    index.remove([2, 1])
    assert index.count == 0
    assert [ids.tolist() for ids in index.search(unit(3), 5)[0]] == [[], [], []]
    assert index.vectors([]).shape == (0, 16)
    index.tune()


def test_unusable_vectors_and_ids_are_refused() -> None:
    cases: list[tuple[list[int], NDArray[np.float32], str]] = [
        ([], unit(0), "no passage"),
        ([1, 1], unit(2), "repeated"),
        ([1, -1], unit(2), "below 0"),
        ([1], unit(2), "do not match"),
        ([1, 2], unit(2) * 2, "length 2"),
        ([1, 2], np.full((2, 4), np.nan, np.float32), "length nan"),
    ]
    for ids, vectors, words in cases:
        with pytest.raises(InputError, match=words):
            PassageIndex.build(ids, vectors)
    index = PassageIndex.build([1], unit(1))
    with pytest.raises(InputError, match="dimension 16"):
        index.search(unit(1, 8), 1)
    with pytest.raises(InputError, match="0 passages"):
        index.search(unit(1), 0)
    with pytest.raises(InputError, match="not finite"):
        index.search(np.full((1, 16), np.inf, np.float32), 1)


def test_kinds() -> None:
    assert [resolve_kind("auto", n) for n in (1, 500_000, 500_001)] == ["flat", "flat", "hnsw"]
    assert resolve_kind("ivf", 1) == "ivf"
    for kind in ("auto", "flat", "hnsw", "ivf"):
        require_kind(kind)
    with pytest.raises(InputError, match="'pq'"):
        require_kind("pq")
    assert PassageIndex.build([1], unit(1), kind="ivf").count == 1


def test_beyond_flat_memory_decides() -> None:
    # A million vectors of 384 take 1.8 GB as a graph, which may be half of what there is.
    assert resolve_kind("auto", 10**6, 384, 4 * 10**9) == "hnsw"
    assert resolve_kind("auto", 10**6, 384, 3 * 10**9) == "ivf"
    assert resolve_kind("auto", 10**6, 768, 4 * 10**9) == "ivf"
    assert resolve_kind("auto", FLAT_LIMIT, 4096, 10**6) == "flat"
    assert is_fitting("hnsw", "auto", 10**6)
    assert is_fitting("ivf", "auto", 10**6)
    assert not is_fitting("flat", "auto", 10**6)
    assert not is_fitting("hnsw", "auto", 1000)
    assert is_fitting("hnsw", "hnsw", 1000)
    assert not is_fitting("hnsw", "ivf", 10**6)
