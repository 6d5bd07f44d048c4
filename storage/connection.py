"""Connections: every one in WAL with foreign keys on, every write under BEGIN IMMEDIATE.

A deferred transaction that reads and then writes fails at once with "database is locked" when another
process writes, whatever the timeout; one that takes the write lock first waits its turn. WAL with
synchronous=NORMAL survives kill -9 without losing a commit; a power cut may take the last ones.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import URL, ColumnElement, Connection, Table, create_engine, delete, event, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool, StaticPool

from traces import StoreError

_FAULTS = {
    "SQLITE_FULL": (
        "The disk is full: the database could not be written.",
        "free some space and run the command again: what was finished before is kept",
    ),
    "SQLITE_READONLY": (
        "The database is read-only.",
        "give yourself write access to the file and its directory, or name another one with --db",
    ),
    "SQLITE_CANTOPEN": (
        "The database cannot be opened.",
        "check that the directory exists and that you may write there, or use --workspace",
    ),
    "SQLITE_PERM": (
        "The database may not be accessed.",
        "give yourself write access to the file and its directory, or name another one with --db",
    ),
    "SQLITE_BUSY": (
        "The database is in use: another process has been writing to it for too long.",
        "wait until the other stepgold command has ended, then run this one again",
    ),
    "SQLITE_LOCKED": (
        "The database is in use by another part of this program.",
        "run the command again",
    ),
    "SQLITE_NOTADB": (
        "The file is not a SQLite database.",
        "name another file with --db, or another directory with --workspace",
    ),
    "SQLITE_CORRUPT": (
        "The database is damaged.",
        "restore a copy; `sqlite3 FILE .recover` may save a part of it",
    ),
    "SQLITE_IOERR": (
        "The operating system reported an error while the database was read or written.",
        "check the disk and its free space, then run the command again",
    ),
}


def store_error(fault: sqlite3.Error, where: str) -> StoreError | None:
    """The error for a person; None if the fault is not the world's but a defect of ours.

    Goes by the primary result code (https://www.sqlite.org/rescode.html); an extended code such as
    SQLITE_IOERR_WRITE begins with its primary one.
    """
    name = getattr(fault, "sqlite_errorname", None) or ""
    for primary, (what, remedy) in _FAULTS.items():
        if name == primary or name.startswith(f"{primary}_"):
            return StoreError(f"{what} ({fault})", where=where, remedy=remedy)
    return None


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run a block; SQLite's refusals come out as StoreError, everything else as it is."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as raised:
        error = next(
            (found for fault in _chain(raised) if (found := store_error(fault, where))), None
        )
        if error is None:
            raise
        raise error from raised


def _chain(raised: BaseException) -> Iterator[sqlite3.Error]:
    """SQLite's faults behind an exception, last one first.

    On a full disk SQLite takes the whole transaction back by itself; rolling back a savepoint then
    fails in its turn ("no such savepoint"), and the fault that matters is the one before.
    """
    current: BaseException | None = raised
    while current is not None:
        fault = current.orig if isinstance(current, DBAPIError) else current
        if isinstance(fault, sqlite3.Error):
            yield fault
        current = current.__context__


# --- Connections: every one in WAL with foreign keys on, every write under BEGIN IMMEDIATE


BUSY_TIMEOUT_S = 30.0
"""How long a write waits for another process, and for another thread of this one."""


class Connections:
    """The database as `read()` and `write()` blocks; safe to share between threads.

    Within a thread, a block inside a `write()` block joins its transaction; an inner `write()` block
    is a savepoint, so that a caller who catches its error keeps the rest.
    """

    def __init__(self, url: URL, *, timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.where = url.database or ":memory:"
        """The file, for error messages."""
        self._timeout_s = timeout_s
        self._memory = url.database in (None, "", ":memory:")
        self._engine = create_engine(
            url,
            poolclass=StaticPool if self._memory else QueuePool,
            connect_args={"check_same_thread": False, "timeout": timeout_s},
            json_serializer=_dump_json,
        )
        event.listen(self._engine, "connect", self._prepare)
        event.listen(self._engine, "begin", _begin)
        self._write_lock = threading.RLock()
        self._thread = threading.local()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view of the database; inside a `write()` block of this thread, that block's.

        Raises:
            StoreError: the database cannot be read.
        """
        current: Connection | None = getattr(self._thread, "connection", None)
        if current is not None:
            with translated(self.where):
                yield current
        elif self._memory:
            with self._locked(), self._connected("BEGIN") as connection:
                yield connection
        else:
            with self._connected("BEGIN") as connection:
                yield connection

    def finds(self, query: str, value: str) -> bool:
        """Whether a query with one place for a value finds a row, as `read` would see it.

        For what is asked at every call: a tenth of what `read` and an expression take.

        Raises:
            StoreError: the database cannot be read.
        """
        if self._memory or getattr(self._thread, "connection", None) is not None:
            with self.read() as connection:
                return connection.exec_driver_sql(query, (value,)).first() is not None
        with (
            translated(self.where),
            closing(self._engine.raw_connection()) as raw,
            closing(raw.cursor()) as cursor,
        ):
            cursor.execute(query, (value,))
            return cursor.fetchone() is not None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back if an error leaves it.

        Raises:
            StoreError: the database cannot be written, or is busy for longer than the timeout.
        """
        current: Connection | None = getattr(self._thread, "connection", None)
        if current is not None:
            with translated(self.where), current.begin_nested():
                yield current
            return
        with self._locked(), self._connected("BEGIN IMMEDIATE") as connection:
            self._thread.connection = connection
            try:
                with connection.begin():
                    yield connection
            finally:
                self._thread.connection = None

    def close(self) -> None:
        """Release all connections; the last one out folds the write-ahead log into the file."""
        self._engine.dispose()

    @contextmanager
    def _connected(self, begin: str) -> Iterator[Connection]:
        with translated(self.where), self._engine.connect() as connection:
            yield connection.execution_options(stepgold_begin=begin)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._write_lock.acquire(timeout=self._timeout_s):
            raise StoreError(
                "The database is in use: another thread has been writing for too long.",
                where=self.where,
                remedy="run the command again",
            )
        try:
            yield
        finally:
            self._write_lock.release()

    def _prepare(self, raw: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        # Transactions are ours to begin: the driver would begin deferred ones behind our back.
        raw.isolation_level = None
        cursor = raw.cursor()
        try:
            with translated(self.where):
                cursor.execute(f"PRAGMA busy_timeout = {int(self._timeout_s * 1000)}")
                cursor.execute("PRAGMA foreign_keys = ON")
                cursor.execute("PRAGMA journal_mode = WAL")
                cursor.execute("PRAGMA synchronous = NORMAL")
        finally:
            cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("stepgold_begin", "BEGIN"))


def _dump_json(value: Any) -> str:
    """Strict JSON text; characters that UTF-8 cannot carry are escaped, nothing is dropped."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text


# --- Bulk writes through SQLAlchemy Core, in chunks; the only place that knows how dialects


T = TypeVar("T")

CHUNK = 1000
"""Rows per statement."""


def chunks(things: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The things in lists of at most `size`, as they come."""
    iterator = iter(things)
    while chunk := list(islice(iterator, size)):
        yield chunk


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows; a row that is there already is an error."""
    for chunk in chunks(rows):
        connection.execute(insert(table), chunk)


def insert_keyed(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *names: str,
) -> dict[Any, int]:
    """Insert the rows and give their new keys `pk`, by the value (or values) of the columns `names`."""
    keys: dict[Any, int] = {}
    statement = insert(table).returning(table.c.pk, *(table.c[name] for name in names))
    for chunk in chunks(rows):
        for pk, *values in connection.execute(statement, chunk):
            keys[values[0] if len(names) == 1 else tuple(values)] = pk
    return keys


def insert_missing(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *conflict: str
) -> None:
    """Insert the rows, except those whose `conflict` columns are taken: they stay as they are."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing(index_elements=conflict)
    for chunk in chunks(rows):
        connection.execute(statement, chunk)


def delete_where_in(
    connection: Connection,
    table: Table,
    column: ColumnElement[Any],
    values: Iterable[Any],
    *also: ColumnElement[bool],
) -> int:
    """Delete the rows whose `column` is one of `values` and that meet `also`; return how many."""
    return sum(
        connection.execute(delete(table).where(column.in_(chunk), *also)).rowcount
        for chunk in chunks(values)
    )


def now() -> str:
    """This moment in UTC as ISO 8601 text, which every database keeps with its zone."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
