"""`stepgold judge` under fire: every fifth attempt fails, and it is killed twenty times."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import Store
from tests.loopback.gemini_answers import verdicts
from tests.loopback.gemini_failures import ENDING, FAILURES
from tests.loopback.gemini_server import GeminiServer

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", "--json")
SURVIVABLE = sorted({*FAILURES} - {*ENDING, "hang"})
"""Every fault that does not end a run; `hang` takes as long as a time-out and is tested elsewhere."""
TYPED = {"blocked", "truncated", "unreadable", "model_error"}

ZYGOTE = """
import os, sys
import cli, stepgold.judging, inference.gemini.model, judge.rag_judge, storage
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1), os.dup2(nothing, 2)
        os._exit(cli.execute(line.split()))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def steps_of(number: int) -> list[str]:
    """The steps of a trace."""
    return [f"Step {t + 1}: {number} + {t} = {number + t}." for t in range(2 + number % 4)]


def many_traces(path: Path, count: int) -> Path:
    """So many different traces."""
    with path.open("w") as file:
        for i in range(count):
            row = {"id": f"t{i}", "problem": f"Problem {i}?", "steps": steps_of(i)}
            file.write(json.dumps(row) + "\n")
    return path


def answered(text: str) -> list[str]:
    """The verdicts that the stub gives on a trace."""
    tagged = "".join(
        f'<step number="{number}">{step}</step>' for number, step in enumerate(text.split("\n"), 1)
    )
    return [entry["verdict"] for entry in verdicts(tagged)]


@pytest.mark.slow
def test_a_thousand_traces_while_every_fifth_attempt_fails(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 1000
    assert cli("import", "traces", many_traces(tmp_path / "t", count), "--dataset", "d").code == 0
    with GeminiServer(fault_rate=0.2, faults=SURVIVABLE, seed=3) as server:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
        called = cli(*JUDGE, "--concurrency", "64")
        document = called.document
        assert called.code == 1
        assert set(document["abstained"]) <= TYPED
        assert document["done"] + sum(document["abstained"].values()) == count
        assert document["failed"] == 0
        assert {call["outcome"] for call in server.calls} == {"ok", *SURVIVABLE}

        bought: set[str] = set()
        for call in server.calls:
            assert call["key"] not in bought, "sent again after success"
            bought |= {call["key"]} if call["billed"] else set()
        status = cli("status", "--json").document
        assert status["calls"]["sent"] == len(bought)
        assert status["calls"]["usd"] == pytest.approx(float(server.billed_usd), abs=1e-9)
        (judge,) = status["labelers"]
        assert (judge["traces"], judge["abstained"]) == (count, sum(document["abstained"].values()))
        assert len(status["failures"]) == judge["abstained"]
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        labels = store.labels.load("d", "judge")
    for number in range(count):
        label = labels[f"t{number}"]
        if label.abstention is None:
            said = [str(step.verdict) for step in label.step_labels]
            assert said == answered("\n".join(steps_of(number))), "a fault became a verdict"


class Zygote:
    """Starts commands without the seconds of imports: a process that has them forks each time."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._mother = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, line: str) -> int:
        """Run a command line; the process id."""
        assert self._mother.stdin is not None
        self._mother.stdin.write(line + "\n")
        self._mother.stdin.flush()
        return self._number()

    def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return self._number()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        self._mother.communicate()

    def _number(self) -> int:
        assert self._mother.stdout is not None
        return int(self._mother.stdout.readline())


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for a condition, not for ever."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def recorded(url: str) -> Counter[str]:
    """How often each prompt is in the ledger, by the hash that the server's log has."""
    with Store.open(url) as store:
        texts = [json.loads(call.request)["messages"][-1][1] for call in store.replies.calls()]
    return Counter(hashlib.sha256(text.encode()).hexdigest() for text in texts)


@pytest.mark.slow
def test_twenty_kills_lose_nothing_recorded_and_repeat_only_what_was_in_flight(
    cli: Cli, tmp_path: Path
) -> None:
    count, concurrency, kills = 500, 12, 20
    workspace = tmp_path / "w"
    assert cli("import", "traces", many_traces(tmp_path / "t", count), "--dataset", "d").code == 0
    url, chance = f"sqlite:///{workspace / 'stepgold.db'}", random.Random(20)
    lost: Counter[str] = Counter()
    before: Counter[str] = Counter()
    faults = ("429_retry_after", "429_retry_info")
    with GeminiServer(fault_rate=0.05, faults=faults, delay_ms=15) as server:
        environ = os.environ | {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
        line = " ".join(["--workspace", str(workspace), *JUDGE, "--concurrency", str(concurrency)])

        def billed() -> Counter[str]:
            return Counter(call["prompt"] for call in list(server.calls) if call["billed"])

        with Zygote(environ) as zygote:
            for _ in range(kills):
                earlier = billed()
                goal = sum(earlier.values()) + chance.randint(1, 40)
                child = zygote.start(line)
                until(lambda goal=goal: sum(billed().values()) >= goal)  # type: ignore[misc]
                time.sleep(chance.random() / 100)
                os.kill(child, signal.SIGKILL)
                assert zygote.ended() == -signal.SIGKILL
                until(lambda: server.active == 0)
                kept, bought = recorded(url), billed()
                assert kept >= before, "what was recorded stays"
                assert set(kept) <= set(bought)
                # bought in this life and not recorded: it was on the wire, or on its way to the disk
                missed = {prompt for prompt in bought - earlier if not kept[prompt]}
                assert len(missed) <= concurrency
                lost.update(missed)
                before = kept
            zygote.start(line)
            assert zygote.ended() == 0
        until(lambda: server.active == 0)
        kept, bought = recorded(url), billed()
    assert len(kept) == count
    assert set(kept.values()) == {1}
    assert sum(lost.values()) > 0, "no kill met a call in flight: the test shows nothing"
    assert bought == Counter({prompt: 1 + lost[prompt] for prompt in kept})
    (judge,) = cli("status", "--json").document["labelers"]
    assert (judge["traces"], judge["abstained"]) == (count, 0)
