"""Slips of the pen: told in one to three lines that say what, where and what to do, leaving nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]


@pytest.mark.parametrize("words", [("mr-ben", "no.json"), ("nope", "t.jsonl"), ("trl", "t.jsonl")])
def test_a_slip_leaves_no_workspace_behind(
    cli: Cli, tmp_path: Path, words: tuple[str, str]
) -> None:
    (tmp_path / "t.jsonl").write_text("{}")
    assert cli("import", words[0], tmp_path / words[1], "--dataset", "d").code == 2
    assert not (tmp_path / "w").exists()


def test_a_missing_file_is_the_place_of_its_error(cli: Cli, tmp_path: Path) -> None:
    no, on = tmp_path / "no", ("--dataset", "d")
    for place, argv in (
        (no, ("import", "traces", no, *on)),
        (tmp_path, ("import", "traces", tmp_path, *on)),
        (no, ("run", no)),
    ):
        error = cli(*argv, "--json").document["error"]
        assert error["where"] == str(place)
        assert error["remedy"]


def test_usage_points_to_the_help_of_its_command(cli: Cli) -> None:
    called = cli("judge", "--dataset", "d", "--json")
    assert (
        called.document["error"]["remedy"]
        == "add --judge MODEL (all options: stepgold judge --help)"
    )
    bare = cli("corpus")
    assert (bare.code, bare.out) == (2, "")
    assert bare.err.startswith("Usage: stepgold corpus"), "the help, not an error of forty lines"


def test_nothing_is_not_looked_for(cli: Cli) -> None:
    called = cli("search", " ")
    assert called.code == 2
    assert "no text to look for" in called.err


def test_a_prompt_that_is_not_there_is_told_without_errno(tmp_path: Path) -> None:
    from judge.prompt_file import read_prompt
    from traces.errors import InputError

    with pytest.raises(InputError, match="No such file") as caught:
        read_prompt(tmp_path / "no.txt")
    assert "Errno" not in caught.value.what
    assert caught.value.where == str(tmp_path / "no.txt")


def test_rejected_rows_are_listed_by_status(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"id": "a", "problem": "p", "steps": ["s"]}, {"id": "z", "problem": "p", "steps": []}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"id":\n')
    assert cli("import", "traces", path, "--dataset", "d").code == 1
    failures = cli("status", "--json").document["failures"]
    assert [(f["id"], f["stage"], f["reason"], f["retryable"]) for f in failures] == [
        ("z", "import", "rejected", False),
        (f"{failures[1]['detail'].split(': ')[0]}", "import", "rejected", False),
    ]
    assert failures[1]["id"].endswith("t.jsonl:3")
    assert {f["dataset"] for f in failures} == {"d"}


@pytest.mark.slow  # loads the openai package
def test_evidence_that_came_with_the_rows_is_evidence(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    row = {"id": "a", "problem": "p", "steps": ["s"]}
    bare, grounded = tmp_path / "bare.jsonl", tmp_path / "grounded.jsonl"
    bare.write_text(json.dumps(row))
    grounded.write_text(json.dumps(row | {"evidence": [{"source": "g", "title": "", "text": "x"}]}))
    for path, warned in ((bare, True), (grounded, False)):
        assert cli("import", "traces", path, "--dataset", path.stem).code == 0
        with OpenAIServer("no JSON") as server:
            judge = ("judge", "--dataset", path.stem, "--judge", "openai:m")
            told = cli(*judge, "--base-url", server.url).err
        assert ("ungrounded" in told) is warned


JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite")
LOCAL = ("--dataset", "d", "--policy", "lab")
PRM = ("score", "--dataset", "d", "--prm", "lab")
ANY = "--policy openai:MODEL"
RETRIEVE = ("retrieve", "--dataset", "d", "--mode", "bm25")


@pytest.mark.parametrize(
    ("argv", "idle", "missing"),
    [
        ((*JUDGE, "--enqueued-tokens", "5"), "--enqueued-tokens", "--service batch"),
        ((*JUDGE, "--poll-seconds", "30"), "--poll-seconds", "--service batch"),
        ((*JUDGE, "--stuck-hours", "3", "--service", "flex"), "--stuck-hours", "--service batch"),
        ((*JUDGE, "--agree", "2"), "--agree", "--votes N"),
        ((*JUDGE, "--escalate-base-url", "http://h"), "--escalate-base-url", "--escalate MODEL"),
        ((*RETRIEVE, "--budget", "1"), "--budget", "--query rewrite"),
        ((*RETRIEVE, "--base-url", "http://h"), "--base-url", "--query rewrite"),
        ((*RETRIEVE, "--query", "step", "--concurrency", "2"), "--concurrency", "--query rewrite"),
        ((*RETRIEVE, "--allow-phi"), "--allow-phi", "--query rewrite"),
        (("continue", *LOCAL, "--base-url", "http://h"), "--base-url", ANY),
        (("continue", *LOCAL, "--template", "t"), "--template", ANY),
        (("continue", *LOCAL[:3], "gemini:g", "--template", "t"), "--template", ANY),
        (("sample", *LOCAL, "--concurrency", "2"), "--concurrency", ANY),
        ((*PRM, "--parity-sample", "3"), "--parity-sample", "--prm openai:MODEL"),
        ((*PRM, "--parity-limit", "0.5"), "--parity-limit", "--prm openai:MODEL"),
        ((*PRM, "--concurrency", "2"), "--concurrency", "--prm openai:MODEL"),
    ],
)
def test_an_option_that_nothing_is_done_with_is_refused(
    cli: Cli, tmp_path: Path, argv: tuple[str, ...], idle: str, missing: str
) -> None:
    called = cli(*argv, "--json")
    assert called.code == 2
    error = called.document["error"]
    assert error["where"] == idle
    assert idle in error["what"]
    assert missing in error["remedy"]
    assert not (tmp_path / "w").exists()


def test_an_empty_stop_string_is_refused(cli: Cli) -> None:
    error = cli("continue", *LOCAL, "--stop", "x", "--stop", "", "--json").document["error"]
    assert (error["what"], error["where"]) == ("A stop string is empty.", "--stop")


def test_idle_defaults_of_the_workspace_are_no_order(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "stepgold.toml").write_text("[judge]\nstuck_hours = 3\n")
    (tmp_path / "t.jsonl").write_text('{"id": "a", "problem": "?", "steps": ["b"]}')
    assert cli("import", "traces", tmp_path / "t.jsonl", "--dataset", "d").code == 0
    called = cli(*JUDGE)
    assert called.code == 2
    assert "No Gemini key" in called.err, "it came as far as that"
