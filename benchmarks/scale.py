"""CPU time and peak memory of every command that reads a whole dataset, at two sizes.

Traces of 10 steps are generated with gold on every step, a judge's and an MC labeler's verdicts,
and a PRM's scores. Each command runs in a child process of its own. "growth" is the CPU time at
the larger size divided by that at the smaller one, start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

STEPS = 10
PER_PROBLEM = 4
"""Traces of one problem."""
SUBSETS = ("one", "two", "three")
WORDS = [
    "the",
    "dose",
    "of",
    "a",
    "drug",
    "depends",
    "on",
    "weight",
    "age",
    "renal",
    "function",
    "and",
    "the",
    "other",
    "drugs",
    "given",
]
LIMIT_MB = 600
"""Peak memory that the issue allows."""
LABELERS = {"judge": "judge", "mc": "mc", "prm": "prm"}
"""Kind by name of the third-party labelers."""


def write_traces(folder: Path, n: int, files: int) -> list[Path]:
    """Write `n` traces in this number of files, and return the files."""
    draw, paths = random.Random(n), []
    for number in range(files):
        path = folder / f"traces-{number:04}.jsonl"
        with path.open("w", encoding="utf-8") as out:
            for index in range(number * n // files, (number + 1) * n // files):
                out.write(json.dumps(_trace(index, draw)) + "\n")
        paths.append(path)
    return paths


def _trace(index: int, draw: random.Random) -> dict[str, object]:
    problem = index // PER_PROBLEM
    steps = [" ".join(draw.choices(WORDS, k=12)) for _ in range(STEPS)]
    return {
        "id": f"trace-{index}",
        "problem": f"Problem {problem}: which dose of drug {problem} is right?",
        "answer": str(problem % 97),
        "subset": SUBSETS[problem % len(SUBSETS)],
        "steps": steps,
        **_answer(problem, draw),
        "labels": {"gold": {"kind": "gold", "verdicts": _verdicts(draw)}},
    }


def _answer(problem: int, draw: random.Random) -> dict[str, object]:
    right = draw.random() < 0.6
    return {"final_answer": str(problem % 97 if right else 98), "final_answer_correct": right}


def _verdicts(draw: random.Random) -> list[int]:
    error = draw.randrange(STEPS) if draw.random() < 0.5 else STEPS
    return [1] * error + [-1] * (STEPS - error)


def write_labels(folder: Path, n: int) -> dict[str, Path]:
    """Write one file of labels for every third-party labeler, and return them by labeler."""
    draw, paths = random.Random(n + 1), {}
    for name in LABELERS:
        paths[name] = folder / f"{name}.jsonl"
        with paths[name].open("w", encoding="utf-8") as out:
            for index in range(n):
                key = "scores" if name == "prm" else "verdicts"
                scores = [round(draw.random(), 4) for _ in range(STEPS)]
                values = scores if name == "prm" else _verdicts(draw)
                out.write(json.dumps({"id": f"trace-{index}", key: values}) + "\n")
    return paths


def measured(workspace: Path, *command: str) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak memory (MB) of one command in a child process."""
    words = [sys.executable, "-m", "cli", "--workspace", str(workspace), *command]
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in (0, 1):
            log.seek(0)
            raise SystemExit(f"{' '.join(command)}:\n{log.read().decode()[-2000:]}")
    wall = time.monotonic() - began
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


def commands(
    out: Path, traces: Sequence[Path], labels: dict[str, Path]
) -> Iterator[tuple[str, list[str]]]:
    """The commands to measure, by name, in the order in which they depend on each other."""
    data = ["--dataset", "d"]
    yield f"import, {len(traces)} files", ["import", "traces", *map(str, traces), *data]
    for name, kind in LABELERS.items():
        scores = ["import", "scores", str(labels[name]), *data, "--labeler", name, "--kind", kind]
        yield f"import scores {name}", scores
    yield "consensus", ["consensus", *data, "--judge", "judge", "--mc", "mc"]
    for protocol in ("processbench", "macro-f1"):
        prm = ["evaluate", *data, "--labeler", "prm", "--protocol", protocol]
        yield f"evaluate prm, {protocol}", prm
    yield "compare judge mc prm", ["compare", "judge", "mc", "prm", *data]
    yield "best-of-n", ["best-of-n", *data, "--labeler", "prm", "-n", "2,4"]
    yield "export traces", ["export", "traces", str(out / "out.jsonl"), *data, "--labeler", "prm"]
    yield "export trl", ["export", "trl", str(out / "trl.jsonl"), *data, "--labeler", "judge"]
    yield "status", ["status"]
    yield "report", ["report", str(out / "report.html"), *data]


def run(n: int, files: int, only: str | None, scratch: Path | None) -> dict[str, float]:
    """Measure all commands on `n` traces and print them; the CPU seconds by command."""
    found = {}
    with tempfile.TemporaryDirectory(dir=scratch, prefix="stepgold-scale-") as made:
        folder = Path(made)
        traces, labels = write_traces(folder, n, files), write_labels(folder, n)
        for name, command in commands(folder, traces, labels):
            if only == "import," and only not in name:
                continue
            cpu, wall, peak = measured(folder / "ws", *command)
            if only is None or only in name:
                name = "import" if name.startswith("import,") else name
                found[name] = cpu
                over = " over" if peak > LIMIT_MB else ""
                print(f"{n:>9,} {files:>5} {name:<28} {cpu:9.1f} {wall:9.1f} {peak:8.0f}{over}")
                sys.stdout.flush()
        size = sum(path.stat().st_size for path in (folder / "ws").glob("stepgold.db*"))
        print(f"{n:>9,} {files:>5} {'database, MB':<28} {size / 2**20:9.0f}", flush=True)
        shutil.rmtree(folder / "ws")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure at N traces, at 2N, and at 2N in many files; print CPU s, wall s, peak MB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100_000, help="traces of the smaller size")
    parser.add_argument("--files", type=int, default=800, help="files of the third run; 0: skip it")
    parser.add_argument("--once", action="store_true", help="only the smaller size")
    parser.add_argument("--only", help="print only commands whose name contains this")
    parser.add_argument("--scratch", type=Path, help="folder for the generated data")
    given = parser.parse_args(argv)
    print(f"{'traces':>9} {'files':>5} {'command':<28} {'CPU s':>9} {'wall s':>9} {'peak MB':>8}")
    small = run(given.n, 1, given.only, given.scratch)
    if given.once:
        return
    large = run(2 * given.n, 1, given.only, given.scratch)
    for name in small:
        print(f"growth of {name}: {large[name] / small[name]:.2f}")
    if given.files:
        many = run(2 * given.n, given.files, "import,", given.scratch)
        print(f"growth of import in {given.files} files: {many['import'] / small['import']:.2f}")


if __name__ == "__main__":
    main()
