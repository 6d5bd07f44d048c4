"""What a run tells beside its counts: failures of runs before, replies that came from the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepgold.console import note
from tests.commands.test_judge_resume import many_traces
from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]


def test_a_second_run_names_failures_and_replies_of_the_first(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert cli("import", "traces", many_traces(tmp_path / "t.jsonl", 3), "--dataset", "d").code == 0
    with OpenAIServer("no JSON at all") as server:
        judge = ("judge", "--dataset", "d", "--judge", "openai:m", "--base-url", server.url)
        first = cli(*judge)
        assert first.code == 1
        assert "retry` asks again" not in first.err
        again = cli(*judge)
        assert again.code == 0
        assert "3 traces of 'judge' failed earlier: run `stepgold retry`." in again.err
        other = cli(*judge, "--name", "other")
        assert "3 replies of openai:m came from the store and cost nothing." in other.err
        assert len(server.calls) == 3


def test_a_format_that_holds_not_one_trace_is_no_success(cli: Cli, tmp_path: Path) -> None:
    assert cli("import", "traces", many_traces(tmp_path / "t.jsonl", 3), "--dataset", "d").code == 0
    out = tmp_path / "out.json"
    argv = ("--dataset", "d", "--labeler", "gold", "--json")
    empty = cli("export", "mr-ben", out, *argv)
    assert empty.document["done"] == 0
    assert empty.code == 1
    assert cli("export", "traces", tmp_path / "out.jsonl", *argv).code == 0


def test_a_note_is_not_broken_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What stops a run is looked for in logs: a terminal wraps by itself."""
    note("word " * 40 + "end")
    assert capsys.readouterr().err == "word " * 40 + "end\n"
