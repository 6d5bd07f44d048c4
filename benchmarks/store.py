"""What the store costs beside sqlite3 itself: labels written and read, and their size on disk.

sqlite3 writes and reads the same labels a row per step, with a key and the same settings of the
database, and makes no object of them. Alternatives take turns; CPU seconds of this process count.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from storage import LabelArrays, Store
from traces import (
    ImportedTrace,
    Labeler,
    LabelerKind,
    Problem,
    SourceFile,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)

COMMIT = 500
"""Traces a commit."""
TARGETS = {"insert": 1.6, "read": 2.0, "bytes": 36.0}
TABLES = """
CREATE TABLE trace_labels (
    pk INTEGER PRIMARY KEY, labeler_pk INTEGER NOT NULL, trace_pk INTEGER NOT NULL,
    first_error_given BOOLEAN NOT NULL, first_error_index INTEGER, abstention TEXT, meta TEXT,
    created_at TEXT NOT NULL, UNIQUE (labeler_pk, trace_pk));
CREATE TABLE step_labels (
    trace_label_pk INTEGER NOT NULL REFERENCES trace_labels (pk) ON DELETE CASCADE,
    step_index INTEGER NOT NULL, verdict TEXT, score FLOAT, abstention TEXT, reasoning TEXT,
    PRIMARY KEY (trace_label_pk, step_index));
"""
WORDS = list(Verdict)


def made(kind: str, traces: int, steps: int) -> list[TraceLabel]:
    """Labels with this number of steps each: `verdicts`, `scores`, or `both`."""
    draw = random.Random(kind)

    def step() -> StepLabel:
        verdict = None if kind == "scores" else draw.choice(WORDS)
        return StepLabel(verdict, None if kind == "verdicts" else draw.random())

    return [TraceLabel(f"t{n}", tuple(step() for _ in range(steps))) for n in range(traces)]


def filled(url: str, traces: int, steps: int) -> Store:
    """A store with this number of traces of short steps."""
    store = Store.open(url)
    rows = (
        ImportedTrace(Problem(f"p{n // 8}", "?"), Trace(f"t{n}", f"p{n // 8}", ("s",) * steps))
        for n in range(traces)
    )
    store.traces.import_file("d", SourceFile("f", "f", "traces"), rows)
    return store


class Raw:
    """The same labels through sqlite3."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for name in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {name}")
        self._connection.executescript(TABLES)

    def write(self, labels: Sequence[TraceLabel], labeler: int) -> None:
        """Insert the labels, 500 traces a commit."""
        first = labeler * len(labels)
        for start in range(0, len(labels), COMMIT):
            traces = [
                (first + n, labeler, n, False, None, None, "{}", "2026-01-01T00:00:00.000+00:00")
                for n in range(start, min(start + COMMIT, len(labels)))
            ]
            steps = [
                (key, index, step.verdict, step.score, None, None)
                for key, *_ in traces
                for index, step in enumerate(labels[key - first].step_labels)
            ]
            run = self._connection.executemany
            self._connection.execute("BEGIN IMMEDIATE")
            run("INSERT INTO trace_labels VALUES (?, ?, ?, ?, ?, ?, ?, ?)", traces)
            run("INSERT INTO step_labels VALUES (?, ?, ?, ?, ?, ?)", steps)
            self._connection.execute("COMMIT")

    def read(self, labeler: int) -> int:
        """Fetch the steps' rows, a tuple each, and return how many there are."""
        query = (
            "SELECT step_labels.* FROM step_labels JOIN trace_labels ON pk = trace_label_pk"
            " WHERE labeler_pk = ? ORDER BY trace_label_pk, step_index"
        )
        return len(self._connection.execute(query, (labeler,)).fetchall())

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def write(store: Store, name: str, labels: Sequence[TraceLabel]) -> None:
    """Store the labels, 500 traces a commit."""
    store.labels.declare("d", Labeler(name, LabelerKind.PRM))
    for start in range(0, len(labels), COMMIT):
        store.labels.put("d", name, labels[start : start + COMMIT])


def seconds(rounds: int, ways: Mapping[str, Callable[[int], object]]) -> dict[str, float]:
    """The fewest CPU seconds of each way, given the number of the round; all ways take turns."""
    least = dict.fromkeys(ways, float("inf"))
    for number in range(rounds):
        for name, run in ways.items():
            began = time.process_time()
            run(number)
            least[name] = min(least[name], time.process_time() - began)
    return least


def measured(folder: Path, kind: str, *, traces: int, steps: int, rounds: int) -> Iterator[str]:
    """One line per measure for one kind of label."""
    labels = made(kind, traces, steps)
    raw = Raw(folder / f"{kind}-raw.db")
    path = folder / f"{kind}.db"
    with closing(raw), filled(f"sqlite:///{path}", traces, steps) as store:
        checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"

        def size() -> int:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(checkpoint)
            return os.stat(path).st_size

        empty = size()
        insert = seconds(
            rounds,
            {
                "sqlite3": lambda number: raw.write(labels, number),
                "store": lambda number: write(store, f"l{number}", labels),
            },
        )
        per_step = (size() - empty) / (rounds * traces * steps)
        read = seconds(
            rounds,
            {
                "sqlite3": lambda number: raw.read(number),
                "objects": lambda number: store.labels.load("d", f"l{number}"),
                "arrays": lambda number: LabelArrays.join(
                    list(store.labels.columns("d", f"l{number}"))
                ),
            },
        )
    base, ours = insert["sqlite3"], insert["store"]
    yield f"{kind:<9} insert  {ours:6.2f} s, sqlite3 {base:6.2f} s: {ours / base:5.2f} (target {TARGETS['insert']})"
    for form in ("objects", "arrays"):
        base, ours = read["sqlite3"], read[form]
        yield f"{kind:<9} {form:<7} {ours:6.2f} s, sqlite3 {base:6.2f} s: {ours / base:5.2f} (target {TARGETS['read']})"
    yield f"{kind:<9} size    {per_step:6.1f} bytes a step label (target {TARGETS['bytes']:.0f})"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("verdicts", "scores", "both"):
            for line in measured(Path(folder), kind, **vars(options)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
