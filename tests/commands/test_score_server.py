"""`stepgold score --prm openai:MODEL`: held against its checkpoint first, then as any other PRM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import Store
from tests.commands.tiny_prm import save_prm, write_pool
from tests.loopback.prm_server import Manners, PrmServer, TinyPrm
from tests.loopback.recording_server import RecordingServer
from tests.scoring.checkpoints import save_qwen_prm
from traces.labels import TraceLabel

Cli = Callable[..., Any]
Score = Callable[..., Any]
DEADLINE_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen_prm(tmp_path_factory.mktemp("qwen"), published=True)


@pytest.fixture(scope="module")
def model(folder: Path) -> TinyPrm:
    return TinyPrm(folder, "classes")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> TinyPrm:
    """The same kind of PRM with a head that was trained otherwise."""
    from safetensors.torch import load_file, save_file

    folder = save_qwen_prm(tmp_path_factory.mktemp("other"), published=True)
    weights = load_file(folder / "model.safetensors")
    weights["score.2.weight"] = weights["score.2.weight"].flip(0) * 0.9
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return TinyPrm(folder, "classes")


@pytest.fixture
def server(model: TinyPrm) -> Iterator[PrmServer]:
    with PrmServer(model) as server:
        yield server


@pytest.fixture
def score(cli: Cli, tmp_path: Path, folder: Path, server: PrmServer) -> Score:
    """Dataset d with eight traces; `score` on it."""
    path = write_pool(tmp_path / "pool.jsonl", problems=2, candidates=4)
    assert cli("import", "traces", path, "--dataset", "d").code == 0

    def call(*options: str | Path, url: str | None = None, prm: str = "openai:prm") -> Any:
        on = ("--dataset", "d", "--prm", prm, "--checkpoint", f"hf:{folder}")
        return cli("score", *on, "--base-url", url or server.url, *options, "--json")

    return call


def labels(tmp_path: Path, name: str = "prm", where: str = "w") -> dict[str, TraceLabel]:
    with Store.open(f"sqlite:///{tmp_path / where / 'stepgold.db'}") as store:
        return store.labels.load("d", name)


def scores(found: dict[str, TraceLabel]) -> dict[str, list[float | None]]:
    return {name: [step.score for step in label.step_labels] for name, label in found.items()}


@pytest.mark.slow
def test_it_scores_as_the_checkpoint_and_says_how_it_compared(
    score: Score, cli: Cli, tmp_path: Path, folder: Path, server: PrmServer
) -> None:
    called = score()
    assert (called.code, called.document["done"]) == (0, 8)
    gate = called.document["parity"]
    assert (gate["traces"], gate["steps"], gate["first_error_agreement"]) == (8, 24, 1.0)
    assert gate["max_difference"] < 1e-4
    assert (gate["reading"], gate["resolved_model"]) == ("logits", "prm (/models/prm)")
    assert "comparing the server with the checkpoint on 8 traces" in called.err
    [row] = cli("status", "--json").document["labelers"]
    assert (row["parity"], row["resolved_model"]) == (gate, "prm (/models/prm)")
    assert "compared with its checkpoint on 8 traces" in cli("status").out
    assert cli("score", "--dataset", "d", "--prm", f"hf:{folder}", "--name", "here").code == 0
    here, there = scores(labels(tmp_path, "here")), scores(labels(tmp_path))
    for name, steps in here.items():
        assert there[name] == pytest.approx(steps, abs=1e-5)

    server.calls.clear()
    again = score()
    assert (again.code, again.document["unchanged"]) == (0, 8)
    assert server.calls == [], "a gate that was passed is not asked for again"
    assert again.document["parity"] == gate


@pytest.mark.parametrize("fault", ["weights", "order"])
def test_a_server_that_scores_otherwise_stores_nothing(
    score: Score, cli: Cli, other_model: TinyPrm, server: PrmServer, fault: str
) -> None:
    if fault == "weights":
        server.model = other_model
    else:
        server.manners.shuffled = True
    called = score()
    assert called.code == 2
    error = called.document["error"]
    assert "gives different scores from the checkpoint, so nothing was stored" in error["what"]
    assert "(limit 0.02), first errors agree on" in error["what"]
    assert error["where"].startswith('trace "p')
    assert " here, " in error["where"]
    assert len(server.calls) == 8, "the sample and no more"
    assert cli("status", "--json").document["labelers"] == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_server_that_redirects_scores_nothing(
    score: Score, cli: Cli, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    with RecordingServer() as other, RecordingServer(status, redirect_to=other.url) as server:
        called = score(url=server.url)
        assert called.code == 2
        for host in (server.host, other.host):
            assert host in called.document["error"]["what"]
        assert other.received == []
    assert cli("status", "--json").document["labelers"] == []


@pytest.mark.slow
def test_the_limits_are_the_users(score: Score, server: PrmServer) -> None:
    called = score("--parity-sample", "3", "--parity-limit", "0")
    assert called.code == 2
    assert "(limit 0)" in called.document["error"]["what"]
    assert len(server.calls) == 3
    server.calls.clear()
    small = score("--parity-sample", "3", "--limit", "2")
    assert (small.code, small.document["done"], len(server.calls)) == (0, 2, 5)
    assert small.document["parity"]["traces"] == 3
    # More traces are asked for than were looked at: the gate is passed anew.
    server.calls.clear()
    assert score("--parity-sample", "4").document["done"] == 6
    assert len(server.calls) == 4 + 6


@pytest.mark.slow
def test_another_server_is_held_against_the_checkpoint_anew(
    score: Score, model: TinyPrm, other_model: TinyPrm, server: PrmServer, tmp_path: Path
) -> None:
    first = score("--limit", "2").document["parity"]
    stored = labels(tmp_path)
    with PrmServer(other_model) as wrong:
        assert score(url=wrong.url).code == 2
        assert labels(tmp_path) == stored
    with PrmServer(model) as right:
        called = score("--limit", "4", url=right.url)
        assert (called.code, called.document["done"], called.document["unchanged"]) == (0, 2, 2)
        assert len(right.calls) == 8 + 2
    assert called.document["parity"] == first, "what the labeler was made with stays"
    server.calls.clear()
    assert score("--limit", "6").document["done"] == 2
    assert len(server.calls) == 2, "the first server has passed"
    server.calls.clear()
    server.manners.root = "/models/another"
    assert score().document["done"] == 2
    assert len(server.calls) == 8 + 2
    assert {name: label for name, label in labels(tmp_path).items() if name in stored} == stored


@pytest.mark.slow
def test_another_checkpoint_is_another_labeler(
    score: Score, cli: Cli, server: PrmServer, tmp_path: Path
) -> None:
    assert score().code == 0
    mine = tmp_path / "mine"
    save_qwen_prm(mine, published=True)
    weights = mine / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    server.calls.clear()
    on = ("--dataset", "d", "--prm", "openai:prm", "--base-url", server.url)
    called = cli("score", *on, "--checkpoint", f"hf:{mine}", "--json")
    assert called.code == 2
    assert "prm" in called.document["error"]["what"]
    assert server.calls == [], "refused before anything is loaded or sent"
    assert score("--replace").document["unchanged"] == 8, "it is the same one: nothing gives way"
    assert server.calls == []
    options = ("--checkpoint", f"hf:{mine}", "--replace", "--parity-limit", "1")
    assert score(*options).document["done"] == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prm", "openai:prm", "--base-url", "http://127.0.0.1:9/v1"), "its tokenizer lays"),
        (("--prm", "openai:prm", "--checkpoint", "lab"), "is not a checkpoint"),
        (("--prm", "openai:prm", "--checkpoint", "hf:x"), "no server"),
        (("--prm", "hf:x", "--checkpoint", "hf:x"), "--checkpoint has no effect"),
        (("--prm", "hf:x", "--route", "pooling"), "--route has no effect"),
        (("--prm", "openai:m", "--checkpoint", "hf:x", "--mode", "medprm-compat"), "medprm-compat"),
        (
            ("--prm", "openai:m", "--checkpoint", "hf:x", "--base-url", "http://u:p@h"),
            "user:password",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_once(
    cli: Cli, traces_file: Path, options: tuple[str, ...], words: str
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    called = cli("score", "--dataset", "d", *options)
    assert called.code == 2
    assert words in called.err


def test_plan_says_that_it_is_the_checkpoints(score: Score, cli: Cli) -> None:
    called = cli("plan", "--dataset", "d", "--prm", "openai:prm")
    assert called.code == 2
    assert "add --checkpoint hf:PATH" in called.err


@pytest.mark.slow
def test_signs_with_documents_and_retry_with_another_window(
    cli: Cli, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SGLang's route; an over-long trace is named, tried again alone, and scored as on this machine."""
    folder = save_prm(tmp_path_factory.mktemp("medprm"))
    path = write_pool(tmp_path / "pool.jsonl", problems=2, candidates=3, long_ones=1)
    cli("import", "traces", path, "--dataset", "d")
    with PrmServer(TinyPrm(folder, "signs"), Manners(script=["ok"] * 20)) as server:
        on = ("--dataset", "d", "--prm", "openai:prm", "--checkpoint", f"hf:{folder}")
        how = ("--base-url", server.url, "--family", "medprm", "--route", "generate")
        called = cli("score", *on, *how, "--max-tokens", "600", "--json")
        assert (called.code, called.document["abstained"]) == (1, {"over_length": 2})
        before = labels(tmp_path)
        server.calls.clear()
        again = cli(
            "retry", "--labeler", "prm", "--max-tokens", "2000", "--base-url", server.url, "--json"
        )
        assert (again.code, again.document["done"]) == (0, 2)
        assert len(server.calls) == 2, "the gate of the labeler holds"
        assert cli("retry", "--base-url", server.url, "--json").document["done"] == 0
    here = ("--prm", f"hf:{folder}", "--max-tokens", "2000", "--name", "here")
    assert cli("score", "--dataset", "d", *here).code == 0
    after, local = labels(tmp_path), scores(labels(tmp_path, "here"))
    for name, label in after.items():
        assert scores(after)[name] == pytest.approx(local[name], abs=1e-5)
        assert label == before[name] or name.endswith(":0")
    assert after["p0:0"].meta["max_tokens"] == 2000


@pytest.mark.slow
def test_what_the_server_failed_on_is_retried(
    score: Score, cli: Cli, server: PrmServer, tmp_path: Path
) -> None:
    server.manners.script = ["ok"] * 8 + ["nan"] * 3
    called = score()
    assert (called.code, called.document["abstained"]) == (1, {"model_error": 3})
    assert score().document["unchanged"] == 8
    again = cli("retry", "--base-url", server.url, "--json")
    assert (again.code, again.document["done"]) == (0, 3)
    assert all(label.abstention is None for label in labels(tmp_path).values())


@pytest.mark.slow
def test_retry_of_a_checkpoint_that_is_another_one_now(
    cli: Cli, score: Score, server: PrmServer, tmp_path: Path, folder: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    server.manners.script = ["ok"] * 8 + ["nan"]
    assert score("--checkpoint", f"hf:{mine}").code == 1
    weights = mine / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    server.calls.clear()
    called = cli("retry", "--base-url", server.url)
    assert called.code == 2
    assert "The weights of " in called.err
    assert server.calls == []


@pytest.mark.slow
def test_a_server_that_turns_bad_ends_the_run_and_keeps_what_was_right(
    score: Score, server: PrmServer, tmp_path: Path
) -> None:
    server.manners.script = ["ok"] * 11 + ["other"]
    called = score("--concurrency", "1")
    assert called.code == 1
    done = called.document["done"]
    assert done >= 3
    assert done + called.document["failed"] == 8
    assert "results" in called.document["stopped"]
    assert score().document["done"] == 8 - done
    assert all(label.abstention is None for label in labels(tmp_path).values())


@pytest.mark.slow
def test_killed_in_the_middle_no_trace_is_scored_twice_and_none_is_missing(
    cli: Cli, tmp_path: Path, folder: Path, server: PrmServer
) -> None:
    path = write_pool(tmp_path / "pool.jsonl", problems=8, candidates=6)
    for where in ("w", "calm"):
        cli("import", "traces", path, "--dataset", "d", workspace=tmp_path / where)
    on = ["score", "--dataset", "d", "--prm", "openai:prm", "--checkpoint", f"hf:{folder}"]
    on += ["--base-url", server.url, "--concurrency", "2", "--parity-sample", "4"]
    command = [sys.executable, "-m", "cli", "--workspace", str(tmp_path / "w"), *on]
    # Two at once and 30 ms each: of 25 answers at least 8 are older than the quarter of a second
    # that a label may wait for its commit, and behind the 25th nothing is answered.
    server.manners.pause_s = 0.03
    server.manners.script = ["ok"] * (4 + 25) + ["hold"] * 100
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as life:
        assert server.held.wait(DEADLINE_S)
        wait_for_labels(tmp_path)
        os.kill(life.pid, signal.SIGKILL)
        server.release.set()
    assert life.returncode == -signal.SIGKILL
    seen = labels(tmp_path)
    assert 0 < len(seen) <= 25
    server.manners = Manners()
    server.calls.clear()
    assert cli(*on).code == 0
    assert len(server.calls) == 48 - len(seen), "only what was missing is asked"
    assert cli(*on, workspace=tmp_path / "calm").code == 0
    ended, calm = labels(tmp_path), labels(tmp_path, where="calm")
    assert {name: ended[name] for name in seen} == seen
    assert scores(ended) == scores(calm)
    assert len(ended) == 48


def wait_for_labels(tmp_path: Path) -> None:
    """Wait until something is stored; before that there is no labeler either."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
            if store.labels.labelers("d"):
                return
        time.sleep(0.02)
