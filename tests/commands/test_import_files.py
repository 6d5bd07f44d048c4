"""Import of several files, and of a file that lost rows: whose rows they are, and what is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def trace(trace_id: str, **more: Any) -> dict[str, Any]:
    return {"id": trace_id, "problem": "p", "steps": ["s"], **more}


def test_two_files_of_one_name_are_refused_not_taken_for_two_versions(
    cli: Cli, tmp_path: Path
) -> None:
    """With --replace the second one silently removed the traces of the first."""
    files = [
        written(tmp_path / "a" / "t.jsonl", trace("a")),
        written(tmp_path / "b" / "t.jsonl", trace("b")),
    ]
    called = cli("import", "traces", *files, "--dataset", "d", "--replace", "--json")
    assert called.code == 2
    assert str(files[0]) in called.document["error"]["where"]
    assert not (tmp_path / "stepgold.db").exists()


def test_traces_that_left_the_file_are_counted(cli: Cli, tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", trace("a"), trace("b"))
    assert cli("import", "traces", path, "--dataset", "d", "--json").document["removed"] == 0
    written(path, trace("a"))
    called = cli("import", "traces", path, "--dataset", "d", "--replace", "--json")
    assert (called.document["traces"], called.document["removed"]) == (1, 1)
    written(path, trace("c"))
    assert "1 removed" in cli("import", "traces", path, "--dataset", "d", "--replace").out


def test_a_bad_name_of_a_labeler_costs_its_row_and_no_other(cli: Cli, tmp_path: Path) -> None:
    bad = [
        trace(f"bad {number}", labels={name: {"kind": "gold", "first_error": 0}})
        for number, name in enumerate(("", "two\nlines"))
    ]
    path = written(tmp_path / "t.jsonl", trace("good"), *bad)
    called = cli("import", "traces", path, "--dataset", "d", "--json")
    assert (called.code, called.document["done"], called.document["failed"]) == (1, 1, 2)
    assert [(row["file"], row["line"]) for row in called.document["rejected"]] == [
        (str(path), 2),
        (str(path), 3),
    ]
    assert not cli("status", "--json").document["labelers"]


@pytest.mark.parametrize("name", ["a?b", "p%20q", "with space é #1"])
def test_a_workspace_is_exactly_the_folder_that_was_named(
    cli: Cli, traces_file: Path, tmp_path: Path, name: str
) -> None:
    workspace = tmp_path / "at" / name
    called = cli("import", "traces", traces_file, "--dataset", "d", workspace=workspace)
    assert called.code == 0, called.err
    assert (workspace / "stepgold.db").exists()
    assert [entry.name for entry in workspace.parent.iterdir()] == [name]
    assert "d" in cli("status", "--json", workspace=workspace).document["datasets"]
