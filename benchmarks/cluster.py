"""`make bench-ray`: what the engine `ray` costs beyond its start-up, on this machine.

    python -m benchmarks.cluster [--traces 1000] [--rounds 2] [--actors 1]

The lab's PRM scores the same traces in this process and on actors of a local Ray cluster, in turns,
with one thread each. A run of one trace is the start-up (the cluster, the model, the database); what
a run of all traces takes beyond that is compared. Labels must be equal to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from lab.build import build_workspace, trace_row
from stepgold import Workspace
from storage import Store

WANTED = 0.15
"""Largest share by which the time beyond the start-up may be longer."""


def write_traces(file: Path, count: int) -> None:
    """Traces of the lab as JSONL, of four candidates a problem."""
    drawn = build_workspace(0, -(-count // 2), n_distractors=0)
    problems = {one.id: one for one in drawn.problems}
    rows = [trace_row(problems[trace.problem_id], trace) for trace in drawn.traces[:count]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Measured:
    """Wall and processor seconds of runs, those of the actors included."""

    def __init__(self) -> None:
        from stepgold.clusters import ActorPool

        self._actors, close = 0.0, ActorPool.close

        def closing(pool: ActorPool) -> None:
            self._actors = actor_seconds()
            close(pool)

        setattr(ActorPool, "close", closing)  # noqa: B010

    def run(self, ws: Workspace, name: str, **how: Any) -> tuple[float, float]:
        """One run under a new name."""
        self._actors, began, spent = 0.0, time.perf_counter(), time.process_time()
        ws.score(dataset="d", prm="lab", name=name, **how)
        return time.perf_counter() - began, time.process_time() - spent + self._actors


def actor_seconds() -> float:
    """Processor seconds of the actors on this machine (Linux)."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::_Worker"):
                fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                ticks += sum(map(int, fields[11:13]))
        except OSError:  # it has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if labels differ."""
    parser = argparse.ArgumentParser(prog="benchmarks.cluster")
    parser.add_argument("--traces", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--actors", default="1", help="MIN:MAX [1, as many as this process is]")
    options = parser.parse_args(argv)
    engines: dict[str, dict[str, Any]] = {
        "local": {}, "ray": {"engine": "ray", "actors": options.actors},
    }  # fmt: skip
    best: dict[tuple[str, bool], tuple[float, float]] = {}
    measured = Measured()
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder) / "w", progress=False)
        write_traces(Path(folder) / "t.jsonl", options.traces)
        ws.import_("traces", Path(folder) / "t.jsonl", dataset="d")
        measured.run(ws, "imports", limit=1)  # every actor pays them, this process once
        for number in range(options.rounds):
            for name, engine in list(engines.items())[:: -1 if number % 2 else 1]:
                for short in (True, False):
                    limit = {"limit": 1} if short else {}
                    took = measured.run(ws, f"{name}-{number}-{short}", **limit, **engine)
                    before = best.get((name, short), took)
                    best[name, short] = min(took[0], before[0]), min(took[1], before[1])
                    what = "1 trace" if short else "all traces"
                    print(f"{name}, {what}: {took[0]:.1f} s, {took[1]:.1f} CPU s", flush=True)
        with Store.open(ws.url) as store:
            local, ray = (store.labels.load("d", f"{name}-0-False") for name in engines)
    print(
        f"{options.traces} traces, {options.actors} actors, the best of {options.rounds}; wanted:"
    )
    print(
        f"at most {WANTED:.0%} beyond the start-up. Labels {'equal' if local == ray else 'DIFFER'}."
    )
    for place, unit in enumerate(("s", "CPU s")):
        start = {name: best[name, True][place] for name in engines}
        beyond = {name: best[name, False][place] - start[name] for name in engines}
        print(
            f"start-up {start['local']:.1f} and {start['ray']:.1f} {unit}, beyond it"
            f" {beyond['local']:.1f} and {beyond['ray']:.1f} {unit}:"
            f" {beyond['ray'] / beyond['local'] - 1:+.1%}"
        )
    return 0 if local == ray else 1


if __name__ == "__main__":
    sys.exit(main())
