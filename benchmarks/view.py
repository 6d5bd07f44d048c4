"""How fast `stepgold view` answers over many traces, how much memory it takes, and how soon a label
of another process is shown.

A server runs in a child process over traces of 10 steps with gold, two judges, an MC labeler
and a PRM. Every kind of page is asked for over HTTP, with other values each time; requests
follow each other. Times are wall times of the client, and the load of the machine is printed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.scale import LABELERS, STEPS, WORDS, write_labels, write_traces

LIMIT_MS = 200
"""What the issue allows at the 95th percentile of each kind of page."""
LIMIT_MB = 400
"""What the issue allows as peak memory."""
DEADLINE_S = 600.0


def fill(folder: Path, n: int) -> Path:
    """A workspace with `n` traces and five labelers."""
    from cli import execute

    workspace = folder / "w"
    on = ["--workspace", str(workspace)]
    files = [str(path) for path in write_traces(folder, n, 4)]
    made = [execute([*on, "import", "traces", *files, "--dataset", "d"])]
    for name, path in write_labels(folder, n).items():
        kind = ["--labeler", name, "--kind", LABELERS[name]]
        made.append(execute([*on, "import", "scores", str(path), "--dataset", "d", *kind]))
    second = [str(write_second(folder, n)), "--dataset", "d", "--labeler", "second"]
    made.append(execute([*on, "import", "scores", *second]))
    if set(made) - {0, 1}:
        raise SystemExit(f"the workspace could not be filled: {made}")
    return workspace


def write_second(folder: Path, n: int) -> Path:
    """Verdicts of a second judge, who leaves a third of the steps open."""
    draw, path = random.Random(n + 2), folder / "second.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for index in range(n):
            verdicts = [draw.choice((1, 1, 1, -1, None, None)) for _ in range(STEPS)]
            out.write(json.dumps({"id": f"trace-{index}", "verdicts": verdicts}) + "\n")
    return path


class Server:
    """A `stepgold view` in a child process."""

    def __init__(self, workspace: Path) -> None:
        words = [sys.executable, "-m", "cli", "--workspace", str(workspace), "view", "--port", "0"]
        self._child = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        if self._child.stderr is None:
            raise SystemExit("no standard error")
        line = self._child.stderr.readline().decode()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        self.connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)

    def get(self, path: str, **query: object) -> str:
        """The body of a page; 429 is waited for."""
        address = f"{path}?{urlencode(query)}" if query else path
        while True:
            try:
                self.connection.request("GET", address)
                answer = self.connection.getresponse()
            except http.client.RemoteDisconnected:  # it was idle for long
                self.connection.close()
                continue
            body = answer.read().decode()
            if answer.status == 200:
                return body
            if answer.status != 429:
                raise SystemExit(f"{address}: {answer.status} {body[:500]}")
            time.sleep(1)

    def peak_mb(self) -> float:
        """The most memory that it has held."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self) -> int:
        """End it with Ctrl-C, and return its exit code."""
        self._child.send_signal(signal.SIGINT)
        return self._child.wait(DEADLINE_S)


def wait_for(server: Server, path: str, text: str, **query: object) -> float:
    """Seconds until a page has a text."""
    began = time.perf_counter()
    while text not in server.get(path, **query):
        if time.perf_counter() - began > DEADLINE_S:
            raise SystemExit(f"{path} never showed {text!r}")
        time.sleep(0.1)
    return time.perf_counter() - began


def walks(server: Server, draw: random.Random) -> dict[str, Iterator[dict[str, object]]]:
    """Endless queries by kind of page; those that follow a table turn its pages."""

    def turning(**query: object) -> Iterator[dict[str, object]]:
        after = None
        while True:
            asked = {"dataset": "d", **query, **({"after": after} if after else {})}
            yield asked
            links = re.findall(r"after=([^&\"]+)", server.get("/traces", **asked))
            after = links[-1].replace("%3A", ":") if links else None

    def varied(**choices: Sequence[object]) -> Iterator[dict[str, object]]:
        while True:
            yield {"dataset": "d"} | {name: draw.choice(each) for name, each in choices.items()}

    outcomes = ["exact", "early", "late", "missed", "false_alarm", "missing"]
    scores = [round(draw.random(), 3) for _ in range(50)]
    names = ["judge", "mc", "prm", "second"]
    return {
        "pages in the order of import": turning(),
        "subset": varied(subset=["one", "two", "three"], labeler=names),
        "early, late, missed, false alarm": varied(labeler=names, outcome=outcomes),
        "abstention reason": varied(labeler=["second"], reason=["not_measured"]),
        "labelers differ": varied(disputed=[1], sort=["import", "long"]),
        "score range": varied(labeler=["prm"], most=scores, sort=["low", "high"]),
        "pages by lowest score": turning(labeler="prm", sort="low"),
        "pages by first error": turning(labeler="judge", sort="last", outcome="late"),
        "frequent text": varied(text=WORDS),
        "rare text": varied(text=[f"trace-{draw.randrange(10**5)}" for _ in range(50)]),
        "absent text": varied(text=["no such words"]),
    }


def percentile(times: Sequence[float], share: float) -> float:
    """The time that this share of the requests did not exceed."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def timed(server: Server, path: str, asked: dict[str, object]) -> float:
    """Milliseconds until the whole page is here."""
    began = time.perf_counter()
    server.get(path, **asked)
    return 1000 * (time.perf_counter() - began)


def run(workspace: Path, n: int, requests: int) -> dict[str, Any]:
    """Measure, print and return everything."""
    draw, rows = random.Random(0), dict[str, dict[str, float]]()
    began = time.perf_counter()
    server = Server(workspace)
    started = time.perf_counter() - began
    read = wait_for(server, "/", "second")
    print(f"{n} traces, 5 labelers; start {started:.1f} s, labels read after {read:.1f} s more")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for name, queries in walks(server, draw).items():
        times = [timed(server, "/traces", next(queries)) for _ in range(requests)]
        rows[name] = {"p50": percentile(times, 0.5), "p95": percentile(times, 0.95)}
    ids = [
        {
            "dataset": "d",
            "id": f"trace-{draw.randrange(n)}",
            "work": "judge",
            "place": f"0.0:{n // 2}",
        }
        for _ in range(requests)
    ]
    for name, path, asked in (
        ("one trace", "/trace", ids),
        ("home", "/", [{}]),
        ("costs", "/costs", [{}]),
    ):
        times = [timed(server, path, dict(asked[i % len(asked)])) for i in range(requests)]
        rows[name] = {"p50": percentile(times, 0.5), "p95": percentile(times, 0.95)}
    for name, row in rows.items():
        print(f"{name:<36}{row['p50']:>8.0f} ms p50{row['p95']:>8.0f} ms p95")
    worst = max(row["p95"] for row in rows.values())
    seen = shown_after(server, workspace)
    peak = server.peak_mb()
    code = server.stop()
    print(f"a label of another process was shown {seen:.1f} s after its commit")
    print(f"peak {peak:.0f} MB; exit code after Ctrl-C {code}")
    print(f"worst p95 {worst:.0f} ms (limit {LIMIT_MS}), memory limit {LIMIT_MB} MB")
    return {"traces": n, "pages": rows, "worst_p95_ms": worst, "peak_mb": peak, "shown_s": seen}


def shown_after(server: Server, workspace: Path) -> float:
    """Seconds from the end of an import in another process until its labeler is on the page."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "late.jsonl"
        file.write_text(json.dumps({"id": "trace-0", "scores": [0.5] * 10}) + "\n")
        words = [sys.executable, "-m", "cli", "--workspace", str(workspace), "import", "scores"]
        subprocess.run(
            [*words, str(file), "--dataset", "d", "--labeler", "late", "--replace"],
            capture_output=True,
            check=False,
        )
    return wait_for(server, "/", "late")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=40, help="requests of each kind")
    parser.add_argument("--workspace", type=Path, help="keep the workspace here, and use it again")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.workspace or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        workspace = folder / "w"
        if not (workspace / "stepgold.db").exists():
            workspace = fill(folder, asked.traces)
        found = run(workspace, asked.traces, asked.requests)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    return 0 if found["worst_p95_ms"] < LIMIT_MS and found["peak_mb"] < LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
