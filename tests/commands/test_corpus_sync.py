"""`corpus add` again and again: what changed, what did not, what is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def guides(tmp_path: Path) -> Path:
    folder = tmp_path / "guides"
    (folder / "heart").mkdir(parents=True)
    (folder / "warfarin.md").write_text("# Warfarin\n\nStart at 5 mg. Check the INR.")
    (folder / "heart" / "digoxin.txt").write_text("Digoxin: check the potassium.")
    rows = [{"id": "1", "content": "One text."}, {"id": "2", "content": "Another text."}]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def counts(called: Any) -> tuple[int, int, int, int]:
    document = called.document
    return tuple(document[key] for key in ("done", "unchanged", "removed", "failed"))


class Counting:
    """Counts the calls of a function and lets it do its work."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self.real, self.calls = real, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.real(*args, **kwargs)


@pytest.mark.slow
def test_an_unchanged_folder_is_neither_parsed_nor_split(
    cli: Cli, guides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval import documents
    from retrieval.documents import reading

    split, parsed = Counting(documents.split_document), Counting(reading.make_document)
    monkeypatch.setattr(documents, "split_document", split)
    monkeypatch.setattr(reading, "make_document", parsed)
    add = ("corpus", "add", guides, "--corpus", "g", "--json")
    assert counts(cli(*add)) == (4, 0, 0, 0)
    assert (split.calls, parsed.calls) == (4, 4)
    assert counts(cli(*add)) == (0, 4, 0, 0)
    assert (split.calls, parsed.calls) == (4, 4), "unchanged: nothing but hashes"
    (guides / "warfarin.md").write_text("# Warfarin\n\nStart at 4 mg.")
    with (guides / "rows.jsonl").open("a") as rows:
        rows.write('\n{"id": "3", "content": "A third."}')
    assert counts(cli(*add)) == (2, 3, 0, 0)
    assert split.calls == 6, "of a changed file only the new row is split"


@pytest.mark.slow
def test_what_is_gone_from_the_folder_is_gone_from_the_corpus(cli: Cli, guides: Path) -> None:
    add = ("corpus", "add", guides, "--corpus", "g", "--json")
    cli(*add)
    (guides / "warfarin.md").unlink()
    (guides / "rows.jsonl").write_text('{"id": "2", "content": "Another text."}')
    kept = cli(*add, "--keep-missing")
    assert counts(kept) == (0, 2, 1, 0), "a row that is gone is a change of its file"
    called = cli(*add)
    assert counts(called) == (0, 2, 1, 0)
    assert called.document["removed_documents"] == ["warfarin.md"]
    found = cli("search", "warfarin INR potassium text", "--mode", "bm25", "--json").document[
        "hits"
    ]
    assert {hit["document"] for hit in found} == {"heart/digoxin.txt", "rows.jsonl#2"}


@pytest.mark.slow
def test_only_the_folder_that_is_added_loses_documents(cli: Cli, guides: Path) -> None:
    cli("corpus", "add", guides, "--corpus", "g")
    (guides / "warfarin.md").unlink()
    part = cli("corpus", "add", guides / "heart" / "digoxin.txt", "--corpus", "g", "--json")
    assert part.document["removed"] == 0
    other = cli("corpus", "add", guides, "--corpus", "other", "--json")
    assert other.document["removed"] == 0
    assert cli("corpus", "list", "--json").document["corpora"][0]["documents"] == 5


def test_an_emptied_folder_is_no_wish_to_empty_the_corpus(cli: Cli, guides: Path) -> None:
    cli("corpus", "add", guides, "--corpus", "g")
    for file in [path for path in guides.rglob("*") if path.is_file()]:
        file.unlink()
    assert cli("corpus", "add", guides, "--corpus", "g").code == 2
    assert cli("corpus", "list", "--json").document["corpora"][0]["documents"] == 4


@pytest.mark.slow
def test_two_folders_with_the_same_names_are_no_update(cli: Cli, tmp_path: Path) -> None:
    for folder in ("nice", "who"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text(f"# {folder}\n\nText of {folder}.")
        (tmp_path / folder / f"{folder}.md").write_text(f"# {folder}")
    add = ("corpus", "add", "--corpus", "g", "--json")
    assert counts(cli(*add, tmp_path / "nice")) == (2, 0, 0, 0)
    clash = cli(*add, tmp_path / "who")
    assert (clash.code, counts(clash)) == (1, (1, 0, 0, 1))
    [row] = clash.document["rejected"]
    assert (row["file"], row["id"]) == (str(tmp_path / "who" / "README.md"), "README.md")
    assert str(tmp_path / "nice" / "README.md") in row["reason"]
    assert counts(cli(*add, tmp_path / "who")) == (0, 1, 0, 1), "it is told again"
    assert counts(cli(*add, tmp_path / "nice")) == (0, 2, 0, 0), "and nothing was replaced"
    assert counts(cli(*add, tmp_path / "who", "--replace")) == (1, 1, 0, 0)


@pytest.mark.slow
def test_a_folder_that_was_moved_is_the_same_corpus(cli: Cli, guides: Path, tmp_path: Path) -> None:
    cli("corpus", "add", guides, "--corpus", "g")
    moved = guides.rename(tmp_path / "moved")
    called = cli("corpus", "add", moved, "--corpus", "g", "--json")
    assert counts(called) == (0, 4, 0, 0)
    (moved / "warfarin.md").unlink()
    assert cli("corpus", "add", moved, "--corpus", "g", "--json").document["removed"] == 1


@pytest.mark.slow
def test_a_file_that_became_unreadable_keeps_what_it_was(cli: Cli, guides: Path) -> None:
    add = ("corpus", "add", guides, "--corpus", "g", "--json")
    cli(*add)
    (guides / "warfarin.md").write_bytes(b"# Warfarin\xff")
    (guides / "rows.jsonl").write_text('{"id": "1", "content": 5}\n{"id": "2", "content": "New."}')
    called = cli(*add)
    assert (called.code, counts(called)) == (1, (1, 1, 0, 2))
    assert {(Path(row["file"]).name, row["line"]) for row in called.document["rejected"]} == {
        ("warfarin.md", None),
        ("rows.jsonl", 1),
    }
    again = cli(*add)
    assert again.document["rejected"] == called.document["rejected"], "the same story again"
    assert cli("corpus", "list", "--json").document["corpora"][0]["documents"] == 4


@pytest.mark.slow
def test_other_lengths_split_anew_and_sizes_have_an_option(cli: Cli, guides: Path) -> None:
    add = ("corpus", "add", guides, "--corpus", "g", "--json")
    cli(*add)
    assert counts(cli(*add, "--passage-tokens", "16", "--overlap", "8")) == (0, 4, 0, 0), (
        "texts of one sentence are split as before, and keep their passages"
    )
    (guides / "large.txt").write_text("Many words. " * 100_000)
    large = cli(*add, "--passage-tokens", "16", "--overlap", "8", "--max-file-mb", "1")
    assert (large.code, counts(large)) == (1, (0, 4, 0, 1))
    assert "--max-file-mb" in large.document["rejected"][0]["reason"]
    assert cli(*add, "--passage-tokens", "16", "--overlap", "16").code == 2


@pytest.mark.slow
def test_licence_source_and_single_documents(cli: Cli, guides: Path) -> None:
    stated = ("--licence", "CC-BY-4.0", "--source", "https://example.org/g")
    cli("corpus", "add", guides, "--corpus", "g", *stated)
    [corpus] = cli("corpus", "list", "--json").document["corpora"]
    assert (corpus["licence"], corpus["source"]) == ("CC-BY-4.0", "https://example.org/g")
    assert "https://example.org/g" in cli("corpus", "list").out
    assert cli("corpus", "remove", "g", "--document", "warfarin.md").code == 0
    assert cli("corpus", "remove", "g", "--document", "warfarin.md").code == 2
    assert cli("corpus", "list", "--json").document["corpora"][0]["documents"] == 3
    back = cli("corpus", "add", guides, "--corpus", "g", "--json")
    assert counts(back) == (1, 3, 0, 0)


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from storage.corpora import CorpusFiles
from cli import execute
real, left = CorpusFiles.{method}, int(sys.argv[1])
def counted(*args, **kwargs):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
CorpusFiles.{method} = counted
execute(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["put", "finish"])
def test_a_killed_run_is_taken_up_where_it_was(cli: Cli, tmp_path: Path, method: str) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text(f"Text {number}. " * 20)
    rows = [json.dumps({"id": str(n), "content": f"Row {n}."}) for n in range(450)]
    (folder / "rows.jsonl").write_text("\n".join(rows))  # three batches
    add = ("corpus", "add", str(folder), "--corpus", "g")
    script = KILLED.format(root=str(Path(__file__).resolve().parents[2]), method=method)
    for at in (3, 7 if method == "finish" else 8):  # then in the midst of the rows
        argv = [sys.executable, "-c", script, str(at), "--workspace", str(tmp_path / "w"), *add]
        killed = subprocess.run(argv, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = cli(*add, "--json")
    assert resumed.code == 0, resumed.err
    assert sum(counts(resumed)[:2]) == 458
    stored = 458 if method == "finish" else 208
    assert counts(resumed)[1] == stored, "what was stored before the kill is not stored again"
    whole = cli(*add, "--json", workspace=tmp_path / "fresh")
    assert counts(whole)[:2] == (458, 0)
    for workspace in ("w", "fresh"):
        [corpus] = cli("corpus", "list", "--json", workspace=tmp_path / workspace).document[
            "corpora"
        ]
        assert corpus["documents"] == 458
    assert counts(cli(*add, "--json")) == (0, 458, 0, 0)


def test_no_file_of_a_folder_is_passed_over_in_silence(cli: Cli, guides: Path) -> None:
    (guides / "README").write_text("Read me.")
    (guides / "old.doc").write_bytes(b"\xd0\xcf")
    (guides / "logo.png").write_bytes(b"\x89PNG")
    (guides / "LICENSE").write_text("MIT")
    (guides / "notes.rst").write_text("Notes\n=====\n\nGive 5 mg.")
    called = cli("corpus", "add", guides, "--corpus", "g", "--json")
    assert called.code == 1
    assert called.document["done"] == 5
    assert [Path(each["file"]).name for each in called.document["rejected"]] == [
        "README",
        "old.doc",
    ]
    assert [Path(each).name for each in called.document["passed_over"]] == ["LICENSE", "logo.png"]
    told = cli("corpus", "add", guides, "--corpus", "g")
    assert "passed over: 2 files of other types" in told.out
