"""Bad input: one to three clear lines, exit 2 and an unchanged database; or bad rows listed, exit 1."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
ROW = {"id": "a", "problem": "p", "steps": ["s"]}


def refused(called: Any, *words: str) -> None:
    """The call was refused with a short message for a person that holds `words`."""
    assert called.code == 2, called
    lines = [
        line
        for line in called.err.strip().splitlines()
        if line.startswith(("error", "  at", "  do"))
    ]
    assert 1 <= len(lines) <= 3
    assert lines[0].startswith("error: ")
    assert "Traceback" not in called.err
    for word in words:
        assert word in called.err, called.err


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


UNREADABLE: dict[str, Callable[[Path], Path]] = {
    "missing": lambda d: d / "nothing.jsonl",
    "empty": lambda d: lines(d / "e.jsonl"),
    "folder": lambda d: d,
    "truncated json": lambda d: lines(
        d / "t.json", '[{"id": "a", "problem": "p", "steps": ["s"]}, {"id"'
    ),
    "binary": lambda d: (d / "b.jsonl", (d / "b.jsonl").write_bytes(bytes(range(256)) * 64))[0],
    "wrong format": lambda d: lines(
        d / "w.jsonl", {"prompt": "p", "completions": ["s"], "labels": [True]}
    ),
    "wrong keys": lambda d: lines(d / "k.jsonl", {"foo": 1}),
    "only zero steps": lambda d: lines(d / "z.jsonl", {"id": "a", "problem": "p", "steps": []}),
    "truncated gzip": lambda d: _cut_gzip(d / "g.jsonl.gz"),
    "not a gzip": lambda d: _text_as_gzip(d / "n.jsonl.gz"),
}


def _cut_gzip(path: Path) -> Path:
    rows = "".join(
        json.dumps(ROW | {"id": f"r{i}", "problem": os.urandom(40).hex()}) + "\n"
        for i in range(500)
    )
    whole = gzip.compress(rows.encode())
    path.write_bytes(whole[: len(whole) // 2])
    return path


def _text_as_gzip(path: Path) -> Path:
    path.write_bytes(b"\x1f\x8b broken")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unusable_file_is_refused_and_changes_nothing(
    cli: Cli, traces_file: Path, tmp_path: Path, name: str
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    before = cli("status", "--json").document
    folder = tmp_path / "bad"
    folder.mkdir()
    refused(cli("import", "traces", UNREADABLE[name](folder), "--dataset", "d"))
    # Also together with a good file in front of it: one call is kept whole or not at all.
    good = lines(folder / "good.jsonl", ROW | {"id": "fresh"})
    refused(cli("import", "traces", good, UNREADABLE[name](folder), "--dataset", "d"))
    assert cli("status", "--json").document == before


def test_errors_are_one_json_document_under_json(cli: Cli, tmp_path: Path) -> None:
    called = cli("import", "traces", tmp_path / "no.jsonl", "--dataset", "d", "--json")
    assert called.code == 2
    assert set(called.document["error"]) == {"what", "where", "remedy"}
    usage = cli("import", "--json")
    assert usage.code == 2
    assert usage.document["error"]["what"]


def test_single_bad_rows_are_listed_and_the_rest_is_kept(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    good = [json.dumps(ROW | {"id": name}).encode() for name in "ab"]
    bad = [
        b'{"id": "zero", "problem": "p", "steps": []}',
        b'{"id": "a", "problem": "p", "steps": ["s"]}',
        b'{"id": "latin", "problem": "caf\xe9", "steps": ["s"]}',
        b'{"id": "nul", "problem": "p\\u0000", "steps": ["s"]}',
        b'{"id": "nan", "problem": "p", "steps": ["s"], "labels": {"m": {"kind": "prm", "scores": [NaN]}}}',
        b'{"id": "cut", "problem": ',
        b'{"id": "types", "problem": "p", "steps": "s"}',
    ]
    path.write_bytes(b"\n".join([good[0], good[1], *bad]) + b"\n")
    called = cli("import", "traces", path, "--dataset", "d", "--json")
    assert called.code == 1
    document = called.document
    assert (document["done"], document["traces"], document["failed"]) == (2, 2, len(bad))
    assert [row["line"] for row in document["rejected"]] == list(range(3, 3 + len(bad)))
    assert all(
        row["file"].endswith("mixed.jsonl") and row["reason"] for row in document["rejected"]
    )


def test_a_duplicate_across_the_files_of_a_call_is_rejected(cli: Cli, tmp_path: Path) -> None:
    one = lines(tmp_path / "1.jsonl", ROW, ROW | {"id": "b"})
    two = lines(tmp_path / "2.jsonl", ROW, ROW | {"id": "c"})
    called = cli("import", "traces", one, two, "--dataset", "d", "--json")
    assert called.code == 1
    assert called.document["traces"] == 3
    assert [row["id"] for row in called.document["rejected"]] == ["a"]


@pytest.mark.slow
def test_unknown_names_name_the_known_ones(cli: Cli, traces_file: Path) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    refused(cli("evaluate", "--dataset", "nope", "--labeler", "gold"), "nope", "d")
    refused(cli("evaluate", "--dataset", "d", "--labeler", "nope"), "nope", "gold")
    refused(cli("judge", "--dataset", "d", "--judge", "nope"), "gemini:MODEL")
    refused(cli("judge", "--dataset", "d", "--judge", "lab", "--nope"), "--nope")
    refused(cli("import", "nope", traces_file, "--dataset", "d"), "processbench")
    refused(
        cli("evaluate", "--dataset", "d", "--labeler", "gold", "--protocol", "nope"), "macro-f1"
    )
    refused(cli("nope"), "nope")
    refused(
        cli("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite"), "GEMINI_API_KEY"
    )
    refused(cli("search", "x"), "stepgold index")
    refused(cli("consensus", "--dataset", "d", "--judge", "gold", "--mc", "mc"), "mc")


def test_a_url_with_a_password_is_refused_and_not_repeated(
    cli: Cli, traces_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    called = cli(
        "judge",
        "--dataset",
        "d",
        "--judge",
        "openai:m",
        "--base-url",
        "http://me:hunter2@127.0.0.1:9/v1",
    )
    refused(called)
    assert "hunter2" not in called.err + called.out


def test_a_missing_workspace_is_not_created_by_reading(cli: Cli, tmp_path: Path) -> None:
    refused(cli("status"))
    assert not (tmp_path / "w").exists()


def test_foreign_newer_and_damaged_databases_are_refused(
    cli: Cli, tmp_path: Path, traces_file: Path
) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    database = folder / "stepgold.db"
    connection = sqlite3.connect(database)
    connection.execute("create table notes (text)")
    connection.commit()
    connection.close()
    content = database.read_bytes()
    refused(cli("import", "traces", traces_file, "--dataset", "d"), "stepgold.db")
    assert database.read_bytes() == content
    database.write_bytes(b"no database at all, but quite long. " * 100)
    refused(cli("status"), "stepgold.db")
    database.unlink()
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    connection = sqlite3.connect(database)
    connection.execute("update alembic_version set version_num = '9999'")
    connection.commit()
    connection.close()
    refused(cli("status"), "newer")


@pytest.mark.slow
def test_a_changed_file_needs_replace(cli: Cli, traces_file: Path) -> None:
    on = ("--dataset", "d", "--json")
    assert cli("import", "traces", traces_file, *on).document["done"] == 3
    again = cli("import", "traces", traces_file, *on)
    assert (again.code, again.document["done"], again.document["unchanged"]) == (0, 0, 3)
    traces_file.write_text(traces_file.read_text().replace("1+1=3.", "1+1=4."))
    refused(cli("import", "traces", traces_file, "--dataset", "d"), "--replace")
    replaced = cli("import", "traces", traces_file, *on, "--replace")
    assert (replaced.code, replaced.document["traces"]) == (0, 3)


def test_a_read_only_folder_is_refused(cli: Cli, traces_file: Path) -> None:
    refused(
        cli("import", "traces", traces_file, "--dataset", "d", workspace=Path("/proc/stepgold")),
        "--workspace",
    )


def test_a_blank_labeler_name_is_refused_before_anything_is_asked(cli: Cli, tmp_path: Path) -> None:
    cli("import", "traces", str(lines(tmp_path / "t.jsonl", ROW)), "--dataset", "d")
    refused(
        cli("judge", "--dataset", "d", "--judge", "openai:m", "--name", " "), "--name", "not blank"
    )
