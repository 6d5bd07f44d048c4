"""`stepgold continue` with a policy on this machine: near ties are told, a kill changes no label."""

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
import torch

from lab.build import build_workspace, trace_row
from lab.candidates import MAX_NEW_TOKENS
from stepgold import ContinueOptions
from stepgold.models import LAB_CONTINUATION
from storage import Store
from tests.known_policy import known_policy, known_traces
from tests.tiny_models import save, tiny_llama, tiny_tokenizer

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
TRACES = 520
"""Two groups that are read ahead, and some."""


@pytest.mark.slow
def test_near_ties_are_told_and_stored(cli: Cli, tmp_path: Path, traces_file: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    with torch.no_grad():  # every token is as good as any other
        model.get_output_embeddings().weight.zero_()
    folder = save(tmp_path / "undecided", tokenizer, model)
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    options = ["-k", "2", "--max-tokens", "3", "--temperature", "0", "--seed", "0"]
    argv = ["continue", "--dataset", "d", "--policy", f"hf:{folder}", *options]
    told = cli(*argv, "--json")
    assert told.document["near_ties"] == 7 * 2 * 3
    assert "near_ties" not in cli(*argv, "--json").document, "nothing was drawn"
    assert "42 token choices were near ties" in cli(*argv, "--name", "again").out
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        kept = {
            name: label.meta["near_ties"] for name, label in store.labels.load("d", "mc").items()
        }
    assert kept == {"a": 12, "b": 12, "c": 18}


@pytest.mark.slow
def test_the_lab_continues_its_traces_without_options(cli: Cli, tmp_path: Path) -> None:
    lab = build_workspace(0, 1, n_distractors=0)
    file = tmp_path / "lab.jsonl"
    file.write_text(json.dumps(trace_row(lab.problems[0], lab.traces[0])) + "\n")
    assert cli("import", "traces", file, "--dataset", "d").code == 0
    limits = ["-k", "1", "--limit", "1", "--name"]
    done = cli("continue", "--dataset", "d", "--policy", "lab", *limits, "mc", "--json")
    assert (done.code, done.document["done"], done.document["abstained"]) == (0, 1, {})


def test_only_the_lab_is_content_with_short_continuations() -> None:
    assert LAB_CONTINUATION == MAX_NEW_TOKENS
    assert ContinueOptions(dataset="d", policy="lab").limit_of_a_text == LAB_CONTINUATION
    assert ContinueOptions(dataset="d", policy="lab", max_tokens=7).limit_of_a_text == 7
    assert ContinueOptions(dataset="d", policy="openai:m").limit_of_a_text == 1024


def argv(folder: Path) -> list[str]:
    return [
        "continue", "--dataset", "d", "--policy", f"hf:{folder}", "-k", "4", "--max-tokens", "40",
        "--temperature", "1", "--seed", "5", "--step-separator", "\\n", "--json",
    ]  # fmt: skip


def stored(workspace: Path) -> int:
    try:
        with sqlite3.connect(f"file:{workspace / 'stepgold.db'}?mode=ro", uri=True) as connection:
            return int(connection.execute("select count(*) from trace_labels").fetchone()[0])
    except sqlite3.OperationalError:  # another process is about to write
        return 0


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_labels(cli: Cli, tmp_path: Path) -> None:
    folder = known_policy(tmp_path / "known")
    file = tmp_path / "t.jsonl"
    rows = [
        {
            "id": one.trace.id,
            "problem": one.problem.question,
            "answer": "2",
            "steps": one.trace.steps,
        }
        for one in known_traces(TRACES)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    for workspace in (killed, calm):
        assert cli("import", "traces", file, "--dataset", "d", workspace=workspace).code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "--workspace", killed, *argv(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not stored(killed) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = stored(killed)
    assert 0 < before < TRACES, "killed in the middle"
    again = cli(*argv(folder), workspace=killed)
    assert (again.document["unchanged"], again.document["done"]) == (before, TRACES - before)
    assert cli(*argv(folder), workspace=calm).document["done"] == TRACES
    found = []
    for workspace in (killed, calm):
        with Store.open(f"sqlite:///{workspace / 'stepgold.db'}") as store:
            [row] = [one for one in store.labels.labelers("d") if one.labeler.kind.value == "mc"]
            found.append(store.labels.load("d", row.labeler.name))
    assert found[0] == found[1]
