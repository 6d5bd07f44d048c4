"""Files of the Hub, against a Hub on this machine."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stepgold
from stepgold.hub import hub_path
from stepgold.trust import sensitive_settings
from tests.loopback.hub_server import TOKEN, Hub
from traces import InputError

ROW = {
    "id": "t",
    "problem": "What is 1 + 1?",
    "steps": ["1 + 1 = 2", "So 2."],
    "labels": {"gold": {"kind": "gold", "verdicts": [1, -1]}},
}


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def traces(*ids: str, **more: Any) -> bytes:
    return lines(*(ROW | {"id": id, "problem": f"{id}?"} | more for id in ids))


@pytest.fixture
def ws(tmp_path: Path) -> stepgold.Workspace:
    return stepgold.Workspace(tmp_path / "ws", progress=False)


def stored(ws: stepgold.Workspace, query: str) -> list[Any]:
    with sqlite3.connect(ws.folder / "stepgold.db") as database:
        return database.execute(query).fetchall()


def subsets(ws: stepgold.Workspace, dataset: str) -> dict[str, str]:
    return dict(
        stored(
            ws,
            "select t.id, t.subset from traces t join datasets d on d.pk = t.dataset_pk"
            f" where d.name = '{dataset}'",
        )
    )


def test_a_pushed_file_is_the_same_when_imported(
    hub: Hub, ws: stepgold.Workspace, tmp_path: Path
) -> None:
    local = tmp_path / "local.jsonl"
    local.write_bytes(traces("a", "b", subset="gsm8k") + traces("c"))
    ws.import_("traces", local, dataset="d")
    pushed = ws.export(
        "traces", "hf://datasets/me/steps/train.jsonl", dataset="d", labeler="gold", private=True
    )
    made = hub.repositories["me/steps"]
    assert made.private
    assert pushed.commit == made.head
    assert pushed.as_json()["out"] == "hf://datasets/me/steps/train.jsonl"
    back = ws.import_("traces", "hf://datasets/me/steps/train.jsonl", dataset="back")
    assert (back.done, back.rejected) == (3, ())
    assert subsets(ws, "back") == {"a": "gsm8k", "b": "gsm8k", "c": "default"}
    origin = {"repository": "me/steps", "commit": made.head, "path": "train.jsonl"}
    assert back.as_json()["hub"] == [origin]
    ((options,),) = stored(ws, "select options from source_files where name = 'train.jsonl'")
    assert json.loads(options)["hub"] == origin
    again = ws.export("traces", tmp_path / "again.jsonl", dataset="back", labeler="gold")
    assert again.done == 3
    assert (tmp_path / "again.jsonl").read_bytes() == made.commits[made.head]["train.jsonl"]


def test_no_token_reaches_the_database_or_the_messages(
    hub: Hub, ws: stepgold.Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.add("o/n", {"a.jsonl": traces("a")}, private=True)
    done = ws.import_("traces", "hf://datasets/o/n", dataset="d")
    assert TOKEN.encode() not in (ws.folder / "stepgold.db").read_bytes()
    assert TOKEN not in " ".join([str(done), json.dumps(done.as_json()), *done.notes])
    host = hub.url.removeprefix("http://")
    told = f"hf://datasets/o/n is on {host}: the token and what is pushed go there."
    assert told in done.notes
    assert capfd.readouterr() == ("", "")  # no bars of huggingface_hub either


def test_a_repository_stands_for_its_data_files_and_splits_are_subsets(
    hub: Hub, ws: stepgold.Workspace
) -> None:
    files = {
        "README.md": b"# no metadata",
        "dataset_infos.json": b"{}",
        "data/train-00000-of-00001.jsonl": traces("a"),
        "data/hard_test.jsonl": traces("b"),
        "dev.jsonl": traces("c"),
        "more.jsonl": traces("e") + traces("f", subset="own"),
        "picture.png": b"",
    }
    hub.add("o/n", files)
    done = ws.import_("traces", "hf://datasets/o/n", dataset="d")
    assert done.done == 5
    found = subsets(ws, "d")
    assert found == {"a": "train", "b": "test", "c": "validation", "e": "default", "f": "own"}
    assert not any("picture" in path for _, path in hub.requests)
    ws.import_("traces", "hf://datasets/o/n/data", dataset="data", subset="mine")
    assert subsets(ws, "data") == {"a": "mine", "b": "mine"}
    ws.import_("traces", "hf://datasets/o/n/data", dataset="one", subset="default")
    assert subsets(ws, "one") == {"a": "default", "b": "default"}


def test_the_card_says_which_file_is_which_split(hub: Hub, ws: stepgold.Workspace) -> None:
    card = """---
configs:
- config_name: default
  data_files:
  - split: gsm8k
    path: first.json
  - split: math
    path: ["rest/*.jsonl"]
---
"""
    files = {
        "README.md": card.encode(),
        "first.json": b"[" + traces("a").strip() + b"]",
        "rest/x.jsonl": traces("b"),
        "unlisted.jsonl": traces("z"),
    }
    repository = hub.add("o/n", files)
    ws.import_("traces", "hf://datasets/o/n", dataset="d")
    assert subsets(ws, "d") == {"a": "gsm8k", "b": "math"}
    more = (
        "- config_name: en\n  data_files: unlisted.jsonl\n- config_name: x\n  data_dir: rest\n---\n"
    )
    repository.commit({"README.md": f"{card.removesuffix('---' + chr(10))}{more}".encode()})
    ws.import_("traces", "hf://datasets/o/n", dataset="two")
    assert subsets(ws, "two") == {"a": "default/gsm8k", "b": "default/math", "z": "en"}


def test_a_revision_is_read_and_an_unrelated_commit_changes_nothing(
    hub: Hub, ws: stepgold.Workspace
) -> None:
    repository = hub.add("o/n", {"a.jsonl": traces("a")})
    first = repository.head
    repository.commit({"a.jsonl": traces("a", "b")})
    old = ws.import_("traces", f"hf://datasets/o/n@{first}/a.jsonl", dataset="old")
    assert (old.done, old.hub[0]["commit"]) == (1, first)
    assert ws.import_("traces", "hf://datasets/o/n/a.jsonl", dataset="new").done == 2
    repository.commit({"else.txt": b""})
    again = ws.import_("traces", "hf://datasets/o/n/a.jsonl", dataset="new")
    assert (again.done, again.unchanged, again.hub[0]["commit"]) == (0, 2, repository.head)


def test_offline_the_cache_is_read_and_what_it_lacks_is_said(
    hub: Hub, ws: stepgold.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/n", {"a.jsonl": traces("a"), "b.jsonl": traces("b")})
    ws.import_("traces", "hf://datasets/o/n/a.jsonl", dataset="one")
    asked = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached = ws.import_("traces", "hf://datasets/o/n/a.jsonl", dataset="cached")
    assert (cached.done, cached.hub[0]["commit"]) == (1, hub.repositories["o/n"].head)
    assert any("(cached)" in text for text in cached.notes)
    # Part of a repository must not pass for all of it.
    for path in ("hf://datasets/o/n", "hf://datasets/o/other"):
        with pytest.raises(InputError, match="not complete in the cache") as info:
            ws.import_("traces", path, dataset="all")
        assert "unset HF_HUB_OFFLINE" in (info.value.remedy or "")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        ws.export("traces", "hf://datasets/me/x", dataset="one", labeler="gold")
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_the_command_line_reads_the_environment(hub: Hub, tmp_path: Path) -> None:
    hub.add("o/n", {"a.jsonl": traces("a")})
    environ = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "cli.py", "--workspace", str(tmp_path / "w"), "import", "traces"]
    command += ["hf://datasets/o/n@main/a.jsonl", "--dataset", "d", "--json"]
    for offline in ("0", "1"):
        ran = subprocess.run(
            command, env=environ | {"HF_HUB_OFFLINE": offline}, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["traces"] == 1
        assert TOKEN not in ran.stdout + ran.stderr
        command[-2] = "again"


@pytest.mark.parametrize(
    ("path", "what", "remedy"),
    [
        ("hf://datasets/o/none/a.jsonl", "no dataset repository o/none", "check the name"),
        ("hf://datasets/o/n@gone/a.jsonl", "no revision 'gone'", "after @"),
        ("hf://datasets/o/n/b.jsonl", "no 'b.jsonl' at commit", "/datasets/o/n/tree/main"),
        ("hf://datasets/o/empty", "no data file", "end in"),
        ("hf://datasets/o", "not a path on the Hub", "hf://datasets/ORG/NAME"),
        ("hf://o/n/a.jsonl", "it names a model", "hf://datasets/ORG/NAME"),
        ("hf://datasets/o/n/../x", "not a path on the Hub", "hf://datasets/ORG/NAME"),
        ("hf://datasets/o/gated/a.jsonl", "is gated", "accept them at"),
    ],
)
def test_every_error_has_a_way_out(
    hub: Hub,
    ws: stepgold.Workspace,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    what: str,
    remedy: str,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    hub.add("o/n", {"a.jsonl": traces("a")})
    hub.add("o/empty", {"README.md": b""})
    hub.add("o/gated", {"a.jsonl": traces("a")}, gated=True)
    with pytest.raises(InputError, match=what) as info:
        ws.import_("traces", path, dataset="d")
    assert remedy in (info.value.remedy or "")
    assert not (ws.folder / "stepgold.db").exists()


def test_an_unreachable_hub_is_no_silent_reading_of_the_cache(
    hub: Hub, ws: stepgold.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("o/n", {"a.jsonl": traces("a")})
    ws.import_("traces", "hf://datasets/o/n", dataset="d")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be reached") as info:
        ws.import_("traces", "hf://datasets/o/n", dataset="e")
    assert "HF_HUB_OFFLINE=1" in (info.value.remedy or "")


def test_a_token_is_not_sent_without_encryption(
    hub: Hub, ws: stepgold.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://192.0.2.1:9")
    with pytest.raises(InputError, match="would not be encrypted") as info:
        ws.import_("traces", "hf://datasets/o/n", dataset="d")
    assert "--insecure-http" not in (info.value.remedy or "")


def test_a_push_needs_a_token_and_never_lands_in_public_by_mistake(
    hub: Hub, ws: stepgold.Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(traces("a"))
    ws.import_("traces", tmp_path / "a.jsonl", dataset="d")
    made = hub.add("me/public", {"README.md": b""})
    with pytest.raises(InputError, match="is public, and --private was given"):
        ws.export("traces", "hf://datasets/me/public", dataset="d", labeler="gold", private=True)
    assert len(made.commits) == 1
    open_ = ws.export("traces", "hf://datasets/me/public", dataset="d", labeler="gold")
    assert "hf://datasets/me/public is public: everyone can read what is pushed" in open_.notes
    assert set(made.commits[made.head]) == {"README.md", "d.jsonl"}
    new = ws.export("traces", "hf://datasets/me/new", dataset="d", labeler="gold")
    assert any("will be public" in text for text in new.notes)
    with pytest.raises(InputError, match="--private has no effect"):
        ws.export("traces", tmp_path / "b.jsonl", dataset="d", labeler="gold", private=True)
    with pytest.raises(InputError, match="no labeler"):
        ws.export("traces", "hf://datasets/me/other", dataset="d", labeler="none")
    monkeypatch.setenv("HF_TOKEN", "hf_anothertoken0123456789")
    with pytest.raises(InputError, match="refuses access") as info:
        ws.export("traces", "hf://datasets/me/public", dataset="d", labeler="gold")
    assert "write access" in (info.value.remedy or "")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="needs a token"):
        ws.export("traces", "hf://datasets/me/public", dataset="d", labeler="gold")
    assert set(hub.repositories) == {"me/public", "me/new"}


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's own
def test_a_large_file_goes_through_lfs(
    hub: Hub, ws: stepgold.Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.lfs_from = 1
    # Else hf-xet uploads it, by a protocol of its own.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    (tmp_path / "a.jsonl").write_bytes(traces("a"))
    ws.import_("traces", tmp_path / "a.jsonl", dataset="d")
    ws.export("traces", "hf://datasets/me/big/a.jsonl.gz", dataset="d", labeler="gold")
    assert len(hub.objects) == 1
    assert ws.import_("traces", "hf://datasets/me/big", dataset="back").done == 1


def test_health_information_is_not_pushed(hub: Hub, ws: stepgold.Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(traces("a", meta={"phi_removed": False}))
    ws.import_("traces", tmp_path / "a.jsonl", dataset="d")
    path = "hf://datasets/me/new"
    with pytest.raises(InputError, match="phi_removed: false") as info:
        ws.export("traces", path, dataset="d", labeler="gold", private=True)
    assert "--allow-phi" in (info.value.remedy or "")
    assert not hub.repositories
    ws.export("traces", path, dataset="d", labeler="gold", private=True, allow_phi=True)
    assert hub.repositories["me/new"].private


def test_an_output_on_the_hub_is_a_setting_to_trust(tmp_path: Path) -> None:
    settings = {"out": "hf://datasets/other/place", "format": "traces"}
    found = list(sensitive_settings("export", settings, tmp_path))
    assert [each.key for each in found] == ["out"]
    assert list(sensitive_settings("export", {"release": "hf://datasets/other/place"}, tmp_path))
    assert not list(sensitive_settings("export", {"out": "train.jsonl"}, tmp_path))


@pytest.mark.slow
def test_every_other_kind_of_file_comes_from_the_hub(hub: Hub, ws: stepgold.Workspace) -> None:
    candidate = {"problem_id": "p", "candidate_index": 0, "answer": "2", "is_correct": True}
    files = {
        "traces.jsonl": traces("a"),
        "s/scores.jsonl": lines({"id": "a", "scores": [0.9, 0.1]}, {"id": "zz", "scores": [1.0]}),
        "pool.jsonl": lines(candidate),
        "pool_scores.jsonl": lines({"problem_id": "p", "candidate_index": 0, "step_scores": [0.5]}),
    }
    repository = hub.add("o/n", files)
    ws.import_("traces", "hf://datasets/o/n/traces.jsonl", dataset="d")
    scored = ws.import_scores("hf://datasets/o/n/s", dataset="d", labeler="theirs")
    assert scored.scored == 1
    shown = f"hf://datasets/o/n@{repository.head}/s/scores.jsonl"
    assert [row.file for row in scored.rejected] == [shown]
    repository.commit({"else.txt": b""})
    assert ws.import_scores("hf://datasets/o/n/s", dataset="d", labeler="theirs").unchanged == 1
    ((config,),) = stored(ws, "select config from labelers where name = 'theirs'")
    assert json.loads(config)["hub"][0]["repository"] == "o/n"
    best = ws.best_of_n(
        n=1, pool="hf://datasets/o/n/pool.jsonl", scores="hf://datasets/o/n/pool_scores.jsonl"
    )
    assert best.as_json()["pools"] == 1
    with pytest.raises(InputError, match="has 4 data files, and one is read"):
        ws.best_of_n(n=1, pool="hf://datasets/o/n", scores="hf://datasets/o/n/pool_scores.jsonl")
    # Each is refused for what it holds, so it was fetched and read.
    with pytest.raises(InputError, match="unknown field 'labels'"):
        ws.sample(dataset="s", policy="lab", problems="hf://datasets/o/n/traces.jsonl")
    with pytest.raises(InputError, match="not a relevance judgment"):
        ws.retrieve(dataset="d", evaluate="hf://datasets/o/n/traces.jsonl")
    over = ws.overlap("hf://datasets/o/n/traces.jsonl", dataset="d")
    assert over.training == ("hf://datasets/o/n/traces.jsonl",)


@pytest.mark.slow
def test_a_corpus_follows_the_repository(hub: Hub, ws: stepgold.Workspace) -> None:
    files = {"README.md": b"# The card", "guides/a.md": b"# A\n\nText a.", "guides/b.txt": b"B."}
    repository = hub.add("o/guides", files)
    first = ws.corpus_add("hf://datasets/o/guides", corpus="c")
    assert (first.done, first.removed_documents) == (2, ())
    at = f"hf://datasets/o/guides@{repository.head}"
    assert stored(ws, "select source from corpus_sources") == [(at,)]
    del repository.commits[repository.commit({"guides/a.md": b"# A\n\nNewer."})]["guides/b.txt"]
    second = ws.corpus_add("hf://datasets/o/guides", corpus="c")
    assert (second.done, second.removed_documents) == (1, ("guides/b.txt",))
    assert ws.corpus_add("hf://datasets/o/guides", corpus="c").unchanged == 1
    assert stored(ws, "select source from documents") == [("hf://datasets/o/guides/guides/a.md",)]
    one = ws.corpus_add("hf://datasets/o/guides/guides/a.md", corpus="one")
    assert one.done == 1


def test_a_path_stays_one_on_the_hub_wherever_it_is_written(
    hub: Hub, tmp_path: Path, ws: stepgold.Workspace
) -> None:
    assert hub_path("hf://datasets/o/n@v1/a.jsonl") == "hf://datasets/o/n@v1/a.jsonl"
    assert hub_path(Path("hf://datasets/o/n")) == "hf://datasets/o/n"
    assert hub_path("data/hf.jsonl") is None
    hub.add("o/n", {"a.jsonl": traces("a")})
    config = tmp_path / "p.toml"
    config.write_text(
        '[import]\nformat = "traces"\nfiles = ["hf://datasets/o/n"]\ndataset = "d"\n'
        '[export]\nformat = "traces"\nout = "hf://datasets/me/out"\ndataset = "d"\n'
        'labeler = "gold"\nprivate = true\n'
    )
    done = ws.run(config)
    assert done.exit_code == 0
    assert hub.repositories["me/out"].private
    assert any("hf://datasets/me/out" in text for text in done.notes)
