"""How many of our files one trace enters on its way through `judge`: a measure of indirection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback.gemini_server import GeminiServer

ROOT = Path(__file__).resolve().parents[2]
MOST_FILES = 70
PROGRAM = """
import sys, threading

root, *arguments = sys.argv[1:]
entered = set()

def importing(frame):
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False

def enter(frame, event, _):
    file = frame.f_code.co_filename
    ours = event == "call" and file.startswith(root) and "/.venv/" not in file
    if ours and file not in entered and not importing(frame):
        entered.add(file)

import cli
threading.setprofile(enter)
sys.setprofile(enter)
code = cli.execute(arguments)
sys.setprofile(None)
print("ENTERED", code, *sorted(entered))
"""
"""Runs a command line and prints the files of which a function was called, imports excluded."""


@pytest.mark.slow
def test_one_trace_through_the_judge_enters_few_files(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    row = {
        "id": "a",
        "problem": "What is 1+1?",
        "steps": ["1+1=2.", "The answer is 2."],
        "evidence": [{"source": "guide", "title": "Sums", "text": "The sum of 1 and 1 is 2."}],
    }
    file.write_text(json.dumps(row) + "\n")
    workspace = ["--workspace", str(tmp_path / "w")]
    done = run([*workspace, "import", "traces", str(file), "--dataset", "d"], {})
    assert done[0] == "0"
    with GeminiServer() as server:
        keys = {"GEMINI_API_KEY": "key", "GOOGLE_GEMINI_BASE_URL": server.url}
        judge = ["judge", "--dataset", "d", "--judge", "gemini:gemini-2.5-flash", "--json"]
        code, *files = run([*workspace, *judge], keys)
    assert code == "0"
    assert len(files) <= MOST_FILES, files
    print(len(files), *files, sep="\n")


def run(arguments: list[str], environment: dict[str, str]) -> list[str]:
    """The exit code and the files of this repository in which a function was called."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    marked = next(line for line in done.stdout.splitlines() if line.startswith("ENTERED"))
    return [word.removeprefix(f"{ROOT}/") for word in marked.split()[1:]]
