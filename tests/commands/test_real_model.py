"""A real instruct model, SmolLM2-135M, through transformers and llama.cpp (`make real-model`)."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepgold
from tests.inference.test_real_servers import running
from tools.real_model import folder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TRACES = int(os.environ.get("REAL_TRACES", "4"))
"""Traces of MR-Ben biology that the real model labels; 20 take about ten minutes on two cores."""

YES = """
name = "{name}"
turns = "per-step"
read = "token"
history = "{history}"
first = "Problem: {{question}}\\n\\nAnswer only with Yes or No. Is this step right?\\n\\n{{step}}"
later = "Answer only with Yes or No. Is this next step right?\\n\\n{{step}}"
correct = "Yes"
incorrect = "No"
"""
ROWS = (
    {"id": "a", "problem": "What is 2 * 3?", "steps": ["1+1=2.", "1+2=4.", "So it is 8."]},
    {"id": "b", "problem": "30 kg, 6 mg per kg: which dose?", "steps": ["6 x 30 = 180 mg.", "180"]},
)
WARNING = re.compile(r"warn|deprecat|traceback|\bUserWarning", re.IGNORECASE)


@pytest.fixture(scope="module")
def smol() -> Path:
    """The model's folder; skips where `make real-model` did not run."""
    if not (folder() / "hf").is_dir():
        pytest.skip("no real model: run `make real-model`")
    return folder()


@pytest.fixture(scope="module")
def served(smol: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of llama.cpp with the same weights."""
    pytest.importorskip("xllamacpp", reason="needs the extra servers")
    script = ROOT / "tests" / "loopback" / "llama_server.py"
    command = [sys.executable, str(script), str(smol / "float32.gguf"), "4096"]
    log = tmp_path_factory.mktemp("llama") / "log"
    with running(command, url=None, log=log, cwd=ROOT) as url:
        yield f"{url}/v1"


def command(workspace: Path, *argv: str) -> str:
    """Run a command as a user does; return what it wrote to the terminal."""
    program = [sys.executable, "-m", "cli", "--workspace", str(workspace), *argv]
    environ = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        program, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert not WARNING.search(done.stderr), done.stderr
    return done.stdout


@pytest.mark.parametrize("history", ["Yes", "own"])
def test_both_back_ends_give_the_same_scores(
    smol: Path, served: str, tmp_path: Path, history: str
) -> None:
    """With a fixed answer `hf:` reads a trace in one pass, with its own it asks turn by turn."""
    traces, family = tmp_path / "t.jsonl", tmp_path / "yes.toml"
    traces.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    family.write_text(YES.format(name="mine", history=history), encoding="utf-8")
    workspace = stepgold.Workspace(tmp_path / "w")
    workspace.import_("traces", traces, dataset="d")
    scored: dict[str, dict[str, list[Any]]] = {}
    for prm, url in ((f"hf:{smol / 'hf'}", ()), ("openai:smol", (served,))):
        name = prm.partition(":")[0]
        workspace.score(dataset="d", prm=prm, family=str(family), name=name, base_url=url)
        labels = workspace.labels(dataset="d", labeler=name)
        scored[name] = {one.trace_id: [step.score for step in one.step_labels] for one in labels}
    assert scored["hf"].keys() == {"a", "b"}
    worst = max(
        abs(mine - theirs)
        for trace_id, scores in scored["hf"].items()
        for mine, theirs in zip(scores, scored["openai"][trace_id], strict=True)
    )
    print(history, worst)
    assert worst < 1e-3


@pytest.mark.parametrize("back_end", ["hf", "openai"])
def test_biology_traces(
    smol: Path, served: str, real_data: Path, tmp_path: Path, back_end: str
) -> None:
    """Every stage ends, nothing is warned of, and every reply is stored with its finish reason."""
    workspace, family = tmp_path / "w", tmp_path / "yes.toml"
    family.write_text(YES.format(name="mine", history="own"), encoding="utf-8")
    model = f"hf:{smol / 'hf'}" if back_end == "hf" else "openai:smol"
    server = () if back_end == "hf" else ("--base-url", served)
    biology = str(real_data / "mr_ben" / "biology.json")
    command(workspace, "import", "mr-ben", biology, "--dataset", "b")
    on = ("--dataset", "b", "--limit", str(TRACES), "--json", *server)
    critic = ("--prompt", "processbench-critic", "--max-tokens", "32")
    judged = json.loads(command(workspace, "judge", "--judge", model, *on, *critic))
    assert judged["done"] + sum(judged["abstained"].values()) == TRACES
    score = ("score", "--prm", model, "--family", str(family))
    scored = json.loads(command(workspace, *score, *on))
    assert scored["done"] + sum(scored["abstained"].values()) == TRACES
    policy = ("--policy", model, *(() if back_end == "hf" else ("--template", str(smol / "hf"))))
    few = ("-k", "4", "--max-tokens", "16")
    continued = json.loads(command(workspace, "continue", *policy, *few, *on))
    assert continued["done"] + sum(continued["abstained"].values()) == TRACES
    one = ("--dataset", "b", "--limit", "1", "-n", "2", "--max-tokens", "64", "--json", *server)
    command(workspace, "sample", *policy, *one)
    with sqlite3.connect(workspace / "stepgold.db") as database:
        calls = database.execute("SELECT finish_reason, count(*) FROM model_calls GROUP BY 1")
        reasons = dict(calls.fetchall())
    print(back_end, judged["abstained"], scored["done"], continued["done"], reasons)
    assert reasons.keys() <= {"stop", "length", "over_length"}
    assert sum(reasons.values()) >= 2 * TRACES
