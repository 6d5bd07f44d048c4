"""The database as a whole: vacuum, backup, check, and copies that go on where they stopped."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage import Store
from tests.loopback.postgres_server import PostgresServer
from tests.storage.builders import GOLD, evidence, fill, gold, ids, judged, row, source
from traces import Abstention, AbstentionReason, Quote, StepLabel, TraceLabel, Verdict
from traces.errors import InputError, StoreError
from traces.records import Failure, ModelReply, StoredCall, Usage

REPLY = ModelReply("Yes\0", "stop", "gemini:m", None, Usage(10, 2, 3, 4), 0.25, None, "{}")


@pytest.fixture(autouse=True)
def plans() -> None:
    """Everything here is about whole tables."""


def every(tables: Sequence[Any], phase: str) -> Iterable[Any]:
    """Show no progress."""
    return tables


def furnish(store: Store, *, traces: int = 4) -> None:
    """Something in most tables, with characters that databases disagree on."""
    rows = [row(f"t{n}", evidence=(evidence(f"text {n} é"),)) for n in range(traces)]
    store.traces.import_file("d", source(), [*rows, replace(row("x\0"), line=7)])
    fill(store, "a", dataset="e")
    store.labels.declare("d", GOLD)
    store.labels.declare("d", store.labels.labeler("e", "judge"))
    store.labels.put("d", "gold", [gold(f"t{n}", n % 3) for n in range(traces)])
    noted = StepLabel(Verdict.CORRECT, 0.25, reasoning="half \ud83d", quote=Quote("q\0", 1, False))
    silent = StepLabel(abstention=Abstention(AbstentionReason.BLOCKED, "no"))
    label = TraceLabel("t1", (noted, StepLabel(score=0.1), silent), meta={"k": [1.5, "\0"]})
    store.labels.put("d", "judge", [judged("t0"), label])
    store.replies.put(StoredCall("k", "Is it? " * 300, REPLY, {"purpose": "judge"}))


def contents(store: Store) -> list[Any]:
    """What a user sees of it."""
    return [
        store.traces.datasets(),
        list(store.traces.contexts("d")),
        store.labels.load("d", "gold"),
        store.labels.load("d", "judge"),
        store.labels.failures.load(),
        store.traces.rejected_rows(),
        list(store.replies.calls()),
        store.replies.spending(),
    ]


def test_a_sound_database_is_called_sound(store: Store) -> None:
    furnish(store)
    found = store.maintenance.check()
    assert found.damage == ()
    assert found.rows["traces"] == 5
    assert not any(found.orphans.values())


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_damage_and_orphans_are_found(store: Store, tmp_path: Path) -> None:
    furnish(store)
    with closing(sqlite3.connect(tmp_path / "store.db")) as raw:
        raw.execute("INSERT INTO steps VALUES (999, 0, 'x')")
        raw.execute("UPDATE step_labels SET marks = 'cc', labeled = 2 WHERE marks = 'ccc'")
        raw.execute("INSERT INTO evidence_sets (digest) VALUES ('0')")
        raw.commit()
    found = store.maintenance.check()
    assert len(found.damage) == 2
    assert "steps, row" in found.damage[0]
    assert "'t0' do not fit" in found.damage[1]
    assert found.orphans == {"problems": 0, "evidence_sets": 1, "evidence_passages": 0}


def test_vacuum_keeps_everything(store: Store) -> None:
    furnish(store)
    before = contents(store)
    store.maintenance.vacuum()
    assert contents(store) == before
    assert store.maintenance.size() > 0


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_vacuum_gives_space_back(store: Store) -> None:
    fill(store, *(f"t{n}" for n in range(300)))
    store.labels.put("d", "judge", [judged(f"t{n}", reasoning="x" * 2000) for n in range(300)])
    full = store.maintenance.size()
    store.labels.remove_labeler("d", "judge")
    store.maintenance.vacuum()
    assert store.maintenance.size() < full / 4


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_backup_is_made_while_another_one_writes(store: Store, tmp_path: Path) -> None:
    furnish(store)
    before, path = contents(store), tmp_path / "backup.db"
    with store.transaction():
        fill(store, "later", dataset="later")
        with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as other:
            other.maintenance.backup(path)
    with Store.open(f"sqlite:///{path}", create=False) as copy:
        assert contents(copy) == before
    with pytest.raises(InputError, match="exists"):
        store.maintenance.backup(path)
    with pytest.raises(InputError, match="folder"):
        store.maintenance.backup(tmp_path / "absent" / "backup.db")


def test_a_copy_has_the_same_rows_and_goes_on_by_itself(store: Store, url: str) -> None:
    furnish(store, traces=1200)
    with Store.open(url) as target:
        report = {table.name: table for table in store.copy_to(target, watch=every)}
        assert report["traces"].rows == report["traces"].copied == 1201
        assert contents(target) == contents(store)
        again = store.copy_to(target, watch=every)
        assert sum(table.copied for table in again) == 0
        assert [table.sha256 for table in again] == [table.sha256 for table in report.values()]
        fill(target, "new", dataset="new")
        assert ids(target, "new") == ["new"]
        with pytest.raises(StoreError, match="other rows"):
            store.copy_to(target, watch=every)


@pytest.mark.slow
def test_a_server_that_sorts_by_a_language_is_copied_to_and_from(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    first, last = (f"sqlite:///{tmp_path / name}.db" for name in ("first", "last"))
    with Store.open(first) as store:
        store.traces.import_file("d", source(), [row("B"), row("a-1"), row("Z"), row("_")])
        silent = [
            Failure(name, "judge", AbstentionReason.MODEL_ERROR, retryable=True)
            for name in ("B", "a-1", "Z", "_")
        ]
        store.labels.failures.put("d", silent)
        with Store.open(postgres.url(language="en-US")) as middle, Store.open(last) as end:
            store.copy_to(middle, watch=every)
            middle.copy_to(end, watch=every)
            assert set(middle.labels.failures.load()) == set(store.labels.failures.load())
            assert end.labels.failures.load() == store.labels.failures.load()


@pytest.mark.slow
def test_copies_go_both_ways_between_sqlite_and_postgresql(
    store: Store, postgres: PostgresServer, url: str
) -> None:
    furnish(store)
    with Store.open(postgres.url()) as middle, Store.open(url) as last:
        there = store.copy_to(middle, watch=every)
        back = middle.copy_to(last, watch=every)
        assert [table.sha256 for table in there] == [table.sha256 for table in back]
        assert contents(store) == contents(middle) == contents(last)
        fill(middle, "new", dataset="new")
        assert ids(middle, "new") == ["new"]


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_copy_that_was_interrupted_goes_on(store: Store, url: str) -> None:
    furnish(store, traces=2100)

    def interrupted(tables: Sequence[Any], phase: str) -> Iterable[Any]:
        for table in tables:
            if table.name == "trace_labels":
                raise KeyboardInterrupt
            yield table

    with Store.open(url) as target:
        with pytest.raises(KeyboardInterrupt):
            store.copy_to(target, watch=interrupted)
        report = {table.name: table for table in store.copy_to(target, watch=every)}
        assert report["traces"].copied == 0
        assert report["trace_labels"].copied == report["trace_labels"].rows == 2102
        assert contents(target) == contents(store)
