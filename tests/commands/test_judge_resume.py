"""`stepgold judge` against a Gemini on this machine: faults absorbed, killed, run again, paid once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.gemini_failures import PASSING
from tests.loopback.gemini_server import GeminiServer

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
TRACES = 400
CONCURRENCY = 16
JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", "--json")


def many_traces(path: Path, n: int) -> Path:
    """`n` different traces of 2-6 steps."""
    with path.open("w") as file:
        for i in range(n):
            steps = [f"Step {t + 1}: {i} + {t} = {i + t}." for t in range(2 + i % 5)]
            gold = {"kind": "gold", "first_error": None}
            row = {
                "id": f"t{i}",
                "problem": f"Problem {i}?",
                "steps": steps,
                "labels": {"gold": gold},
            }
            file.write(json.dumps(row) + "\n")
    return path


def command(workspace: Path, *argv: str) -> list[str]:
    return [sys.executable, "-m", "cli", "--workspace", str(workspace), *argv]


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(cli: Cli, tmp_path: Path) -> None:
    assert (
        cli("import", "traces", many_traces(tmp_path / "t.jsonl", TRACES), "--dataset", "d").code
        == 0
    )
    workspace = tmp_path / "w"
    with GeminiServer(fault_rate=0.05, faults=PASSING, delay_ms=5) as server:
        environ = os.environ | {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
        first = subprocess.Popen(
            command(workspace, *JUDGE),
            cwd=ROOT,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while sum(server.billed.values()) < TRACES // 3:
            assert first.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(0.1)  # what the server was still answering is billed by now
        at_kill = cli("status", "--json").document
        bought = server.billed
        recorded = at_kill["calls"]["sent"]
        assert 0 < recorded <= len(bought) <= recorded + CONCURRENCY

        second = subprocess.run(
            command(workspace, *JUDGE),
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        document = json.loads(second.stdout)
        assert second.returncode == 0, second.stderr
        assert document["done"] + document["unchanged"] == TRACES
        assert document["failed"] == 0
        twice = {key for key, times in server.billed.items() if times > 1}
        assert len(twice) <= len(bought) - recorded, "only what was on the wire at the kill"
        assert len(server.billed) == TRACES
    status = cli("status", "--json").document
    judge = next(row for row in status["labelers"] if row["name"] == "judge")
    assert (judge["traces"], judge["abstained"]) == (TRACES, 0)
    assert status["calls"]["sent"] == TRACES
    assert status["calls"]["usd"] > 0
    assert judge["resolved_model"]


@pytest.mark.slow
def test_judge_end_to_end(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("import", "traces", many_traces(tmp_path / "t.jsonl", 6), "--dataset", "d").code == 0
    with GeminiServer() as server:
        monkeypatch.setenv("GEMINI_API_KEY", "a-key-that-must-not-be-kept")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        pilot = cli(*JUDGE, "--limit", "2")
        assert (pilot.code, pilot.document["done"]) == (0, 2)
        assert "ungrounded" in pilot.err
        rest = cli(*JUDGE)
        assert (rest.code, rest.document["done"], rest.document["unchanged"]) == (0, 4, 2)
        again = cli(*JUDGE)
        assert (again.code, again.document["done"], again.document["unchanged"]) == (0, 0, 6)
        assert sum(server.billed.values()) == 6

        other = cli(*JUDGE, "--evidence-tokens", "100")
        assert (other.code, "--replace" in other.document["error"]["remedy"]) == (2, True)
        # The labels are gone, the replies are not: labelling again asks the same and buys nothing.
        assert cli("remove", "labeler", "judge", "--dataset", "d", "--yes").code == 0
        relabelled = cli(*JUDGE)
        assert (relabelled.code, relabelled.document["done"]) == (0, 6)
        assert sum(server.billed.values()) == 6
        assert cli("status", "--json").document["calls"]["cached"] == 6
    for file in (tmp_path / "w").rglob("*"):
        assert b"a-key-that-must-not-be-kept" not in file.read_bytes(), file


@pytest.mark.slow
def test_abstentions_are_typed_counted_and_exit_1(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("import", "traces", many_traces(tmp_path / "t.jsonl", 3), "--dataset", "d").code == 0
    with GeminiServer(script=["safety", "safety", "safety"]) as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        called = cli(*JUDGE)
    assert called.code == 1
    assert called.document["abstained"] == {"blocked": 3}
    assert called.document["done"] == 0
    failures = cli("status", "--json").document["failures"]
    assert [(f["stage"], f["reason"], f["retryable"]) for f in failures] == [
        ("judge", "blocked", False)
    ] * 3


@pytest.mark.slow
def test_the_budget_stops_it_and_the_rest_stays_missing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        cli("import", "traces", many_traces(tmp_path / "t.jsonl", 12), "--dataset", "d").code == 0
    )
    with GeminiServer() as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        called = cli(*JUDGE, "--budget", "0.000001")
        assert called.code == 1
        assert called.document["failed"] == 12
        assert "budget" in called.document["stopped"].lower()
        assert not server.billed
        assert cli(*JUDGE).document["done"] == 12


@pytest.mark.slow
def test_a_wrong_key_is_one_clear_error(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("import", "traces", many_traces(tmp_path / "t.jsonl", 5), "--dataset", "d").code == 0
    with GeminiServer(key="right") as server:
        monkeypatch.setenv("GEMINI_API_KEY", "wrong-one")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        called = cli("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite")
        assert called.code == 2
        assert "wrong-one" not in called.err
        unknown = cli("judge", "--dataset", "d", "--judge", "gemini:nope")
        assert unknown.code == 2
        assert "nope" in unknown.err
    assert all(row["name"] != "judge" for row in cli("status", "--json").document["labelers"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429_daily", "used up"),
        ("400_bad_key", "check the key in GEMINI_API_KEY"),
        ("404", "check the model name"),
    ],
)
def test_what_concerns_all_calls_stops_it_and_the_rest_is_done_later(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    assert cli("import", "traces", many_traces(tmp_path / "t.jsonl", 5), "--dataset", "d").code == 0
    with GeminiServer(script=["ok", fault]) as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k3y-of-mine")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        stopped = cli(*JUDGE, "--concurrency", "1")
        assert (stopped.code, stopped.document["done"], stopped.document["failed"]) == (1, 1, 4)
        assert said in " ".join(stopped.err.split())
        assert len(server.calls) == 2, "no further call, and no retry"
        again = cli(*JUDGE)
        assert (again.code, again.document["done"], again.document["unchanged"]) == (0, 4, 1)
    assert set(server.billed.values()) == {1}
