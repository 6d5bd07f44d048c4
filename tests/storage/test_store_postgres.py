"""PostgreSQL: what it refuses, what is never printed, and several writers at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, text

from storage import Claimant, Store, Workload, migrations, shown_url
from tests.loopback.postgres_server import PostgresServer
from tests.storage.builders import JUDGE, fill, ids, judged
from traces.errors import InputError, StoreError
from traces.records import ModelReply, StoredCall, Usage

REPLY = ModelReply("Yes.", "stop", "gemini:m", "m-1", Usage(10, 2, 3, 4), 0.25, None, "{}")
SECRET = "s3cret"


@pytest.mark.slow
def test_a_database_is_made_once_and_opened_again(postgres: PostgresServer) -> None:
    url = postgres.url()
    with pytest.raises(StoreError, match="no StepGold database"):
        Store.open(url, create=False)
    with Store.open(url) as store:
        fill(store)
    with Store.open(url, create=False) as store:
        assert ids(store) == ["t0", "t1", "t2"]


@pytest.mark.slow
def test_a_schema_that_is_not_ours_or_newer_is_refused(postgres: PostgresServer) -> None:
    url = postgres.url()
    with Store.open(url) as store, store._connections.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'z9999'"))
    with pytest.raises(StoreError, match="newer StepGold"):
        Store.open(url)
    with Store.open(foreign := postgres.url()) as store, store._connections.write() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    with pytest.raises(StoreError, match="another program"):
        Store.open(foreign)


@pytest.mark.slow
def test_the_tables_are_those_of_the_migrations(postgres: PostgresServer) -> None:
    with Store.open(postgres.url()) as store, store._connections.read() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == migrations.HEAD


@pytest.mark.parametrize("form", ["postgresql://h/d", "postgresql+psycopg2://h/d", "mysql://h/d"])
def test_another_driver_is_refused(form: str) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        Store.open(form)


def test_a_server_that_is_not_there_is_a_store_error_without_the_password() -> None:
    url = f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/d?connect_timeout=2"
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        Store.open(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error) + repr(error)
        error = error.__cause__ or error.__context__
    assert "me:***@127.0.0.1" in str(caught.value.where)
    assert SECRET not in shown_url(url)
    assert shown_url(f"odd://me:{SECRET}@:x") == "odd://***@:x"


@pytest.mark.slow
def test_a_database_that_does_not_exist_is_named(postgres: PostgresServer) -> None:
    url = f"postgresql+psycopg://postgres@/absent?host={postgres.folder}"
    with pytest.raises(StoreError) as caught:
        Store.open(url)
    assert "absent" in str(caught.value)


@pytest.mark.slow
def test_four_writers_share_a_labeler_and_the_ledger(postgres: PostgresServer) -> None:
    url, names = postgres.url(), [f"t{number:03}" for number in range(120)]
    with Store.open(url) as store:
        fill(store, *names)

    def write(part: int) -> set[str]:
        taken: set[str] = set()
        work, claimant = Workload("d", JUDGE.name), Claimant.here("judge", at=0.0)
        with Store.open(url, create=False) as store:
            for start in range(0, len(names), 10):
                some = names[start : start + 10]
                mine = store.claims.take(claimant, work, some, at=0.0, until=60.0)
                store.replies.put_all([StoredCall(name, "Is it?", REPLY, {}) for name in mine])
                with store.transaction():
                    store.labels.put("d", JUDGE.name, [judged(name) for name in mine])
                taken |= mine
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(write, range(4)))
    assert sorted(name for some in taken for name in some) == names
    with Store.open(url) as store:
        assert store.labels.unlabeled_trace_ids("d", JUDGE.name) == []
        assert store.replies.totals().sent == 120


@pytest.mark.slow
def test_one_of_two_transactions_that_wait_for_each_other_runs_again(
    postgres: PostgresServer,
) -> None:
    """Two writers of the ledger take two rows in opposite order: the server stops one."""
    both, tries = threading.Barrier(2), []
    with Store.open(postgres.url()) as store:
        store.replies.put_all([StoredCall(key, "Is it?", REPLY, {}) for key in "ab"])
        touch = "UPDATE model_calls SET hits = hits + 1 WHERE key = :key"

        def work(keys: str) -> Callable[[Connection], None]:
            def run(connection: Connection) -> None:
                tries.append(keys)
                connection.execute(text(touch), {"key": keys[0]})
                if tries.count(keys) == 1:
                    both.wait(60)
                connection.execute(text(touch), {"key": keys[1]})

            return run

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(store._connections.run, [work("ab"), work("ba")]))
        assert len(tries) > 2
        assert store.replies.totals().cached == 4
