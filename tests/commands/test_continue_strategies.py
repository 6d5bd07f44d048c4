"""`stepgold continue`: every strategy through a bad server and over kills, the same labels in the end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage import Store

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = ("all", "early-stop", "binary", "adaptive")


@contextmanager
def serving(port: int = 0, *more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.loopback.policy_server", str(port), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def imported(cli: Cli, workspace: Path, tmp_path: Path, n: int = 12) -> None:
    file = tmp_path / "t.jsonl"
    rows = [
        {
            "id": f"t{i}",
            "problem": f"{i} + {7 - i}?",
            "answer": "7",
            "steps": [f"Step {s}: {i} {s}." for s in range(2 + i % 4)],
        }
        for i in range(n)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "traces", file, "--dataset", "d", workspace=workspace).code == 0


def argv(strategy: str, port: int) -> list[str]:
    return [
        "continue", "--dataset", "d", "--policy", "openai:m", "-k", "8", "--strategy", strategy,
        "--base-url", f"http://127.0.0.1:{port}/v1", "--stop", "\\n\\n", "--concurrency", "4",
        "--json",
    ]  # fmt: skip


def stored(workspace: Path) -> list[tuple[Any, ...]]:
    """Every word of the labeler, step by step, and what stands behind it."""
    with Store.open(f"sqlite:///{workspace / 'stepgold.db'}", create=False) as store:
        names = [row.labeler.name for row in store.labels.labelers("d")]
        labels = [label for name in names for label in store.labels.stream("d", name)]
    return sorted(
        (label.trace_id, index, str(step.verdict), str(step.score), str(step.abstention),
         step.successes, step.continuations)
        for label in labels
        for index, step in enumerate(label.step_labels)
    )  # fmt: skip


@pytest.mark.slow
def test_strategies_agree_through_a_server_that_misbehaves(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    words = {}
    with serving() as (_, port):
        for strategy in STRATEGIES:
            workspace = tmp_path / strategy
            imported(cli, workspace, tmp_path)
            done = cli(*argv(strategy, port), workspace=workspace)
            assert done.code == 0, done.err
            words[strategy] = stored(workspace)
    hard = {(row[0], row[1]): row[2] for row in words["all"]}
    assert {(row[0], row[1]): row[2] for row in words["early-stop"]} == hard
    assert set(hard.values()) == {"correct", "incorrect"}
    assert all(row[6] == 8 for row in words["all"])  # the text behind the stop string says 99
    assert sum(row[5] for row in words["all"]) > 0
    spent = {name: sum(row[6] or 0 for row in rows) for name, rows in words.items()}
    assert spent["early-stop"] < spent["all"]
    assert spent["binary"] < spent["all"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["all", "binary"])
def test_server_that_dies_in_the_middle_costs_no_label(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for workspace in (whole, broken):
        imported(cli, workspace, tmp_path)
    with serving() as (_, port):
        assert cli(*argv(strategy, port), workspace=whole).code == 0
    with serving(0, "--die-after", "60") as (server, port):
        run = subprocess.Popen(
            [sys.executable, "-m", "cli", "--workspace", str(broken), *argv(strategy, port)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert server.wait(timeout=120) == 9
        with serving(port):
            assert run.wait(timeout=120) in {0, 1}
            again = cli(*argv(strategy, port), workspace=broken)
            assert again.code in {0, 1}
            if again.document["abstained"] or _abstained(broken):
                assert cli("retry", "--base-url", _url(port), workspace=broken).code == 0
    assert stored(broken) == stored(whole)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def _abstained(workspace: Path) -> int:
    with sqlite3.connect(workspace / "stepgold.db") as connection:
        query = "SELECT count(*) FROM trace_labels WHERE abstention IS NOT NULL"
        return int(connection.execute(query).fetchone()[0])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["early-stop", "adaptive"])
def test_killed_and_started_again_labels_are_equal(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for workspace in (whole, killed):
        imported(cli, workspace, tmp_path, n=40)
    with serving() as (_, port):
        assert cli(*argv(strategy, port), workspace=whole).code == 0
        run = subprocess.Popen(
            [sys.executable, "-m", "cli", "--workspace", str(killed), *argv(strategy, port)],
            cwd=ROOT,
            env=os.environ.copy(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while _calls(killed) < 100 and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.wait()
        bought = _calls(killed)
        assert bought >= 100
        again = cli(*argv(strategy, port), workspace=killed)
        assert again.code == 0
    assert stored(killed) == stored(whole)
    assert _calls(killed) == _calls(whole)


def _calls(workspace: Path) -> int:
    with sqlite3.connect(f"file:{workspace / 'stepgold.db'}?mode=ro", uri=True) as connection:
        return int(connection.execute("SELECT count(*) FROM model_calls").fetchone()[0])


@pytest.mark.slow
def test_wrong_options_are_refused_before_anything_is_loaded(cli: Cli, tmp_path: Path) -> None:
    imported(cli, tmp_path / "w", tmp_path, n=1)
    for more, what in (
        (("--strategy", "fast"), "not a value of --strategy"),
        (("--label", "value"), "not a value of --label"),
        (("--strategy", "binary", "--label", "soft"), "needs the MC estimate"),
        (("-k", "4", "--threshold", "4"), "cannot be used with"),
        (("--last-step", "x"), "not a value of --last-step"),
    ):
        done = cli("continue", "--dataset", "d", "--policy", "lab", *more)
        assert done.code == 2
        assert what in done.err
