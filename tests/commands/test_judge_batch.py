"""`stepgold judge --service batch` against a Gemini on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.specs import ModelSpec
from tests.loopback.gemini_batch_jobs import BatchWorld, Plan
from tests.loopback.gemini_batch_server import GeminiBatchServer

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", "--json")
BATCH = (*JUDGE, "--service", "batch", "--poll-seconds", "0.1")


@pytest.fixture
def batch_server(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., GeminiBatchServer]:
    """A server that the command line finds, and twelve traces to judge."""
    traces = tmp_path / "t.jsonl"
    with traces.open("w") as file:
        for i in range(12):
            steps = [f"Step {t + 1}: {i} + {t} = {i + t}." for t in range(3)]
            file.write(
                json.dumps({"id": f"t{i}", "problem": f"Problem {i}?", "steps": steps}) + "\n"
            )
    assert cli("import", "traces", traces, "--dataset", "d").code == 0
    monkeypatch.setenv("GEMINI_API_KEY", "a-key-that-must-not-be-kept")

    def make(*plans: Plan) -> GeminiBatchServer:
        server = GeminiBatchServer(BatchWorld(plans))
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        return server

    return make


@pytest.mark.slow
def test_the_judge_by_batch(
    cli: Cli, tmp_path: Path, batch_server: Callable[..., GeminiBatchServer]
) -> None:
    with batch_server(Plan(share=0.5, errors=2)) as server:
        called = cli(*BATCH)
        assert called.code == 1
        assert called.document["done"] == 10
        assert called.document["abstained"] == {"model_error": 2}
        assert [len(job.rows) for job in server.world.jobs.values()] == [12, 6]
        assert "12 requests sent" in called.err
        status = cli("status", "--json").document
        assert status["calls"]["sent"] == 10
        assert status["calls"]["usd"] == pytest.approx(float(server.world.usd), abs=1e-12)
        assert "batch_jobs" not in status
        assert {f["reason"] for f in status["failures"]} == {"model_error"}
        # the standard service finds the replies that the batch service bought
        again = cli(*JUDGE, "--name", "other")
        assert (again.code, again.document["done"]) == (0, 12)
        assert len(server.bodies) == 2
    files = [path for path in (tmp_path / "w").rglob("*") if path.is_file()]
    assert files
    assert all(b"a-key-that-must-not-be-kept" not in file.read_bytes() for file in files)


@pytest.mark.slow
def test_votes_go_out_in_rounds(cli: Cli, batch_server: Callable[..., GeminiBatchServer]) -> None:
    with batch_server() as server:
        called = cli(*BATCH, "--votes", "3")
        assert called.code == 0
        assert called.document["done"] == 12
        assert set(server.world.sent.values()) == {1}
        assert 1 <= len(server.world.jobs) <= 2


def test_a_model_without_a_batch_service_is_refused(
    cli: Cli, batch_server: Callable[..., GeminiBatchServer]
) -> None:
    with batch_server() as server:
        for spec in ("hf:nowhere", "lab"):
            called = cli("judge", "--dataset", "d", "--judge", spec, "--service", "batch")
            assert called.code == 2
            assert "batch" in called.err
            assert str(ModelSpec.parse(spec)) in called.err
        assert not server.requests


def test_the_budget_holds_for_jobs_too(
    cli: Cli, batch_server: Callable[..., GeminiBatchServer]
) -> None:
    with batch_server() as server:
        called = cli(*BATCH, "--budget", "0.000001")
        assert (called.code, called.document["failed"]) == (1, 12)
        assert "budget" in called.document["stopped"]
        assert not server.world.jobs


@pytest.mark.slow
def test_interrupted_killed_and_taken_over(
    cli: Cli, tmp_path: Path, batch_server: Callable[..., GeminiBatchServer]
) -> None:
    command = [sys.executable, "-m", "cli", "--workspace", str(tmp_path / "w"), *BATCH]

    def run_until(
        server: GeminiBatchServer, sign: signal.Signals
    ) -> subprocess.CompletedProcess[str]:
        with server.holding("look after") as hold:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert hold.reached.wait(timeout=60)
            process.send_signal(sign)
            hold.release.set()
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    with batch_server(Plan(looks=4)) as server:
        stopped = run_until(server, signal.SIGINT)
        assert stopped.returncode == 130
        assert "12 requests keep running at the service" in stopped.stderr
        assert "Run the same command again" in " ".join(stopped.stderr.split())
        [job] = cli("status", "--json").document["batch_jobs"]
        assert (job["name"], job["outstanding"]) == ("batches/b0", 12)
        assert "batches/b0" in cli("status").out

        assert run_until(server, signal.SIGKILL).returncode == -signal.SIGKILL

        done = cli(*BATCH)
        assert (done.code, done.document["done"]) == (0, 12)
        assert "from an earlier run" in done.err
    assert set(server.world.sent.values()) == {1}
    assert "batch_jobs" not in cli("status", "--json").document
