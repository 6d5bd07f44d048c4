"""Formats at the command line: neutral steps by policy, tables, what an export does not carry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats.fuzz import ROWS, corrupted_file
from tests.formats.samples import SAMPLES

Cli = Callable[..., Any]


@pytest.fixture
def prm800k(tmp_path: Path) -> Path:
    path = tmp_path / "phase2.jsonl"
    path.write_text(json.dumps(SAMPLES["prm800k"]) + "\n")
    return path


@pytest.mark.slow
def test_another_policy_for_neutral_steps_is_another_source(cli: Cli, prm800k: Path) -> None:
    assert cli("import", "prm800k", prm800k, "--dataset", "d").code == 0
    again = cli("import", "prm800k", prm800k, "--dataset", "d", "--neutral", "keep", "--json")
    assert (again.code, again.document["unchanged"]) == (0, 1)
    other = cli("import", "prm800k", prm800k, "--dataset", "d", "--neutral", "positive")
    assert other.code == 2
    assert "--replace" in other.err
    assert cli("import", "prm800k", prm800k, "--dataset", "e", "--neutral", "positive").code == 0


@pytest.mark.parametrize(
    ("format", "policy", "word"),
    [("prm800k", "maybe", "is not a value of --neutral"), ("trl", "ignore", "no option --neutral"), ("scores", "ignore", "remove")],
)  # fmt: skip
def test_a_policy_that_means_nothing_is_refused(
    cli: Cli, prm800k: Path, format: str, policy: str, word: str
) -> None:
    who = ["--labeler", "x", "--kind", "mc"] if format == "trl" else []
    called = cli("import", format, prm800k, "--dataset", "d", "--neutral", policy, *who)
    assert called.code == 2
    assert word in called.err


@pytest.mark.slow
def test_an_export_says_what_it_does_not_carry(cli: Cli, prm800k: Path, tmp_path: Path) -> None:
    cli("import", "prm800k", prm800k, "--dataset", "d")
    out = tmp_path / "o.jsonl"
    done = cli("export", "trl", out, "--dataset", "d", "--labeler", "gold", "--json")
    assert (done.code, done.document["done"]) == (0, 1)
    assert done.document["not_carried"] == {"answer": 1, "neutral": 1, "trace_meta": 1}
    words = cli("export", "trl", out, "--dataset", "d", "--labeler", "gold").out
    assert "not carried by trl (traces): answer (1), neutral (1), trace_meta (1)" in words
    assert (
        cli("export", "prm800k", out, "--dataset", "d", "--labeler", "gold", "--json").document[
            "not_carried"
        ]
        == {}
    )


@pytest.mark.slow
def test_a_table_goes_out_and_comes_in(cli: Cli, prm800k: Path, tmp_path: Path) -> None:
    cli("import", "prm800k", prm800k, "--dataset", "d")
    out = tmp_path / "o.parquet"
    assert cli("export", "parquet", out, "--dataset", "d", "--labeler", "gold").code == 0
    assert cli("import", "traces", out, "--dataset", "e", "--json").document["with_error"] == 1


def test_an_unusable_error_step_of_prmbench_is_listed_and_exits_1(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(SAMPLES["prmbench"] | {"error_steps": [1, 9]}) + "\n")
    called = cli("import", "prmbench", path, "--dataset", "d", "--json")
    assert (called.code, called.document["done"]) == (1, 1)
    assert called.document["rejected"] == []
    (listed,) = called.document["notes"]
    assert (listed["file"], listed["line"], listed["id"]) == (
        str(path),
        1,
        "circular_prm_test_p1_0",
    )


@pytest.mark.slow
@pytest.mark.parametrize("format", ["traces", "prm800k", "visualprocessbench", "mr-ben"])
def test_a_corrupted_file_is_counted_row_by_row(cli: Cli, tmp_path: Path, format: str) -> None:
    path = tmp_path / "f.jsonl"
    lines = corrupted_file(format, SAMPLES[format])
    path.write_bytes(b"\n".join(lines) + b"\n")
    called = cli("import", format, path, "--dataset", "d", "--json")
    document = called.document
    assert called.code == 1
    assert document["done"] + document["failed"] == len(lines) == ROWS + 3
    assert len(document["rejected"]) >= document["failed"] > ROWS / 4
    assert all(row["file"] and row["line"] and row["reason"] for row in document["rejected"])
    again = cli("import", format, path, "--dataset", "d", "--json").document
    assert (again["unchanged"], again["rejected"]) == (document["done"], document["rejected"])


def test_an_export_names_the_traces_that_its_format_cannot_hold(cli: Cli, tmp_path: Path) -> None:
    gold = {"gold": {"kind": "gold", "verdicts": [1]}}
    rows = [
        {"id": id, "problem": "p", "steps": [step], "labels": gold}
        for id, step in (("fits", "a"), ("marked", "a \u043a\u0438 b"))
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    argv = ("export", "medprm", tmp_path / "o.json", "--dataset", "d", "--labeler", "gold")
    called = cli(*argv, "--json")
    assert (called.code, called.document["done"]) == (0, 1)
    (left_out,) = called.document["unfit"]
    assert left_out["id"] == "marked"
    assert "step mark" in left_out["reason"]
    words = " ".join(cli(*argv).out.split())
    assert "0 without a label left out, 1 that the format cannot hold" in words
    assert "left out: marked: " in words


def test_one_question_under_two_sources_is_read_back_as_one_problem(
    cli: Cli, tmp_path: Path
) -> None:
    """The second source was rejected: `data_source` made another problem of the same question."""
    gold = {"gold": {"kind": "gold", "verdicts": [1]}}
    rows = [
        {"id": subset, "problem": "p", "steps": ["a"], "subset": subset, "labels": gold}
        for subset in ("one", "two")
    ]
    path, out = tmp_path / "t.jsonl", tmp_path / "o.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    assert cli("export", "medprm", out, "--dataset", "d", "--labeler", "gold").code == 0
    called = cli("import", "medprm", out, "--dataset", "e", "--json")
    assert (called.code, called.document["traces"], called.document["rejected"]) == (0, 2, [])
