"""The index against numpy, and its files against every way they can be wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval import index as index_module
from retrieval.index import PassageIndex, require_kind, resolve_kind
from retrieval.index_files import MANIFEST
from traces.errors import IndexMismatch, InputError, StoreError

ENCODER = "mini@abc"
CORPUS = "fingerprint"


def unit(count: int, dimension: int = 16, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    normed: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


def saved(folder: Path, *, seed: int = 0, count: int = 50, corpus: str = CORPUS) -> PassageIndex:
    index = PassageIndex.build(range(1, count + 1), unit(count, seed=seed))
    index.save(folder, encoder=ENCODER, encoder_spec=None, corpus_fingerprint=corpus)
    return index


def load(folder: Path, corpus: str = CORPUS) -> PassageIndex:
    return PassageIndex.load(folder, encoder=ENCODER, corpus_fingerprint=corpus)


@settings(max_examples=30, deadline=None)
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
    together, _ = index.search(asked, 7)
    single = [index.search(row[None], 7)[0][0] for row in asked]
    assert np.array_equal(together, single)
    # The library's own threshold costs 20 times the matrix product at such batches.
    assert vars(index_module)["faiss"].cvar.distance_compute_blas_threshold == 16 * 32


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_kinds_find_nearly_all(kind: str) -> None:
    rng = np.random.default_rng(0)
    centres = unit(40, 32)
    rows = centres[rng.integers(40, size=3000)] + 0.15 * rng.normal(size=(3000, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries = rows[::60] + 0.05 * rng.normal(size=(50, 32)).astype(np.float32)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    exact, _ = PassageIndex.build(range(3000), rows, kind="flat").search(queries, 10)
    near = PassageIndex.build(range(3000), rows, kind=kind)
    assert near.kind == kind
    found, similarities = near.search(queries, 10)
    recall = [len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]
    assert np.mean(recall) >= 0.9
    for asked, ids, values in zip(queries, found, similarities, strict=True):
        np.testing.assert_allclose(values, rows[ids] @ asked, atol=1e-5)


def test_padding_never_becomes_a_hit() -> None:
    # Two far groups in an inverted index: one probe sees one group only, FAISS pads with -1.
    rows = np.repeat(np.eye(2, 8, dtype=np.float32), [3, 200], axis=0)
    index = PassageIndex.build(range(203), rows, kind="ivf")
    found, similarities = index.search(np.eye(1, 8, dtype=np.float32), 50)
    assert min(found[0]) >= 0
    assert len(found[0]) == len(similarities[0]) < 50 or index.count <= 50
    few, _ = PassageIndex.build([5, 9], unit(2)).search(unit(1), 10)
    assert sorted(few[0].tolist()) == [5, 9]


def test_similarity_stays_within_one() -> None:
    vector = unit(1, 384) * np.float32(1 + 5e-7)
    _, similarities = PassageIndex.build([1], vector).search(vector, 1)
    assert similarities[0][0] <= 1


def test_add_extends_and_refuses_what_is_there() -> None:
    vectors = unit(4)
    index = PassageIndex.build([10, 20], vectors[:2])
    index.add([30], vectors[2:3])
    assert index.count == 3
    assert index.search(vectors[2:3], 1)[0][0].tolist() == [30]
    with pytest.raises(InputError, match="20"):
        index.add([20], vectors[3:])
    with pytest.raises(InputError, match="twice"):
        index.add([40, 40], vectors[2:])
    assert index.count == 3


def test_unusable_vectors_and_ids_are_refused() -> None:
    cases: list[tuple[list[int], NDArray[np.float32], str]] = [
        ([], unit(0), "no passage"),
        ([1, 1], unit(2), "twice"),
        ([1, -1], unit(2), "below 0"),
        ([1], unit(2), "do not belong together"),
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


def test_kinds() -> None:
    assert [resolve_kind("auto", n) for n in (1, 500_000, 500_001)] == ["flat", "flat", "hnsw"]
    assert resolve_kind("ivf", 1) == "ivf"
    for kind in ("auto", "flat", "hnsw", "ivf"):
        require_kind(kind)
    with pytest.raises(InputError, match="'pq'"):
        require_kind("pq")
    assert PassageIndex.build([1], unit(1), kind="ivf").count == 1


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_what_is_saved_is_loaded(tmp_path: Path, kind: str) -> None:
    built = PassageIndex.build(range(100, 200), unit(100), kind=kind)
    folder = tmp_path / "new" / "index"
    built.save(folder, encoder=ENCODER, encoder_spec="my/model", corpus_fingerprint=CORPUS)
    read = load(folder)
    assert (read.kind, read.count, read.dimension) == (kind, 100, 16)
    (ids, values), (read_ids, read_values) = (i.search(unit(9, seed=3), 5) for i in (built, read))
    assert np.array_equal(ids, read_ids)
    assert np.array_equal(values, read_values)
    assert PassageIndex.encoder_spec(folder) == "my/model"
    with pytest.raises(InputError, match="twice"):
        read.add([150], unit(1))
    manifest = json.loads((folder / MANIFEST).read_text())
    assert (manifest["encoder"], manifest["count"], manifest["kind"]) == (ENCODER, 100, kind)
    assert "faiss" in manifest["created_by"]


def test_an_index_of_another_encoder_or_corpus_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(IndexMismatch, match="'other@1'") as caught:
        PassageIndex.load(tmp_path, encoder="other@1", corpus_fingerprint=CORPUS)
    assert ENCODER in str(caught.value)
    assert "stepgold index" in str(caught.value)
    with pytest.raises(IndexMismatch, match="corpora have changed") as caught:
        load(tmp_path, corpus="later")
    assert "stepgold index" in str(caught.value)
    with pytest.raises(IndexMismatch, match="no index yet") as caught:
        load(tmp_path / "nowhere")
    assert "stepgold index" in str(caught.value)


def test_an_index_is_current_only_for_its_own_encoder_corpus_and_kind(tmp_path: Path) -> None:
    def current(encoder: str = ENCODER, corpus: str = CORPUS, kind: str = "auto") -> bool:
        return PassageIndex.is_current(
            tmp_path, encoder=encoder, corpus_fingerprint=corpus, kind=kind
        )

    assert not current()
    saved(tmp_path)
    assert current()
    assert current(kind="flat")
    assert not current(kind="hnsw")
    assert not current(encoder="other")
    assert not current(corpus="other")
    next(tmp_path.glob("*.faiss")).write_bytes(b"damaged")
    assert not current()


def test_damaged_files_are_said_to_be_damaged(tmp_path: Path) -> None:
    saved(tmp_path)
    payload = next(tmp_path.glob("*.faiss"))
    whole = payload.read_bytes()
    for broken in (whole[:-1], whole[:50], b"", whole[:100] + b"\x01" + whole[101:]):
        payload.write_bytes(broken)
        with pytest.raises(StoreError, match="damaged"):
            load(tmp_path)
    payload.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        load(tmp_path)
    manifest = (tmp_path / MANIFEST).read_text()
    elsewhere = manifest.replace(payload.name, "../" + payload.name)
    untyped = manifest.replace('"count": 50', '"count": "50"')
    for text in ("", "{", "[]", "{}", elsewhere, untyped, "\udcff"):
        (tmp_path / MANIFEST).write_text(text, errors="surrogateescape")
        with pytest.raises(StoreError, match="manifest"):
            load(tmp_path)


def test_a_payload_that_does_not_fit_its_manifest_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text().replace('"count": 50', '"count": 51'))
    with pytest.raises(StoreError, match="damaged"):
        load(tmp_path)


def test_saving_leaves_no_leftovers(tmp_path: Path) -> None:
    saved(tmp_path, seed=1)
    (tmp_path / "killed.partial").write_bytes(b"half")
    saved(tmp_path, seed=2)
    assert len(list(tmp_path.iterdir())) == 2
    load(tmp_path)


def test_a_folder_that_cannot_be_written_keeps_the_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, corpus="old")
    with monkeypatch.context() as patch:

        def full(self: Path, target: Path) -> Path:
            raise OSError(28, "No space left on device")

        patch.setattr(Path, "replace", full)
        with pytest.raises(StoreError, match="No space left"):
            saved(tmp_path, seed=5, corpus="new")
    assert load(tmp_path, "old").count == 50
    assert not list(tmp_path.glob("*.partial"))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be written"):
        saved(tmp_path / "file")


SAVER = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from index_test_helper import saved
left = int(sys.argv[2])
def hook(event, args):
    global left
    if event in ("open", "os.rename", "os.remove", "os.mkdir") and sys.argv[1] in str(args[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
saved(Path(sys.argv[1]), seed=2, corpus="new")
"""


@pytest.mark.slow
def test_a_kill_at_any_step_of_saving_leaves_the_old_or_the_new_index(tmp_path: Path) -> None:
    (tmp_path / "index_test_helper.py").write_bytes(Path(__file__).read_bytes())
    folder = tmp_path / "index"
    asked = unit(3, seed=9)
    expected = {
        state: PassageIndex.build(range(1, 51), unit(50, seed=seed)).search(asked, 5)[0]
        for state, seed in (("old", 1), ("new", 2))
    }
    seen: list[str] = []
    for step in range(1, 40):
        saved(folder, seed=1, corpus="old")
        paths = [str(tmp_path), str(Path(__file__).parents[2])]
        command = [sys.executable, "-c", SAVER, str(folder), str(step), "--", *paths]
        status = subprocess.run(command, check=False).returncode
        state = json.loads((folder / MANIFEST).read_text())["corpus_fingerprint"]
        assert np.array_equal(load(folder, state).search(asked, 5)[0], expected[state])
        seen.append(state)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert status == 0
    assert seen == sorted(seen, reverse=True)  # "old" up to the one decisive step, then "new"
    assert seen.count("old") >= 5
    assert seen.count("new") >= 2
