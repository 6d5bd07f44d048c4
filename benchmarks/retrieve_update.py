"""A corpus of many passages through the real command: its peak memory, adding 1%, kills of updates.

Encoding all of them takes an hour here, so that most vectors are brought: they lie in the journal of
a run that was killed, where `stepgold index` takes them up. What is added is encoded for real.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.retrieve_vectors import Vectors
from retrieval import PassageIndex, load_encoder
from retrieval.index.files import VectorJournal, digest_of
from storage import Store
from traces import Passage, StoredDocument

_A_DOCUMENT = 20


def texts_of(real: Sequence[str], count: int) -> list[str]:
    """`count` different texts: the real ones, again and again with another number at the end."""
    return [f"{real[n % len(real)]} ({n // len(real)})" for n in range(count)]


def add_passages(store: Store, texts: Sequence[str], first: int) -> None:
    """Put passages into the store as documents of twenty."""

    def documents() -> Iterator[tuple[StoredDocument, list[Passage]]]:
        for at in range(0, len(texts), _A_DOCUMENT):
            some = texts[at : at + _A_DOCUMENT]
            whole, spans, start = "\n".join(some), [], 0
            for text in some:
                spans.append((start, start + len(text)))
                start += len(text) + 1
            name = f"d{first + at}"
            passages = [
                Passage("bench", name, n, begin, end, whole[begin:end])
                for n, (begin, end) in enumerate(spans)
            ]
            yield StoredDocument(name, "", whole, str(hash(whole)), "bench"), passages

    store.corpora.add("bench", documents())


def command(workspace: Path) -> list[str]:
    """`stepgold index` in this workspace."""
    return [sys.executable, "-m", "cli", "--workspace", str(workspace), "index", "--json"]


@dataclass(frozen=True)
class Cost:
    """What a run of the command took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds over all its threads: the figure that other work on the machine changes least."""
    peak: int
    """Peak resident bytes."""

    def __str__(self) -> str:
        return f"{self.cpu:.0f} CPU s ({self.wall:.0f} s), peak {self.peak / 2**30:.2f} GiB"


def measured(workspace: Path) -> Cost:
    """What `stepgold index` takes."""
    began = time.perf_counter()
    process = subprocess.Popen(command(workspace), stdout=subprocess.DEVNULL, stderr=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"stepgold index ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - began, cpu, usage.ru_maxrss * 1024)


def prepare(workspace: Path, real: Sequence[str], vectors: Vectors, really: int) -> list[str]:
    """A workspace of as many passages as vectors, all but `really` of them encoded already."""
    workspace.mkdir(parents=True, exist_ok=True)
    texts = texts_of(real, len(vectors))
    with Store.open(f"sqlite:///{workspace / 'stepgold.db'}") as store:
        add_passages(store, texts, 0)
    encoder = load_encoder()
    with VectorJournal(workspace / "index", encoder.name, encoder.dimension) as journal:
        for at in range(0, len(texts) - really, 4096):
            some = slice(at, min(at + 4096, len(texts) - really))
            journal.append([digest_of(text) for text in texts[some]], vectors[some])
    return texts


def build_and_add(
    workspace: Path, real: Sequence[str], vectors: Vectors, rate: float, really: int
) -> None:
    """Print peak memory of building, and what adding 1% costs as a share of building.

    Args:
        workspace: made here.
        real: texts to make passages of.
        vectors: as many vectors as passages.
        rate: passages encoded a CPU second.
        really: of how many passages the vectors are not brought.
    """
    texts = prepare(workspace, real, vectors, really)
    count, first = len(texts), measured(workspace)
    rest = max(0.0, first.cpu - really / rate)
    build = count / rate + rest
    print(f"\n- `stepgold index`, {count:,} passages, {really:,} of them encoded: {first}")
    print(
        f"- so building with all encoding, at {rate:.1f} a CPU second: {build:.0f} CPU s,"
        f" of which {rest:.0f} are not encoding"
    )
    more = count // 100
    with Store.open(f"sqlite:///{workspace / 'stepgold.db'}") as store:
        add_passages(store, texts_of(real, count + more)[count:], count)
    added = measured(workspace)
    print(
        f"- adding {more:,} passages, encoding and start of the program in it: {added}"
        f" = {added.cpu / build:.2%} of building"
    )
    print(f"- `stepgold index` again, nothing to do: {measured(workspace)}", flush=True)


def kills(workspace: Path, real: Sequence[str], queries: Vectors, *, times: int) -> None:
    """Kill updates of 1% at random moments and print what the index answered afterwards."""
    folder, kept = workspace / "index", workspace / "kept"
    shutil.copytree(folder, kept)
    encoder = load_encoder().name
    before = _answers(folder, encoder, queries)
    with Store.open(f"sqlite:///{workspace / 'stepgold.db'}") as store:
        count = sum(corpus.passages for corpus in store.corpora.summaries())
        add_passages(store, texts_of(real, count + 100)[count:], count)
    takes = measured(workspace).wall
    after = _answers(folder, encoder, queries)
    seen = {"before": 0, "after": 0, "a mixture": 0}
    for moment in np.random.default_rng(0).uniform(0.1, 1, size=times):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        with subprocess.Popen(
            command(workspace), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                process.wait(timeout=takes * moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        found = _answers(folder, encoder, queries)
        states = {"before": before, "after": after}
        which = [name for name, state in states.items() if found == state]
        seen[which[0] if len(which) == 1 else "a mixture"] += 1
    print(f"- {times} kills -9 of an update of {takes:.0f} s; it answered as {seen}", flush=True)


def _answers(folder: Path, encoder: str, queries: Vectors) -> list[list[int]]:
    index = PassageIndex.load(folder, encoder=encoder, corpus_fingerprint=None)
    return [[index.count], *(ids.tolist() for ids in index.search(queries, 10)[0])]
