"""A program for the kill test: loads the libraries once, then forks and kills scoring runs.

    python -m tests.commands.score_lives WORKSPACE CALM PRM KILLS SEED

Each life is a process of its own that runs `stepgold score` and gets kill -9 at a random moment of its
work; the last one may finish. Prints what was stored at each death as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

# Before the fork: a child inherits what was read, and no thread runs yet.
import transformers.models.llama.modeling_llama  # noqa: F401

import storage.store  # noqa: F401
from cli import execute

DEADLINE_S = 60.0


def life(workspace: Path, prm: str) -> int:
    """Start a scoring run; its process id."""
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os._exit(execute(["--workspace", str(workspace), "score", "--dataset", "d", "--prm", prm]))
    return child


def stored(workspace: Path) -> dict[str, int]:
    """Trace ids and the keys of their labels: a label that is written again has another key."""
    with sqlite3.connect(f"file:{workspace / 'stepgold.db'}?mode=ro", uri=True) as database:
        query = (
            "SELECT t.id, l.pk FROM trace_labels l JOIN traces t ON t.pk = l.trace_pk"
            " JOIN labelers b ON b.pk = l.labeler_pk WHERE b.name = 'prm'"
        )
        return dict(database.execute(query).fetchall())


def main() -> None:
    """Kill, kill, ..., let live; then the undisturbed run."""
    workspace, calm, prm = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    kills, draw = int(sys.argv[4]), random.Random(int(sys.argv[5]))
    with sqlite3.connect(workspace / "stepgold.db") as database:
        [total] = database.execute("SELECT count(*) FROM traces").fetchone()
    deaths = []
    # One moment in each of as many equal parts of the run as there are deaths.
    part = total * 9 // 10 // kills
    for moment in (part * death + draw.randrange(part) for death in range(kills)):
        child = life(workspace, prm)
        end = time.monotonic() + DEADLINE_S
        while len(stored(workspace)) <= moment and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        deaths.append({"killed": os.WIFSIGNALED(status), "stored": stored(workspace)})
    codes = []
    for place in (workspace, calm):
        _, status = os.waitpid(life(place, prm), 0)
        codes.append(os.waitstatus_to_exitcode(status))
    print(json.dumps({"deaths": deaths, "codes": codes, "end": stored(workspace)}))


if __name__ == "__main__":
    main()
