"""Several processes on one labeler: nothing is labeled or paid for twice, and a death loses nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import Claimant, Store, Workload
from tests.commands.many_processes import Many, until
from tests.commands.test_judge_chaos import SURVIVABLE, many_traces, recorded
from tests.commands.tiny_prm import save_prm, write_pool
from tests.loopback.gemini_server import GeminiServer
from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]
JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", "--json")
CONCURRENCY = 8
LIBRARIES = "import stepgold.scoring_run, scoring, transformers.models.llama.modeling_llama"

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    with GeminiServer(delay_ms=15, faults=SURVIVABLE, seed=5) as running:
        yield running


@pytest.fixture
def many(server: GeminiServer, tmp_path: Path) -> Iterator[Many]:
    keys = {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
    with Many(tmp_path / "out", keys, more=LIBRARIES) as running:
        yield running


def open_store(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}")


def stored_by(document: Any) -> int:
    """Traces that a command labeled itself."""
    return int(document["done"] + sum(document["abstained"].values()))


def bought(server: GeminiServer) -> Counter[str]:
    return Counter(call["prompt"] for call in list(server.calls) if call["billed"])


@pytest.mark.parametrize("processes", [2, 4])
def test_judges_share_a_labeler_while_calls_fail(
    cli: Cli, many: Many, server: GeminiServer, tmp_path: Path, processes: int
) -> None:
    count = 200
    assert cli("import", "traces", many_traces(tmp_path / "t", count), "--dataset", "d").code == 0
    server.fault_rate = 0.2
    line = ("--workspace", tmp_path / "w", *JUDGE, "--concurrency", str(CONCURRENCY))
    children = [many.start(*line) for _ in range(processes)]
    documents = [many.document(child) for child in children]
    assert sum(map(stored_by, documents)) == count, "a trace was labeled twice, or not at all"
    assert {stored_by(one) + one["unchanged"] for one in documents} == {count}
    assert {one["failed"] for one in documents} == {0}
    assert sum(map(bool, map(stored_by, documents))) > 1, "one did it all: the test shows nothing"
    assert max(bought(server).values()) == 1, "a reply was paid for twice"
    status = cli("status", "--json").document
    assert status["calls"]["sent"] == sum(bought(server).values())
    assert status["calls"]["usd"] == pytest.approx(float(server.billed_usd), abs=1e-9)
    assert status["claims"] == []

    failed = sum(sum(one["abstained"].values()) for one in documents)
    assert failed > 0
    server.fault_rate = 0.0
    before = bought(server)
    retry = ("--workspace", tmp_path / "w", "retry", "--json", "--concurrency", str(CONCURRENCY))
    retries = [many.document(many_child) for many_child in [many.start(*retry) for _ in range(2)]]
    again = bought(server) - before
    assert sum(map(stored_by, retries)) + cli("status", "--json").document["labelers"][0][
        "abstained"
    ] <= failed + sum(one["failed"] for one in retries)
    assert sum(again.values()) <= failed
    assert cli("status", "--json").document["calls"]["sent"] == sum(bought(server).values())


def test_a_budget_is_of_one_command_and_says_so(
    cli: Cli, server: GeminiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
    assert cli("import", "traces", many_traces(tmp_path / "t", 3), "--dataset", "d").code == 0
    said = "The budget is of this command alone"
    assert said not in cli(*JUDGE, "--budget", "5", "--limit", "1").err
    with open_store(tmp_path) as store:
        here, now = Claimant.here("judge", at=time.time()), time.time()
        work = Workload("d", "judge")
        store.claims.take(here, work, ["t2"], at=now, until=now + 600)
        assert said in cli(*JUDGE, "--budget", "5", "--limit", "2").err


@pytest.mark.parametrize("processes", [2, 4])
def test_a_killed_judge_is_taken_over_at_once(
    cli: Cli, many: Many, server: GeminiServer, tmp_path: Path, processes: int
) -> None:
    count = 200
    assert cli("import", "traces", many_traces(tmp_path / "t", count), "--dataset", "d").code == 0
    line = ("--workspace", tmp_path / "w", *JUDGE, "--concurrency", str(CONCURRENCY))
    children = [many.start(*line) for _ in range(processes)]
    until(lambda: sum(bought(server).values()) >= 60)
    with open_store(tmp_path) as store:
        [*claims] = store.claims.live(at=0.0)
    assert {claim.pid for claim in claims} <= set(children)
    assert {(claim.host, claim.command) for claim in claims} == {(socket.gethostname(), "judge")}
    os.kill(children[0], signal.SIGKILL)
    assert many.ended(children[0])[0] == -signal.SIGKILL
    documents = [many.document(child) for child in children[1:]]
    until(lambda: server.active == 0)
    assert {one["failed"] for one in documents} == {0}
    with open_store(tmp_path) as store:
        assert len(store.labels.load("d", "judge")) == count
    kept, paid = recorded(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}"), bought(server)
    assert set(kept.values()) == {1}
    assert len(kept) == count
    lost = paid - kept
    assert sum(lost.values()) <= CONCURRENCY, "more was lost than was in flight"
    assert max(lost.values(), default=1) == 1
    assert cli("status", "--json").document["claims"] == []


@pytest.mark.parametrize("processes", [2, 4])
def test_monte_carlo_labelers_share(cli: Cli, many: Many, tmp_path: Path, processes: int) -> None:
    count = 60
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for i in range(count):
            row = {"id": f"t{i}", "problem": f"What is {i} + 1?", "answer": str(i + 1)}
            file.write(json.dumps(row | {"steps": [f"{i} + 1.", f"It is {i + 1}."]}) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    with OpenAIServer() as policy:
        line: tuple[str | Path, ...] = (
            "--workspace",
            tmp_path / "w",
            "continue",
            "--dataset",
            "d",
            "--json",
        )
        line += ("--policy", "openai:m", "-k", "2", "--base-url", policy.url)
        children = [many.start(*line, "--concurrency", "4") for _ in range(processes)]
        documents = [many.document(child) for child in children]
        sent = [body for _, body, _ in list(policy.calls) if "messages" in body]
    assert sum(map(stored_by, documents)) == count
    assert {one["failed"] for one in documents} == {0}
    assert cli("status", "--json").document["calls"]["sent"] == len(sent)
    assert max(Counter(json.dumps(body, sort_keys=True) for body in sent).values()) == 1


@pytest.mark.parametrize("processes", [2, 4])
def test_scorers_share_and_one_is_killed(
    cli: Cli, many: Many, tmp_path: Path, processes: int
) -> None:
    problems, candidates = 40, 4
    count = problems * candidates
    pool = write_pool(
        tmp_path / "pool.jsonl", problems=problems, candidates=candidates, documents=2
    )
    assert cli("import", "traces", pool, "--dataset", "d").code == 0
    prm = save_prm(tmp_path / "prm", intermediate_size=4096)
    line = ("--workspace", tmp_path / "w", "score", "--dataset", "d", "--json")
    children = [many.start(*line, "--prm", f"hf:{prm}") for _ in range(processes)]

    def stored() -> int:
        with open_store(tmp_path) as store:
            return sum(
                each.traces for each in store.labels.labelers("d") if each.labeler.name == "prm"
            )

    until(lambda: stored() > 0)
    os.kill(children[0], signal.SIGKILL)
    many.ended(children[0])
    documents = [many.document(child) for child in children[1:]]
    assert stored() == count
    assert sum(map(stored_by, documents)) <= count
    assert {stored_by(one) + one["unchanged"] for one in documents} == {count}


def test_samplers_share_problems(cli: Cli, many: Many, tmp_path: Path) -> None:
    count, n = 150, 2
    path = tmp_path / "p.jsonl"
    with path.open("w") as file:
        for i in range(count):
            file.write(json.dumps({"id": f"p{i}", "problem": f"What is {i} + 1?"}) + "\n")
    with OpenAIServer("Step 1: Add.\nStep 2: Check.\nStep 3: It is 7.") as policy:
        line: tuple[str | Path, ...] = ("--workspace", tmp_path / "w", "sample")
        line += ("--dataset", "d", "--json")
        line += ("--policy", "openai:m", "-n", str(n), "--base-url", policy.url)
        line += ("--problems", path, "--concurrency", "4")
        documents = [many.document(each) for each in [many.start(*line) for _ in range(2)]]
        sent = [body for _, body, _ in list(policy.calls) if "messages" in body]
    assert max(Counter(json.dumps(body, sort_keys=True) for body in sent).values()) == 1
    assert cli("status", "--json").document["calls"]["sent"] == len(sent)
    assert {one["done"] + one["unchanged"] + one["failed"] for one in documents} == {count * n}
    assert sum(one["done"] for one in documents) == count * n
