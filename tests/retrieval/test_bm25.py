"""Lexical search against BM25 written out by hand, and its files against damage and kills."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import Stemmer  # type: ignore[import-not-found]
from bm25s.stopwords import STOPWORDS_EN  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.search.bm25 import LexicalIndex, highlights
from retrieval.search.fusion import Ranking
from traces.errors import InputError, StoreError

TITLES = ["Warfarin -- Dosing", "Warfarin -- Storage", "Metformin", ""]
TEXTS = [
    "Start Warfarin at 5 mg. Check the INR.",
    "Store it dry. Warfarin tablets keep for 2 years.",
    "Start at 0.5 g. Stop below an eGFR of 30.",
    "Doses of 5 mg are started, starting low.",
]
IDS = [11, 12, 30, 40]


def index() -> LexicalIndex:
    return LexicalIndex.build(IDS, TITLES, TEXTS)


def slow_bm25(texts: list[str], query: str, k1: float = 1.2, b: float = 0.75) -> list[float]:
    """Lucene's BM25 as its documentation states it, term by term; no code shared with ours."""
    stem = Stemmer.Stemmer("english").stemWord

    def words(text: str) -> list[str]:
        found = re.findall(r"\w+(?:[.,]\d+)*", text.lower())
        return [stem(word) for word in found if word not in STOPWORDS_EN]

    documents = [Counter(words(text)) for text in texts]
    lengths = [sum(document.values()) for document in documents]
    mean = sum(lengths) / len(lengths)
    scores = []
    for document, length in zip(documents, lengths, strict=True):
        score = 0.0
        for word in words(query):
            holding = sum(word in other for other in documents)
            idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            count = document[word]
            score += idf * count / (count + k1 * (1 - b + b * length / mean))
        scores.append(score)
    return scores


def assert_same(found: Ranking, expected: list[float], ids: list[int]) -> None:
    by_id = {ids[place]: score for place, score in enumerate(expected) if score > 0}
    assert dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True)) == pytest.approx(
        by_id, rel=1e-5
    )
    assert list(found.scores) == sorted(found.scores, reverse=True)


WORDS = st.sampled_from(["dose", "doses", "mg", "5", "0.5", "the", "INR", "warfarin", "low"])
SENTENCES = st.lists(WORDS, min_size=0, max_size=8).map(" ".join)


@given(st.lists(SENTENCES, min_size=1, max_size=8), SENTENCES)
@settings(max_examples=25)
def test_scores_are_those_of_bm25_written_out(texts: list[str], query: str) -> None:
    ids = [7 * place + 3 for place in range(len(texts))]
    if not any(re.sub(r"\bthe\b|\s", "", text) for text in texts):
        return  # no word to have a mean length of
    built = LexicalIndex.build(ids, [""] * len(texts), texts)
    [found] = built.search([query], len(texts))
    assert_same(found, slow_bm25(texts, query), ids)


def test_a_text_is_searched_with_its_title() -> None:
    query = "starting dose of warfarin 5 mg"
    [found] = index().search([query], 10)
    both = [f"{title}\n{text}" for title, text in zip(TITLES, TEXTS, strict=True)]
    assert_same(found, slow_bm25(both, query), IDS)
    assert found.ids[0] == 11


def test_a_title_that_names_what_is_asked_for_is_found_alone() -> None:
    warfarin, dosing, nothing = index().search_titles(
        ["Which warfarin?", "metformin dosing", "liver"], 10
    )
    assert warfarin.ids.tolist() == [11, 12], "both sections of the document"
    assert warfarin.ranks().tolist() == [1, 1], "and neither before the other"
    assert sorted(dosing.ids.tolist()) == [11, 30]
    assert len(nothing) == 0


def test_titles_far_behind_the_best_are_no_answer() -> None:
    titles = ["Warfarin dose", "Dose rules", "Dose table", "Dose", "Dose notes"]
    built = LexicalIndex.build(range(5), titles, ["x y z"] * 5)
    [found] = built.search_titles(["dose of warfarin"], 10)
    assert found.ids.tolist() == [0]


def test_ties_go_to_the_earlier_passage_also_at_the_edge_of_k() -> None:
    texts = ["same words here"] * 9 + ["same words here, same again"]
    built = LexicalIndex.build(range(10), [""] * 10, texts)
    [all_] = built.search(["same"], 10)
    assert all_.ids.tolist() == [9, *range(9)]
    for k in range(1, 10):
        [found] = built.search(["same"], k)
        assert found.ids.tolist() == all_.ids.tolist()[:k]


def test_a_part_of_the_passages_may_be_searched() -> None:
    [found] = index().search(["warfarin"], 10, among=np.array([False, True, True, True]))
    assert found.ids.tolist() == [12]
    [titled] = index().search_titles(["warfarin"], 10, among=np.array([False, True, True, True]))
    assert titled.ids.tolist() == [12]


@pytest.mark.parametrize("query", ["", "the of", "unknown", "..."])
def test_nothing_to_look_for_finds_nothing(query: str) -> None:
    assert [len(found) for found in index().search([query], 3)] == [0]
    assert index().search([], 3) == []


def test_texts_without_a_word_are_an_index_that_finds_nothing(tmp_path: Path) -> None:
    built = LexicalIndex.build([1, 2], ["the", ""], ["of", "..."])
    built.save(tmp_path, corpus_fingerprint="f")
    loaded = LexicalIndex.load(tmp_path, corpus_fingerprint="f")
    assert loaded is not None
    for each in (built, loaded):
        assert len(each.search(["of warfarin"], 3)[0]) == 0


def test_what_cannot_be_indexed_is_refused() -> None:
    with pytest.raises(InputError, match="no passage"):
        LexicalIndex.build([], [], [])
    with pytest.raises(InputError, match="repeated"):
        LexicalIndex.build([1, 1], ["", ""], ["a", "b"])
    with pytest.raises(InputError, match="differ in number"):
        LexicalIndex.build([1], ["", ""], ["a", "b"])


def test_a_saved_index_answers_as_before_for_its_corpus_alone(tmp_path: Path) -> None:
    index().save(tmp_path, corpus_fingerprint="f1")
    loaded = LexicalIndex.load(tmp_path, corpus_fingerprint="f1")
    assert loaded is not None
    for query in ("warfarin 5 mg", "metformin"):
        for one, other in zip(
            (index().search([query], 9), index().search_titles([query], 9)),
            (loaded.search([query], 9), loaded.search_titles([query], 9)),
            strict=True,
        ):
            assert one[0].ids.tolist() == other[0].ids.tolist()
            assert one[0].scores.tolist() == other[0].scores.tolist()
    assert LexicalIndex.load(tmp_path, corpus_fingerprint="f2") is None
    index().save(tmp_path, corpus_fingerprint="f2")
    assert LexicalIndex.load(tmp_path, corpus_fingerprint="f1") is None, "the old one is gone"
    assert len(list(tmp_path.iterdir())) == 1


def test_damage_is_noticed_and_written_over(tmp_path: Path) -> None:
    index().save(tmp_path, corpus_fingerprint="f")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 12
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert LexicalIndex.load(tmp_path, corpus_fingerprint="f") is None, path.name
        path.write_bytes(whole)
        path.unlink()
        assert LexicalIndex.load(tmp_path, corpus_fingerprint="f") is None, path.name
        path.write_bytes(whole)
    files[0].unlink()
    index().save(tmp_path, corpus_fingerprint="f")
    assert LexicalIndex.load(tmp_path, corpus_fingerprint="f") is not None


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        index().save(tmp_path / "file", corpus_fingerprint="f")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from retrieval.search import bm25 as bm25_files
from tests.retrieval.test_bm25 import index
calls, at = 0, int(sys.argv[2])
def counted(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
bm25_files.sync = counted(bm25_files.sync)
bm25_files.shutil.rmtree = counted(bm25_files.shutil.rmtree)
Path.replace = counted(Path.replace)
index().save(Path(sys.argv[1]), corpus_fingerprint="new")
print("done", calls)
"""


@pytest.mark.slow
def test_a_kill_at_any_step_of_saving_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    script = KILLED.format(root=root)
    seen = set()
    for at in range(1, 60, 6):
        folder = tmp_path / str(at)
        index().save(folder, corpus_fingerprint="old")
        run = subprocess.run(
            [sys.executable, "-c", script, str(folder), str(at)], capture_output=True, text=True
        )
        there = [
            name
            for name in ("old", "new")
            if LexicalIndex.load(folder, corpus_fingerprint=name) is not None
        ]
        seen.add(tuple(there))
        assert there, f"killed at step {at}, neither is there"
        if run.returncode == 0:
            assert there == ["new"]
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
        index().save(folder, corpus_fingerprint="newer")
        assert len(list(folder.iterdir())) == 1, "what the kill left is cleared away"
    else:
        pytest.fail("the save never came to its end")
    assert seen >= {("old",), ("new",)}
    shutil.rmtree(tmp_path)


def test_highlights_are_the_words_that_match() -> None:
    text = "The dose: Dosing of 0.5 mg, the DOSES."
    spans = list(highlights("the doses 0.5", text))
    assert [text[start:end] for start, end in spans] == ["dose", "Dosing", "0.5", "DOSES"]
    assert list(highlights("", text)) == []


def test_the_manifest_names_every_file(tmp_path: Path) -> None:
    index().save(tmp_path, corpus_fingerprint="f")
    [folder] = tmp_path.iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json"}


KOREAN = [
    "고혈압은 수축기 혈압이 140 mmHg 이상인 경우로 정의한다.",
    "당뇨병 환자에게는 메트포르민을 1일 2회 투여한다.",
    "열이 나면 해열제를 쓰고, B형간염 검사를 한다.",
]
EASTERN = [
    *KOREAN,
    "患者应每日服用佐利木津五毫克。如果出现皮疹，应立即停药。",
    "ゾリムジンを一日一回投与する。発疹が出た場合は直ちに中止する。",
    "หากมีการแพ้ยาให้หยุดยาทันที",
]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("고혈압", 0), ("혈압", 0), ("수축기", 0), ("정의", 0), ("당뇨병", 1), ("메트포르민", 1),
        ("환자", 1), ("열", 2), ("해열제", 2), ("간염", 2), ("검사", 2), ("皮疹", 3), ("立即停药", 3),
        ("佐利木津", 3), ("発疹", 4), ("ゾリムジン", 4), ("中止", 4), ("การแพ้", 5), ("หยุดยา", 5),
    ],
)  # fmt: skip
@pytest.mark.parametrize("installed", [pytest.param(True, marks=pytest.mark.slow), False])
def test_words_without_spaces_are_found_with_and_without_segmenters(
    query: str, place: int, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setattr("retrieval.search.bm25.long_words", lambda text: iter(()))
    built = LexicalIndex.build(range(len(EASTERN)), [""] * len(EASTERN), EASTERN)
    [found] = built.search([query], 10)
    assert found.ids[0] == place
    spans = list(highlights(query, EASTERN[place]))
    assert any(EASTERN[place][start:end] in query for start, end in spans)


def test_every_stretch_of_a_korean_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.search.bm25.long_words", lambda text: iter(()))
    built = LexicalIndex.build(range(len(KOREAN)), [""] * len(KOREAN), KOREAN)
    for place, text in enumerate(KOREAN):
        for word in re.findall(r"[가-힣]+", text):
            for length in range(1, len(word) + 1):
                [found] = built.search([word[:length]], len(KOREAN))
                assert place in found.ids, word[:length]


def test_an_index_of_other_segmenters_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index().save(tmp_path, corpus_fingerprint="abc")
    assert LexicalIndex.load(tmp_path, corpus_fingerprint="abc") is not None
    monkeypatch.setattr("retrieval.search.bm25.segmenters", lambda: {"ko": "another 1.0"})
    assert LexicalIndex.load(tmp_path, corpus_fingerprint="abc") is None
