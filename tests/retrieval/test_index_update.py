"""Updates of the index: only what is missing is encoded, and a kill loses nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval.index import update as encoding_run
from retrieval.index.files import MANIFEST, VectorJournal, only_writer
from retrieval.index.index import PassageIndex
from retrieval.index.update import Corpora, IndexUpdate, update_index
from tests.retrieval.made_corpora import MadeEncoder, corpora, vectors_of
from traces.errors import CorpusError, InputError

TEXTS = {number: f"text {number}" for number in range(1, 41)}


def update(
    folder: Path, texts: dict[int, str], kind: str = "auto"
) -> tuple[IndexUpdate, list[str]]:
    encoder = MadeEncoder()
    done = update_index(folder, corpora(texts), encoder, kind=kind)
    return done, sorted(encoder.encoded)


def opened(folder: Path, texts: dict[int, str]) -> PassageIndex:
    return PassageIndex.load(
        folder, encoder="made@1", corpus_fingerprint=corpora(texts).fingerprint
    )


def assert_holds(folder: Path, texts: dict[int, str]) -> None:
    """The index finds each text under its id, and no other ids."""
    index = opened(folder, texts)
    assert sorted(index.ids.tolist()) == sorted(texts)
    vectors = vectors_of(list(texts.values()))
    np.testing.assert_array_equal(index.vectors(list(texts)), vectors)
    found, _ = index.search(vectors, 1)
    assert [texts[int(ids[0])] for ids in found] == list(texts.values())


def test_the_first_update_builds(tmp_path: Path) -> None:
    done, encoded = update(tmp_path / "index", TEXTS)
    assert (done.added, done.kept, done.removed, len(done.encoded)) == (40, 0, 0, 40)
    assert (done.kind, done.quality, done.rebuilt) == ("flat", None, None)
    assert encoded == sorted(TEXTS.values())
    assert_holds(tmp_path / "index", TEXTS)
    assert not list(tmp_path.rglob("*.journal"))


def test_an_index_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    update(tmp_path, TEXTS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "vectors-killed.journal").write_bytes(b"left by a kill behind the last step")
    done, encoded = update(tmp_path, TEXTS)
    assert (done.added, done.kept, done.removed, len(done.encoded)) == (0, 40, 0, 0)
    assert encoded == []
    del before[tmp_path / ".lock"]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != ".lock"} == before


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_only_texts_without_a_vector_are_encoded(tmp_path: Path, kind: str) -> None:
    update(tmp_path, TEXTS, kind)
    later = {number: text for number, text in TEXTS.items() if number > 3}
    later |= {50: "new", 51: "text 1", 4: "changed"}  # 51: a text that moved to another id
    done, encoded = update(tmp_path, later, kind)
    assert encoded == ["changed", "new"]
    assert done.encoded == [4, 50]
    assert (done.added, done.kept, done.removed, len(done.encoded)) == (3, 36, 4, 2)
    assert done.rebuilt is None
    assert_holds(tmp_path, later)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_with_many_rows_of_removed_passages_it_is_built_anew(tmp_path: Path, kind: str) -> None:
    update(tmp_path, TEXTS, kind)
    fewer = {number: text for number, text in TEXTS.items() if number > 12}
    done, encoded = update(tmp_path, fewer, kind)
    assert encoded == []
    assert done.rebuilt == "30% of its rows belonged to removed passages."
    assert_holds(tmp_path, fewer)
    assert opened(tmp_path, fewer).removed_share == 0


def test_another_kind_costs_no_encoding(tmp_path: Path) -> None:
    update(tmp_path, TEXTS)
    for kind, before in (("hnsw", "flat"), ("ivf", "hnsw"), ("auto", "ivf")):
        done, encoded = update(tmp_path, TEXTS, kind)
        assert encoded == []
        assert done.rebuilt == f"It was of kind {before}."
        assert done.kind == {"auto": "flat"}.get(kind, kind)
        assert (done.quality is None) == (done.kind == "flat")
        assert_holds(tmp_path, TEXTS)


def test_equal_texts_are_encoded_once(tmp_path: Path) -> None:
    texts = dict.fromkeys(range(1, 30), "boilerplate") | {30: "one"}
    done, encoded = update(tmp_path, texts)
    assert encoded == ["boilerplate", "one"]
    assert (done.added, len(done.encoded)) == (30, 2)
    assert opened(tmp_path, texts).count == 30


@settings(max_examples=8)
@given(
    states=st.lists(
        st.dictionaries(st.integers(1, 30), st.sampled_from("abcdefghij"), min_size=1),
        min_size=1,
        max_size=3,
    ),
    kinds=st.lists(st.sampled_from(["flat", "hnsw", "ivf"]), min_size=3, max_size=3),
)
def test_after_any_updates_it_holds_what_it_should(
    tmp_path_factory: pytest.TempPathFactory, states: list[dict[int, str]], kinds: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("index")
    present: set[str] = set()
    for texts, kind in zip(states, kinds, strict=False):
        done, encoded = update(folder, texts, kind)
        assert encoded == sorted(set(texts.values()) - present)
        assert done.added + done.kept == len(texts)
        present = set(texts.values())
        assert_holds(folder, texts)


def test_an_index_that_cannot_be_used_is_built_anew_and_says_why(tmp_path: Path) -> None:
    update(tmp_path, TEXTS)
    next(tmp_path.glob("*.faiss")).write_bytes(b"damaged")
    done, encoded = update(tmp_path, TEXTS)
    assert len(encoded) == 40
    assert done.rebuilt == "The index file is damaged."
    manifest = tmp_path / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    done, _ = update(tmp_path, TEXTS)
    assert "another version" in str(done.rebuilt)
    other = MadeEncoder("other@2")
    done = update_index(tmp_path, corpora(TEXTS), other)
    assert "'made@1'" in str(done.rebuilt)
    assert len(other.encoded) == 40
    index = PassageIndex.build(list(TEXTS), vectors_of(list(TEXTS.values())))
    index.save(tmp_path, encoder="made@1", encoder_spec=None, corpus_fingerprint="of old")
    done, encoded = update(tmp_path, TEXTS)
    assert "the texts of its vectors" in str(done.rebuilt)
    assert_holds(tmp_path, TEXTS)


def test_what_a_stopped_run_encoded_is_not_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_run, "_TEXTS_A_BATCH", 8)

    class Stops(MadeEncoder):
        def encode(self, texts: Iterable[str], *, query: bool = False) -> NDArray[np.float32]:
            if len(self.encoded) == 24:
                raise KeyboardInterrupt
            return super().encode(list(texts), query=query)

    stopped = Stops()
    with pytest.raises(KeyboardInterrupt):
        update_index(tmp_path, corpora(TEXTS), stopped)
    assert not (tmp_path / MANIFEST).exists()
    done, encoded = update(tmp_path, TEXTS)
    assert sorted(stopped.encoded + encoded) == sorted(TEXTS.values())
    assert len(done.encoded) == 16
    assert_holds(tmp_path, TEXTS)


def test_corpora_that_change_meanwhile_are_refused(tmp_path: Path) -> None:
    first = corpora(TEXTS)
    later = Corpora(first.passages, corpora(TEXTS | {7: "other"}).passages_by_id, "x")
    gone = Corpora(first.passages, lambda ids: {}, "x")
    for changed in (later, gone):
        with pytest.raises(CorpusError, match="changed while"):
            update_index(tmp_path, changed, MadeEncoder())
    with pytest.raises(CorpusError, match="no passage"):
        update_index(tmp_path, corpora({}), MadeEncoder())
    assert not (tmp_path / MANIFEST).exists()


def test_a_repeated_id_is_refused(tmp_path: Path) -> None:
    once = corpora(TEXTS)
    twice = Corpora(lambda: [*once.passages(), *once.passages()], once.passages_by_id, "x")
    with pytest.raises(InputError, match="repeated"):
        update_index(tmp_path, twice, MadeEncoder())


def test_an_encoder_without_finite_vectors_is_refused_before_anything_is_kept(
    tmp_path: Path,
) -> None:
    class Broken(MadeEncoder):
        def encode(self, texts: Iterable[str], *, query: bool = False) -> NDArray[np.float32]:
            return np.full((len(list(texts)), self.dimension), np.nan, dtype=np.float32)

    with pytest.raises(InputError, match="length nan"):
        update_index(tmp_path, corpora(TEXTS), Broken())
    _, encoded = update(tmp_path, TEXTS)
    assert len(encoded) == 40


def test_two_updates_at_once_are_refused(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(InputError, match="Another process"):
        update(tmp_path, TEXTS)
    update(tmp_path, TEXTS)


def test_progress_is_shown_of_encoding_and_building(tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(things: Iterable[object], total: int, label: str) -> Iterable[object]:
        found = list(things)
        seen[label] = (len(found), total)
        return found

    update_index(tmp_path, corpora(TEXTS), MadeEncoder(), progress=progress)  # type: ignore[arg-type]
    assert seen == {"encode passages": (40, 40), "build the index": (1, 1)}


UPDATER = """
import sys
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from tests.retrieval.made_corpora import MadeEncoder, corpora
from retrieval.index.update import update_index
print("ready", flush=True)
texts = {n: f"text {n}" for n in range(int(sys.argv[2]), 4000)}
update_index(Path(sys.argv[1]), corpora(texts), MadeEncoder())
"""


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_the_old_or_the_new_index(tmp_path: Path) -> None:
    # Passages 1 to 3999; the update takes 400 of them out, and adds as many (encoded) again.
    old = {number: f"text {number}" for number in range(1, 3600)}
    new = {number: f"text {number}" for number in range(401, 4000)}
    update(tmp_path / "kept", old)
    asked = vectors_of([f"text {number}" for number in range(1, 4000, 40)])
    expected = [opened(tmp_path / "kept", old).search(asked, 10)[0]]
    folder = tmp_path / "index"

    def start() -> subprocess.Popen[bytes]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", folder)
        root = str(Path(__file__).parents[2])
        command = [sys.executable, "-c", UPDATER, str(folder), "401", root]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise AssertionError("the updater did not start")
        return process

    with start() as process:
        began = time.perf_counter()
        assert process.wait() == 0
        takes = time.perf_counter() - began
    expected.append(opened(folder, new).search(asked, 10)[0])
    assert not np.array_equal(expected[0], expected[1])
    seen: list[int] = []
    for moment in np.random.default_rng(0).random(10):
        with start() as process:
            try:
                process.wait(timeout=takes * moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        found, _ = PassageIndex.load(folder, encoder="made@1", corpus_fingerprint=None).search(
            asked, 10
        )
        states = [n for n, ids in enumerate(expected) if np.array_equal(found, ids)]
        assert len(states) == 1
        seen += states
        done, _ = update(folder, new)
        assert (done.added, len(done.encoded) <= 400) in {(400, True), (0, True)}
        assert np.array_equal(opened(folder, new).search(asked, 10)[0], expected[1])
    assert 0 in seen


def test_a_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    keys = [bytes([n]) * 15 + b"\0" for n in range(5)]
    vectors = vectors_of(["a", "b", "c", "d", "e"])
    with VectorJournal(tmp_path, "made@1", 16) as journal:
        journal.append(keys[:3], vectors[:3])
        journal.append(keys[3:], vectors[3:])
        np.testing.assert_array_equal(journal.vectors(keys[::-1]), vectors[::-1])
    path = next(tmp_path.glob("*.journal"))
    whole = path.read_bytes()
    size = len(whole) // 5
    flipped = bytearray(whole)
    flipped[3 * size + 40] ^= 1
    for content, left in ((whole, 5), (whole[:-1], 4), (bytes(flipped), 3), (b"", 0)):
        path.write_bytes(content)
        with VectorJournal(tmp_path, "made@1", 16) as journal:
            assert [key in journal for key in keys] == [n < left for n in range(5)]
            journal.append(keys[left:], vectors[left:])
            np.testing.assert_array_equal(journal.vectors(keys), vectors)
    with VectorJournal(tmp_path, "made@2", 16) as journal:
        assert keys[0] not in journal
        assert len(list(tmp_path.iterdir())) == 1  # that of the other encoder is gone
        journal.remove()
    assert not list(tmp_path.iterdir())
