"""`stepgold sample`: candidates in the workspace, resumed, refused under another configuration."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.build import build_workspace
from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
SOLUTION = "Step 1: a\nStep 2: b\nStep 3: The answer is 7."


def write_problems(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def two(tmp_path: Path) -> Path:
    rows = [{"id": f"q{i}", "problem": f"3+{i}?", "answer": str(3 + i)} for i in (4, 5)]
    return write_problems(tmp_path / "p.jsonl", rows)


def lab_problems(path: Path, n: int) -> Path:
    drawn = build_workspace(0, n).problems
    rows = [{"id": p.id, "problem": p.question, "answer": p.answer, "meta": {}} for p in drawn]
    return write_problems(path, rows)


@pytest.mark.slow
def test_sampled_through_a_server_and_used_like_any_trace(
    cli: Cli, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer(SOLUTION) as server:
        argv = ("sample", "--dataset", "d", "--policy", "openai:m", "-n", "2", "--json")
        asked = (*argv, "--problems", two, "--base-url", server.url)
        first = cli(*asked)
        assert first.code == 0, first.err
        assert first.document["done"] == 4
        assert first.document["problems"] == 2
        assert len(server.calls) == 4
        assert len({body["seed"] for _, body, _ in server.calls}) == 4
        again = cli(*asked)
        assert (again.document["done"], again.document["unchanged"]) == (0, 4)
        assert len(server.calls) == 4
        more = cli(*asked, "--temperature", "0.5")
        assert more.code == 2
        assert "another configuration" in more.err + more.out
    status = cli("status", "--json").document
    assert status["datasets"]["d"] == {"problems": 2, "traces": 4, "steps": 12}
    exported = two.parent / "out.jsonl"
    scores = two.parent / "s.jsonl"
    scores.write_text('{"id": "q4:sample:0", "scores": [0.5, 0.5, 0.5]}\n')
    cli("import", "scores", scores, "--dataset", "d", "--labeler", "prm")
    cli("export", "traces", exported, "--dataset", "d", "--labeler", "prm")
    row = json.loads(exported.read_text().splitlines()[0])
    assert row["final_answer_correct"] is True
    assert row["meta"]["finish_reason"] == "stop"


def test_a_problem_that_the_dataset_knows_otherwise_costs_nothing(
    cli: Cli, two: Path, tmp_path: Path
) -> None:
    other = write_problems(tmp_path / "o.jsonl", [{"id": "q5", "problem": "5+5?", "answer": "10"}])
    with OpenAIServer(SOLUTION) as server:
        argv = ("sample", "--dataset", "d", "--policy", "openai:m", "-n", "1", "--json")
        at = ("--base-url", server.url)
        assert cli(*argv, *at, "--problems", other, "--name", "first").code == 0
        called = cli(*argv, *at, "--problems", two)
        assert called.code == 2
        assert "'q5' has other content" in called.document["error"]["what"]
        assert len(server.calls) == 1, "q4 was not asked for either"
        # Nothing of that call was kept: its name is free for another configuration.
        assert cli(*argv, *at, "--problems", two, "--limit", "1", "--seed", "1").code == 0


def test_a_candidate_that_was_drawn_again_is_no_failure(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    one = write_problems(tmp_path / "p.jsonl", [{"id": "q4", "problem": "2+2?", "answer": "4"}])
    reply = {"role": "assistant", "content": "only one step"}
    body = {"model": "m", "choices": [{"index": 0, "message": reply, "finish_reason": "stop"}]}
    with OpenAIServer(SOLUTION) as server:
        server.script = [(200, body, {})]
        argv = ("sample", "--dataset", "d", "--policy", "openai:m", "-n", "1", "--rounds", "2")
        done = cli(*argv, "--problems", one, "--base-url", server.url, "--json")
        assert done.code == 0, done.out
        assert done.document["turned_away"] == {"1 step, not 3 to 9": 1}
    assert cli("status", "--json").document["failures"] == []


def test_short_problems_are_counted_and_every_refusal_listed(
    cli: Cli, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer("only one step") as server:
        argv = ("sample", "--dataset", "d", "--policy", "openai:m", "-n", "2", "--rounds", "2")
        done = cli(*argv, "--problems", two, "--base-url", server.url, "--json")
        assert done.code == 1
        assert done.document["failed"] == 4
        assert done.document["turned_away"] == {"1 step, not 3 to 9": 8}
        again = cli(*argv, "--problems", two, "--base-url", server.url, "--json")
        assert len(server.calls) == 8
    assert (again.document["done"], again.document["failed"]) == (0, 0)
    listed = cli("status", "--json").document
    assert json.dumps(listed).count("1 step, not 3 to 9") == 8


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"id": "a"}', '"problem" is not a text'),
        ('{"id": "a", "problem": "q", "steps": []}', "unknown field 'steps'"),
        ('{"id": "a", "problem": "q", "options": "x"}', "not a list of texts"),
        ('{"id": "q4", "problem": "again"}', "twice"),
    ],
)
def test_bad_problem_is_named_and_nothing_kept(cli: Cli, two: Path, line: str, what: str) -> None:
    two.write_text(two.read_text() + line + "\n")
    done = cli("sample", "--dataset", "d", "--policy", "lab", "--problems", two)
    assert done.code == 2
    assert what in done.err
    assert "p.jsonl:3" in done.err


@pytest.mark.parametrize(
    "argv", [("--min-steps", "5", "--max-steps", "3"), ("--name", "a:b"), ("--policy", "nope:x")]
)
def test_bad_options(cli: Cli, two: Path, argv: tuple[str, ...]) -> None:
    given = ("sample", "--dataset", "d", "--problems", two, "--policy", "lab", *argv)
    assert cli(*given).code == 2


@pytest.mark.slow
def test_lab_candidates_are_the_same_after_a_kill(cli: Cli, tmp_path: Path) -> None:
    problems = lab_problems(tmp_path / "lab.jsonl", 80)
    argv = ["sample", "--dataset", "d", "--policy", "lab", "-n", "4", "--keep-all"]
    argv += ["--max-tokens", "24", "--problems", str(problems), "--json"]

    def stored(workspace: Path) -> list[tuple[Any, ...]]:
        query = (
            "SELECT t.id, t.final_answer, s.step_index, s.text FROM traces t "
            "JOIN steps s ON s.trace_pk = t.pk ORDER BY t.id, s.step_index"
        )
        with sqlite3.connect(workspace / "stepgold.db") as connection:
            return list(connection.execute(query))

    whole = tmp_path / "whole"
    assert cli(*argv, workspace=whole).code == 0
    killed = tmp_path / "killed"
    killed.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "--workspace", str(killed), *argv],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (killed / "stepgold.db").exists() and _count(killed) > 20:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = _count(killed)
    assert before > 0
    resumed = cli(*argv, workspace=killed)
    assert resumed.document["unchanged"] == before
    assert stored(killed) == stored(whole)
    assert len({row[3] for row in stored(whole)}) > 100  # and they do differ from each other


def _count(workspace: Path) -> int:
    try:
        with sqlite3.connect(f"file:{workspace / 'stepgold.db'}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM traces").fetchone()[0])
    except sqlite3.OperationalError:  # not created yet, or its tables are not
        return 0
