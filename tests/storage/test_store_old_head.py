"""A database at revision m0008, the last one before the baseline, is upgraded with all its rows.

`old_head.sql` was written by the code of that revision.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storage import (
    CallTotals,
    Claimant,
    FileKey,
    KnownFile,
    Store,
    VoteTotals,
    Workload,
    migrations,
)
from storage.database import APPLICATION_ID
from storage.tables import METADATA
from tests.storage.builders import GOLD, JUDGE, STEPS, evidence, gold, source
from traces import Abstention, AbstentionReason, Quote, StepLabel, TraceLabel, Verdict
from traces.labels import FirstError, Vote
from traces.problem import Problem, Trace
from traces.records import (
    BatchRow,
    BatchState,
    Continuation,
    Failure,
    ImportedTrace,
    ModelReply,
    RejectedRow,
    StoredCall,
    Usage,
)

DUMP = Path(__file__).with_name("old_head.sql")
PROBLEM = Problem("p", "How much, é?", ("5 mg", "10 mg"), "B", ("x.png",), {"phi_removed": False})
TRACES = (
    Trace("t0", "p", STEPS, "sub", "gpt", "10 mg", True, {"n": 1.5}),
    Trace("t1", "p", STEPS[:1]),
)
CAME_WITH_ROW = (replace(evidence("Came with the row."), similarity=None),)


@pytest.fixture
def old(path: Path, url: str) -> str:
    """The URL of a database at revision m0008."""
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(DUMP.read_text(encoding="utf-8"))
        raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        raw.commit()
    return url


def schema(path: Path) -> dict[str, str]:
    """Every table and index with the statement that made it."""
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    # A column that was added later is separated in another way than in the original statement.
    return {name: " ".join(sql.replace(" ,", ",").split()) for name, sql in rows}


def revision(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as raw:
        return [row[0] for row in raw.execute("SELECT version_num FROM alembic_version")]


def test_the_upgraded_schema_is_that_of_a_new_database(old: str, path: Path) -> None:
    assert revision(path) == ["m0008"]
    Store.open(old).close()
    assert revision(path) == [migrations.HEAD]
    new = path.with_name("new.db")
    Store.open(f"sqlite:///{new}").close()
    assert revision(new) == [migrations.HEAD]
    assert schema(path) == schema(new)
    tables = {name for name in schema(new) if not name.startswith("ix_")}
    assert tables == {*METADATA.tables, "sqlite_sequence", "alembic_version"}


def test_a_database_at_the_baseline_is_upgraded(old: str, path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = 'b0002'")
        raw.commit()
    with Store.open(old) as store:
        assert store.labels.load("d", "gold") == {"t0": gold("t0", 1), "t1": gold("t1")}
        work, claimant = Workload("d", "judge"), Claimant.here("judge", at=0.0)
        assert store.claims.take(claimant, work, ["t1"], at=0.0, until=60.0) == {"t1"}
    assert revision(path) == [migrations.HEAD]
    new = path.with_name("new.db")
    Store.open(f"sqlite:///{new}").close()
    assert schema(path) == schema(new)


def test_every_revision_has_its_file_in_the_known_order() -> None:
    folder = Path(migrations.__file__).parent / "versions"
    names = {path.name.split("_")[0] for path in folder.glob("*_*.py")} - {""}
    assert names == set(migrations.REVISIONS)
    assert migrations.REVISIONS[-1] == migrations.HEAD


def test_traces_and_their_evidence_come_back(old: str) -> None:
    with Store.open(old) as store:
        t0, t1, sampled = store.traces.contexts("d")
        assert (t0.problem, t0.trace, t1.trace) == (PROBLEM, *TRACES)
        assert t0.evidence == (evidence(),)
        assert t1.evidence == (replace(evidence(), step=0),)
        assert sampled.trace == Trace("p:policy:0", "p", ("Give 10 mg.",))
        assert store.evidence.config("d") == {"retriever": "dense", "k": 1}
        assert store.traces.rejected_rows() == [
            ("d", RejectedRow("a.json", 3, "t2", "The row has no steps.")),
            ("d", RejectedRow("policy", None, "p:policy:1", "The solution is cut.")),
        ]
        store.evidence.declare("d", {"retriever": "hybrid"}, replace=True)
        assert next(store.traces.contexts("d")).evidence == CAME_WITH_ROW


def test_digests_did_not_change(old: str) -> None:
    rows = [
        ImportedTrace(PROBLEM, TRACES[0], ((GOLD, gold("t0", 1)),), CAME_WITH_ROW, 1),
        ImportedTrace(PROBLEM, TRACES[1], ((GOLD, gold("t1")),), (), 2),
    ]
    with Store.open(old) as store:
        outcome = store.traces.import_file("d", source(content="2"), rows, replace=True)
        assert (outcome.done, outcome.unchanged) == (0, 2)
        assert store.labels.unlabeled_trace_ids("d", "judge") == ["t1", "p:policy:0"]
        assert store.traces.sampled.declare("d", "policy", {"n": 2}).problems == {"p"}


def test_labels_come_back(old: str) -> None:
    quote = Quote("5 mg", 1, True, 5, 9, "exact")
    cut = Abstention(AbstentionReason.NO_EVIDENCE, "half \ud83d")
    steps = (
        StepLabel(Verdict.CORRECT, reasoning="fits", quote=quote),
        StepLabel(Verdict.INCORRECT, 0.25),
        StepLabel(abstention=cut),
    )
    meta = {"documents_dropped": 1, "documents": 2, "tokens": 900}
    soft = StepLabel(score=0.5, successes=1, continuations=2, unparsed=0, unfinished=1)
    words = (Verdict.CORRECT, AbstentionReason.NO_EVIDENCE, Verdict.INCORRECT)
    vote = Vote("t0", 0, "gemini:m", "m-001", words, FirstError(False, 2), ("k0",))
    with Store.open(old) as store:
        labels = store.labels
        assert labels.load("d", "gold") == {"t0": gold("t0", 1), "t1": gold("t1")}
        assert labels.load("d", "judge") == {"t0": TraceLabel("t0", steps, meta=meta)}
        assert labels.labeler("d", "judge") == replace(JUDGE, resolved_model="m-001")
        assert labels.load("d", "mc") == {"t1": TraceLabel("t1", (soft,))}
        assert labels.continuations("d", "mc", "t1") == [
            Continuation("t1", 0, 0, "So 10 mg.", "stop", "10", True, 4),
            Continuation("t1", 0, 1, "json: cut\0", "length", None, None, 9),
        ]
        assert labels.votes.load("d", "judge") == {"t0": (vote,)}
        assert labels.votes.totals("d", "judge") == VoteTotals(1, 1, 0)
        [shortened] = labels.shortened()
        assert (shortened.dropped, shortened.kept, shortened.tokens) == (1, 2, 900)
        failure = Failure("t1", "judge", AbstentionReason.MODEL_ERROR, True, "timeout")
        assert labels.failures.load() == [("d", failure)]


def test_corpora_and_replies_come_back(old: str) -> None:
    usage = Usage(10, 2, 3, 4)
    reply = ModelReply(
        "Yes.", "stop", "gemini:m", "m-001", usage, 0.25, "2026-11-01", "{}", cached=True
    )
    with Store.open(old) as store:
        [corpus] = store.corpora.summaries()
        assert (corpus.documents, corpus.passages) == (1, 2)
        assert (corpus.licence, corpus.source) == ("CC-BY-4.0", "https://guides")
        assert "".join(passage.text for _, passage in store.corpora.passages()) == "Give 5 mg/kg."
        assert store.corpora.files.known("guides", "/docs") == {
            "a.jsonl": KnownFile("f" * 64, "r1", ({"line": 3},), 1)
        }
        known = store.corpora.files.documents("guides", ["dosing"])["dosing"]
        assert (known.split, known.file) == ("s1", FileKey("/docs", "a.jsonl"))
        call = StoredCall("k0", "Is it?", reply, {"purpose": "judge"})
        assert list(store.replies.calls()) == [call]
        assert store.replies.totals() == CallTotals(1, 1, 0.25, 0, 0.25)
        assert store.replies.prompt("p" * 64) == "Judge the steps."
        [job] = store.replies.batch_jobs.alive()
        assert (job.state, job.name, job.outstanding) == (BatchState.SUBMITTED, "batches/x", 1)
        assert store.replies.batch_jobs.rows("j1") == {
            "k1": BatchRow("k1", "Is it?", 100, 0.25, {"trace_id": "t1"})
        }
