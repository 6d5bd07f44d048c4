"""Connections: every one in WAL with foreign keys on, every write under BEGIN IMMEDIATE.

A deferred transaction that reads and then writes fails at once with "database is locked" when another
process writes, whatever the timeout; one that takes the write lock first waits its turn. WAL with
synchronous=NORMAL survives kill -9 without losing a commit; a power cut may take the last ones.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool, StaticPool

from storage.faults import translated
from traces.errors import StoreError

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
