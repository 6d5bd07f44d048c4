"""The files of an index against every way they can be wrong, and a kill at every step of saving."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.index.files import MANIFEST, read_whole
from retrieval.index.index import PassageIndex
from retrieval.index.kinds import SearchQuality
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
    np.testing.assert_array_equal(read.vectors([150, 100]), built.vectors([150, 100]))
    with pytest.raises(InputError, match="repeated"):
        read.add([150], unit(1))
    writable = PassageIndex.load(folder, encoder=ENCODER, corpus_fingerprint=None, writable=True)
    writable.add([7], unit(1, seed=5))
    writable.remove([100])
    assert writable.search(unit(1, seed=5), 1)[0][0].tolist() == [7]
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
    with pytest.raises(StoreError, match="Cannot read"):
        load(tmp_path)
    manifest = (tmp_path / MANIFEST).read_text()
    elsewhere = manifest.replace('".faiss": "', '".faiss": "../')
    unknown = manifest.replace('".faiss"', '"../../x"')
    untyped = manifest.replace('"count": 50', '"count": "50"')
    odd = manifest.replace('"quality": null', '"quality": {"recall": 1}')
    assert len({manifest, elsewhere, unknown, untyped, odd}) == 5
    for text in ("", "{", "[]", "{}", elsewhere, unknown, untyped, odd, "\udcff"):
        (tmp_path / MANIFEST).write_text(text, errors="surrogateescape")
        with pytest.raises(StoreError, match="manifest"):
            load(tmp_path)


def test_an_index_of_another_version_is_refused_with_a_way_out(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / MANIFEST
    first = {"encoder": ENCODER, "index_file": "x.faiss", "created_by": "stepgold 0.1.0"}
    for text in (path.read_text().replace('"format": 2', '"format": 3'), json.dumps(first)):
        path.write_text(text)
        with pytest.raises(IndexMismatch, match="another version") as caught:
            load(tmp_path)
        assert "stepgold index" in str(caught.value)


def test_how_well_it_searches_is_kept(tmp_path: Path) -> None:
    index = PassageIndex.build(range(200), unit(200), kind="hnsw")
    index.tune()
    index.save(tmp_path, encoder=ENCODER, encoder_spec=None, corpus_fingerprint=CORPUS)
    assert isinstance(index.quality, SearchQuality)
    assert load(tmp_path).quality == index.quality


def test_a_reader_that_meets_a_writer_reads_again(tmp_path: Path) -> None:
    saved(tmp_path, seed=1, corpus="old")
    seen: list[str] = []

    def read(manifest: object) -> PassageIndex:
        seen.append(manifest.corpus_fingerprint)  # type: ignore[attr-defined]
        if len(seen) == 1:  # a writer replaces the index behind the manifest just read
            saved(tmp_path, seed=2, corpus="new")
        return load(tmp_path, seen[-1]) if len(seen) == 2 else broken()

    def broken() -> PassageIndex:
        raise StoreError("gone")

    assert read_whole(tmp_path, read).count == 50
    assert seen == ["old", "new"]
    calls: list[object] = []

    def never(manifest: object) -> PassageIndex:
        calls.append(manifest)
        return broken()

    with pytest.raises(StoreError, match="gone"):
        read_whole(tmp_path, never)
    assert len(calls) == 1  # the manifest stayed what it was: the file is damaged


def test_a_payload_that_does_not_fit_its_manifest_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text().replace('"count": 50', '"count": 51'))
    with pytest.raises(StoreError, match="damaged"):
        load(tmp_path)


def test_saving_leaves_no_leftovers(tmp_path: Path) -> None:
    saved(tmp_path, seed=1)
    (tmp_path / "killed.partial").write_bytes(b"half")
    (tmp_path / "bm25").mkdir()
    saved(tmp_path, seed=2)
    assert len(list(tmp_path.iterdir())) == 3
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
    with pytest.raises(StoreError, match="Cannot write"):
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
