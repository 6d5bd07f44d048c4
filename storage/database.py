"""The database: opening it, and connections with transactions.

Every connection is in WAL with foreign keys on, and every write is under BEGIN IMMEDIATE. A
deferred transaction that reads and then writes fails at once with "database is locked" when another
process writes, whatever the timeout; one that takes the write lock first waits its turn. WAL with
synchronous=NORMAL survives kill -9 without losing a commit; a power cut may lose the last ones.

A file is first inspected through a read-only connection, so that a file of another program is
refused before a byte of it changes.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool, StaticPool

from storage import migrations
from traces import InputError, StoreError

BUSY_TIMEOUT_S = 30.0
"""How long a write waits for another process, and for another thread of this one."""

APPLICATION_ID = 0x53544744
""" "STGD" in the header of our files (https://www.sqlite.org/pragma.html#pragma_application_id)."""

SPARE_BYTES = 16 * 1024**2
"""Free space below which no call is paid for: its reply might find no room."""

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
    """The error for the user; None if the fault is a defect of this program.

    Decided by the primary result code (https://www.sqlite.org/rescode.html); an extended code such
    as SQLITE_IOERR_WRITE begins with its primary one.
    """
    name = getattr(fault, "sqlite_errorname", None) or ""
    for primary, (what, remedy) in _FAULTS.items():
        if name == primary or name.startswith(f"{primary}_"):
            return StoreError(f"{what} ({fault})", where=where, remedy=remedy)
    return None


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run a block and turn SQLite's refusals into StoreError; other errors pass unchanged."""
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
    """SQLite's faults in the history of an exception, last one first.

    On a full disk SQLite rolls the whole transaction back by itself; rolling back a savepoint then
    fails too ("no such savepoint"), and the fault that matters is the one before.
    """
    current: BaseException | None = raised
    while current is not None:
        fault = current.orig if isinstance(current, DBAPIError) else current
        if isinstance(fault, sqlite3.Error):
            yield fault
        current = current.__context__


class Connections:
    """The database as `read()` and `write()` blocks; safe to share between threads.

    Within a thread, a block inside a `write()` block joins its transaction; an inner `write()`
    block is a savepoint, so that a caller who catches its error keeps the rest.
    """

    def __init__(self, url: URL, *, timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.where = url.database or ":memory:"
        """The file, for error messages."""
        self._timeout_s = timeout_s
        self._memory = url.database in (None, "", ":memory:")
        # Absolute, so that a program may change its working directory.
        self._path = "" if self._memory else os.path.abspath(self.where)
        self._engine = create_engine(
            url if self._memory else url.set(database=self._path),
            poolclass=StaticPool if self._memory else QueuePool,
            connect_args={"check_same_thread": False, "timeout": timeout_s},
            json_serializer=_dump_json,
        )
        event.listen(self._engine, "connect", self._prepare)
        event.listen(self._engine, "begin", _begin)
        self._write_lock = threading.RLock()
        self._thread = threading.local()
        self._file: tuple[int, int] | None = None

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
        """Whether a query with one placeholder finds a row, as `read` would see it.

        For lookups before every model call: takes a tenth of the time of `read` and an expression.

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
                    self._refuse_other_file()
            finally:
                self._thread.connection = None

    def refuse_full_disk(self) -> None:
        """Refuse a disk without room for what calls in flight may bring.

        Raises:
            StoreError: it has less than `SPARE_BYTES`.
        """
        if self._memory:
            return
        try:
            free = shutil.disk_usage(Path(self._path).parent).free
        except OSError:
            return  # the write that follows says what is wrong
        if free < SPARE_BYTES:
            raise StoreError(
                f"The disk is almost full: {free / 1e6:.1f} MB are free.",
                where=self.where,
                remedy="free some space and run the command again: what was finished is kept",
            )

    def _refuse_other_file(self) -> None:
        """Refuse to go on if the file was replaced or removed; SQLite would use the old one."""
        if self._memory:
            return
        try:
            status = os.stat(self._path)
        except OSError:
            found = None
        else:
            found = (status.st_dev, status.st_ino)
        if self._file is None:
            self._file = found
        if found is None or found != self._file:
            raise StoreError(
                "The database file was replaced or removed while this command was using it."
                " Nothing more is stored.",
                where=self.where,
                remedy="put the file back if you have it, and run the command again",
            )

    def close(self) -> None:
        """Release all connections; the last one merges the write-ahead log into the file."""
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
        # We begin transactions ourselves: the driver would begin deferred ones.
        raw.isolation_level = None
        with translated(self.where), closing(raw.cursor()) as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(self._timeout_s * 1000)}")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
        self._refuse_other_file()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("stepgold_begin", "BEGIN"))


_ENCODE = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def _dump_json(value: Any) -> str:
    """Strict JSON text; characters that UTF-8 cannot hold are escaped, nothing is dropped."""
    text = _ENCODE(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text


def database_url(path: Path) -> str:
    """The URL of a database file; any character may occur in the path."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def open_connections(url: str, *, create: bool) -> Connections:
    """Open the database at `url`; create and upgrade it as needed.

    Raises:
        InputError: the URL is not one of a SQLite database.
        StoreError: there is none and `create` is False; it is not writable; it belongs to another
            program; its schema is newer than this program or too old.
    """
    parsed = _parse(url)
    path = None if parsed.database in (None, "", ":memory:") else Path(str(parsed.database))
    revision = None if path is None else _look(path, create=create)
    connections = Connections(parsed)
    try:
        if revision != migrations.HEAD:
            with connections.write() as connection:
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                migrations.prepare(connection)
        elif path is not None:
            with connections.read() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM datasets")
    except BaseException:
        connections.close()
        raise
    return connections


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InputError(
            "The value of --db is not a database URL.",
            remedy="write it as sqlite:///DIR/stepgold.db",
        ) from None
    if parsed.get_backend_name() != "sqlite" or parsed.query or parsed.host:
        raise InputError(
            f"The database {parsed.render_as_string(hide_password=True)!r} cannot be used:"
            " only plain SQLite files are supported.",
            remedy="write it as sqlite:///DIR/stepgold.db",
        )
    return parsed


def _look(path: Path, *, create: bool) -> str | None:
    """The revision of the file; None if it has no schema yet."""
    where = str(path)
    try:
        size = _check_place(path)
    except OSError as fault:
        raise StoreError(
            f"The database cannot be opened: {fault.strerror}.",
            where=where,
            remedy="name another file with --db, or another directory with --workspace",
        ) from fault
    revision = None if not size else _read_revision(path)
    if revision is None and not create:
        raise StoreError(
            "There is no database here.",
            where=where,
            remedy="create one with `stepgold import`, or name its directory with --workspace",
        )
    return revision


def _check_place(path: Path) -> int | None:
    """Size of the file, None if there is none; raises OSError or StoreError if it is unusable."""
    where = str(path)
    folder = path.parent
    if path.is_dir():
        raise StoreError(
            "There is a directory where the database should be.",
            where=where,
            remedy="name a file with --db, or use --workspace for a directory",
        )
    if not folder.is_dir():
        raise StoreError(
            "The directory of the database does not exist.",
            where=str(folder),
            remedy="create it, or name another one with --workspace",
        )
    size = path.stat().st_size if path.exists() else None
    # Do not try to open the file: closing it would drop the locks of another Store in this process.
    for place in (folder,) if size is None else (folder, path):
        if not _writable(place):
            raise StoreError(
                f"The {'directory' if place is folder else 'file'} of the database is read-only.",
                where=str(place),
                remedy="give yourself write access, or name another directory with --workspace",
            )
    return size


def _writable(place: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(place, os.W_OK, effective_ids=effective)


def _read_revision(path: Path) -> str | None:
    where = str(path)
    uri = f"file:{quote(str(path.resolve()))}?mode=ro"
    with translated(where), closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as raw:
        application = raw.execute("PRAGMA application_id").fetchone()[0]
        tables = raw.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables and application in (0, APPLICATION_ID):
            return None
        if application != APPLICATION_ID:
            raise StoreError(
                "The file is a SQLite database of another program.",
                where=where,
                remedy="name another file with --db, or another directory with --workspace",
            )
        named = raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = named and raw.execute("SELECT version_num FROM alembic_version").fetchone()
    if not row:
        raise StoreError(
            "The database is damaged: the revision of its schema is missing.",
            where=where,
            remedy="restore a copy, or name another directory with --workspace",
        )
    revision = str(row[0])
    if revision in migrations.TOO_OLD:
        raise StoreError(
            f"The database was written by an unreleased version of StepGold (schema {revision!r}).",
            where=where,
            remedy="import the files again into another --workspace",
        )
    if revision not in migrations.REVISIONS:
        raise StoreError(
            f"The database was written by a newer StepGold (schema {revision!r};"
            f" this one knows up to {migrations.HEAD!r}).",
            where=where,
            remedy="update StepGold, or name another directory with --workspace",
        )
    return revision
