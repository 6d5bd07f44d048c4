"""Status, removal and the checkup from Python."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import stepgold
from retrieval.index.files import MANIFEST, VECTORS, IndexManifest
from tests.commands.conftest import Cli
from tests.stepgold.test_exchange import timeless
from traces import StoreError


@pytest.fixture
def ws(tmp_path: Path, traces_file: Path) -> stepgold.Workspace:
    """A workspace with a dataset `d` and its gold labels."""
    ws = stepgold.Workspace(tmp_path / "w", progress=False)
    ws.import_("traces", traces_file, dataset="d")
    return ws


def test_a_status_is_the_commands(cli: Cli, ws: stepgold.Workspace) -> None:
    result = ws.status()
    assert (result.datasets["d"].traces, result.calls.sent, result.failures) == (3, 0, ())
    [gold] = result.labelers
    assert (gold.labeler.name, gold.traces) == ("gold", 3)
    assert cli("status", "--json").document == result.as_json()
    assert result.rows()[0]["name"] == "gold"
    assert "d: 2 problems, 3 traces, 7 steps" in str(result)


def test_a_status_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        stepgold.Workspace(tmp_path / "none").status()
    assert not (tmp_path / "none").exists()


def test_removal_is_the_commands(cli: Cli, ws: stepgold.Workspace, traces_file: Path) -> None:
    result = ws.remove_labeler("gold", dataset="d")
    assert str(result) == "labeler 'gold' removed from 'd'"
    assert ws.status().labelers == ()
    gone = ws.remove_dataset("d")
    assert ws.status().datasets == {}
    ws.import_("traces", traces_file, dataset="d")
    assert timeless(cli("remove", "dataset", "d", "--yes", "--json").document) == timeless(
        gone.as_json()
    )


def test_a_checkup_tells_what_is_there(
    cli: Cli, ws: stepgold.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    result = ws.doctor()
    assert result.database.state == "usable"
    assert "3 traces" in result.database.detail
    assert result.index.state == "missing"
    assert result.packages["torch"]
    assert (result.variables["OPENAI_API_KEY"], result.variables["GEMINI_API_KEY"]) == (True, False)
    assert result.disk_free_bytes > 0
    called = cli("doctor", "--json")
    assert called.code == result.exit_code == 0
    assert "secret" not in called.out + str(result)
    moving = ("disk_free_bytes", "accelerators")
    theirs, ours = called.document, result.as_json()
    assert {k: v for k, v in theirs.items() if k not in moving} == {
        k: v for k, v in ours.items() if k not in moving
    }


def test_a_checkup_finds_what_is_wrong(ws: stepgold.Workspace, tmp_path: Path) -> None:
    nowhere = stepgold.Workspace(tmp_path / "none").doctor()
    assert (nowhere.database.state, nowhere.index.state) == ("missing", "missing")
    assert not (tmp_path / "none").exists()
    (ws.folder / "stepgold.db").write_text("no database at all")
    ws.index_folder.mkdir()
    (ws.index_folder / "manifest.json").write_text("{")
    result = ws.doctor()
    assert (result.database.state, result.index.state) == ("unusable", "unusable")
    assert len(result.problems) == 2
    assert result.exit_code == 1
    assert "  do: " in str(result)


def test_a_password_in_the_url_is_not_told(tmp_path: Path) -> None:
    ws = stepgold.Workspace(tmp_path, db="postgresql://me:secret@host/db")
    assert "secret" not in str(ws.doctor())


def test_an_index_of_an_older_corpus_is_outdated(ws: stepgold.Workspace, tmp_path: Path) -> None:
    guideline = tmp_path / "g.md"
    guideline.write_text("# G\n\nText.")
    ws.corpus_add(guideline, corpus="g")
    manifest = IndexManifest(
        encoder="words@1",
        encoder_spec=None,
        dimension=4,
        count=1,
        kind="flat",
        corpus_fingerprint="older",
        created_by="stepgold",
        files={VECTORS: "0" * 64},
    )
    ws.index_folder.mkdir()
    (ws.index_folder / MANIFEST).write_text(json.dumps(asdict(manifest)))
    result = ws.doctor()
    assert result.index.state == "outdated"
    assert [each.remedy for each in result.problems] == ["stepgold index"]
