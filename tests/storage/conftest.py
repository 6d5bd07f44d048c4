"""A store in a file, and a place for a new one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from storage import Store
from storage.tables import METADATA
from tests.loopback.postgres_server import PostgresServer

SMALL = {
    "datasets",
    "source_files",
    "labelers",
    "corpora",
    "corpus_sources",
    "batch_jobs",
    "claimants",
    "claims",
    "failures",
    "CONSTANT",
    "alembic_version",
    "old_step_labels",
    "old_quotes",
    "old_model_calls",
}
"""Tables that may be read whole: small ones, work in progress, and those of an old schema."""
WHOLE = (
    "SELECT pk FROM documents",  # a migration
    "GROUP BY corpora.name, documents.language",  # the languages of all documents
    "DELETE FROM evidence_",  # after a removal or a replacement only
    "GROUP BY model_calls.model",  # the totals of the ledger, in an index that covers them
    'SELECT model_calls."key" \nFROM model_calls ORDER BY',  # the audit of the ledger
    "GROUP BY trace_labels.labeler_pk",  # how much every labeler has labeled
    "JSON_EXTRACT(trace_labels.meta",  # the traces that lost documents
    "step_labels.marks LIKE",  # the calls of judges that went wrong
    "rejected_rows.imported IS 0",  # all rejected rows
    "documents.name \nFROM documents JOIN corpora",  # the names of all documents
)
"""Statements that are about a whole table."""
_explained: dict[str, list[str]] = {}


def scans(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """What SQLite reads whole to run a statement, by its own account; small tables do not count."""
    cursor = connection.connection.cursor()
    cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    plan = [row[3] for row in cursor.fetchall()]
    cursor.close()
    return [
        step
        for step in plan
        if (found := re.match(r"SCAN (\w+)", step))
        and found[1] not in SMALL
        and "ix_trace_labels_abstained" not in step
    ]


@pytest.fixture(autouse=True)
def plans(request: pytest.FixtureRequest) -> Iterator[None]:
    """No statement that a test runs reads a large table whole, unless the test is marked so."""
    wrong: list[str] = []

    def explain(*call: Any) -> None:
        connection, _, statement, parameters, context, executemany = call
        key = re.sub(r"\?(, \?)+", "?", statement)
        read = re.match(r"\s*(SELECT|UPDATE|DELETE)", statement)
        whole = any(part in statement for part in WHOLE)
        ours = context.compiled is not None  # a test writes its own statements as text
        if connection.dialect.name != "sqlite" or not read or whole or not ours:
            return
        if key not in _explained:
            first = parameters[0] if executemany else parameters
            _explained[key] = scans(connection, statement, first)
        wrong.extend(f"{step}: {statement}" for step in _explained[key])

    event.listen(Engine, "before_cursor_execute", explain)
    yield
    event.remove(Engine, "before_cursor_execute", explain)
    assert wrong == []


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once: applying the migrations takes longer than most tests."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    """A database that the tests of this session empty and use one after another."""
    return postgres.url()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, empty_database: Path, tmp_path: Path) -> Iterator[Store]:
    """An empty store in a database of its own."""
    if request.param == "postgresql":
        with Store.open(request.getfixturevalue("postgres_url")) as opened:
            with opened._connections.write() as connection:
                # Emptying its tables takes a tenth of the time that making a database does.
                names = ", ".join(METADATA.tables)
                connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
            yield opened
        return
    path = tmp_path / "store.db"
    shutil.copy(empty_database, path)
    with Store.open(f"sqlite:///{path}", create=False) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database may be made."""
    return tmp_path / "new" / "stepgold.db"


@pytest.fixture
def url(path: Path) -> str:
    """The URL of that place."""
    path.parent.mkdir()
    return f"sqlite:///{path}"
