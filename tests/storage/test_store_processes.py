"""Several processes on one database: killed writers, many writers, a race to make it."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from storage import Store
from tests.storage.builders import JUDGE, fill, ids, judged

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys
from storage import Store
from tests.storage.builders import judged
from traces.records import Continuation, ModelReply, StoredCall

with Store.open(sys.argv[1]) as store:
    for trace_id in store.labels.unlabeled_trace_ids("d", "judge"):
        reply = ModelReply(trace_id, "stop", "m", "m-1", usd=0.5)
        if store.replies.get(trace_id) is None:
            store.replies.put(StoredCall(trace_id, "{}", reply))
            print("paid", trace_id, flush=True)
        texts = [Continuation(trace_id, 1, index, "x", "stop", None, None) for index in range(3)]
        store.labels.put("d", "judge", [judged(trace_id)], continuations=texts)
        print("label", trace_id, flush=True)
"""

SHARE = """
import sys
from storage import Store
from tests.storage.builders import judged

with Store.open(sys.argv[1]) as store:
    for trace_id in sys.argv[2:]:
        store.labels.put("d", "judge", [judged(trace_id)], resolved_model="m-" + trace_id[1])
"""

OPENER = """
import sys
from storage import Store
from tests.storage.builders import row, source

with Store.open(sys.argv[1]) as store:
    store.traces.import_file(sys.argv[2], source(), [row("t0")])
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a script beside this process."""
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_what_a_killed_writer_had_acknowledged_is_there_once(path: Path, url: str) -> None:
    names = [f"t{number:03}" for number in range(400)]
    with Store.open(url) as store:
        fill(store, *names)
    chance = random.Random(7)
    paid: list[str] = []
    labelled: list[str] = []
    kills = 0
    while len(labelled) < len(names) and kills < 8:
        writer = start(WRITER, url)
        assert writer.stdout is not None
        with writer.stdout as lines:
            for number, line in enumerate(lines):
                kind, trace_id = line.split()
                (paid if kind == "paid" else labelled).append(trace_id)
                if number == 0:
                    last = chance.randint(1, 60)
                if number == last:
                    writer.kill()
                    kills += 1
            writer.wait(timeout=60)
        with Store.open(url, create=False) as store:
            stored = store.labels.load("d", "judge")
            assert set(labelled) <= set(stored), "an acknowledged label is lost"
            assert all(label == judged(name) for name, label in stored.items())
            for name in stored:
                assert len(store.labels.continuations("d", "judge", name)) == 3, (
                    "a label came in half"
                )
            assert all(store.replies.get(name) for name in paid)
            totals = store.replies.totals()
            assert totals.usd == totals.sent * 0.5
            assert totals.sent <= len(paid) + kills, "only what was in flight may be unreported"
            [summary] = store.labels.labelers("d")
            assert summary.traces == len(stored)
    assert kills == 8
    assert max(Counter(paid).values()) == 1, "a recorded answer was bought twice"
    assert max(Counter(labelled).values()) == 1
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.slow
def test_writers_in_several_processes_wait_for_each_other(url: str) -> None:
    names = [f"t{number:03}" for number in range(240)]
    with Store.open(url) as store:
        fill(store, *names)
    writers = [start(SHARE, url, *names[part::3]) for part in range(3)]
    # The fourth writes the same labels as the third: they are stored once.
    writers.append(start(SHARE, url, *names[2::3]))
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0] * 4
    with Store.open(url) as store:
        assert store.labels.unlabeled_trace_ids("d", JUDGE.name) == []
        assert store.labels.labelers("d")[0].traces == 240
        assert store.labels.labeler("d", JUDGE.name).resolved_model == "m-0, m-1, m-2"


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once_make_one(url: str) -> None:
    openers = [start(OPENER, url, f"d{number}") for number in range(4)]
    for opener in openers:
        opener.communicate(timeout=120)
    assert [opener.returncode for opener in openers] == [0] * 4
    with Store.open(url, create=False) as store:
        assert sorted(store.traces.datasets()) == ["d0", "d1", "d2", "d3"]


def test_a_reader_does_not_wait_for_a_writer(url: str) -> None:
    with Store.open(url) as writer, Store.open(url) as reader:
        fill(writer)
        with writer.transaction():
            writer.labels.put("d", "judge", [judged("t0")])
            assert reader.labels.load("d", "judge") == {}
            with Store.open(url, create=False) as late:
                assert ids(late) == ["t0", "t1", "t2"]
        assert list(reader.labels.load("d", "judge")) == ["t0"]
