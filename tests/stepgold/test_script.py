"""A user's script: a dozen lines against the public API, typed, killed, and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import stepgold

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """\
import sys

import stepgold

ws = stepgold.Workspace(sys.argv[1], progress=False)
ws.import_("processbench", sys.argv[2], dataset="pb", subset="gsm8k")
scored = ws.score(dataset="pb", prm="lab")
figures = ws.evaluate(dataset="pb", labeler="prm", resamples=20)
print(scored.done, scored.unchanged, figures.average.processbench_f1)
for label in ws.labels(dataset="pb", labeler="prm"):
    print(label.trace_id, [step.score for step in label.step_labels])
"""
TRACES = 300


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script, beside a small ProcessBench file."""
    rows = [
        {
            "id": f"gsm8k-{number}",
            "generator": "made",
            "problem": f"What is {number} + 1?",
            "steps": [f"Add 1 to {number}.", f"The answer is {number + 1 + number % 2}."],
            "final_answer_correct": number % 2 == 0,
            "label": -1 if number % 2 == 0 else 1,
        }
        for number in range(TRACES)
    ]
    (tmp_path / "gsm8k.json").write_text(json.dumps(rows))
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def argv(script: Path) -> list[str]:
    folder = script.parent
    return [sys.executable, str(script), str(folder / "runs" / "pb"), str(folder / "gsm8k.json")]


@pytest.mark.slow
def test_a_killed_script_does_only_what_is_missing(script: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workspace = stepgold.Workspace(script.parent / "runs" / "pb", progress=False)
    with subprocess.Popen(argv(script), env=environment, stdout=subprocess.DEVNULL) as running:
        while running.poll() is None:
            try:
                if len(workspace.labels(dataset="pb", labeler="prm")) > 10:
                    break
            except stepgold.ToolkitError:
                continue  # not imported, or nothing scored yet
        running.send_signal(signal.SIGKILL)
    done = subprocess.run(argv(script), env=environment, capture_output=True, text=True, check=True)
    counts, *labels = done.stdout.splitlines()
    new, unchanged, figure = counts.split()
    assert int(unchanged) > 10
    assert int(new) + int(unchanged) == TRACES == len(labels)
    assert 0 <= float(figure) <= 1


@pytest.mark.slow
def test_mypy_accepts_the_script(script: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(script)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
