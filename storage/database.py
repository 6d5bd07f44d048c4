"""The database: opening it, and connections with transactions.

Every connection is in WAL with foreign keys on, and every write is under BEGIN IMMEDIATE. A
deferred transaction that reads and then writes fails at once with "database is locked" when another
process writes, whatever the timeout; one that takes the write lock first waits its turn. WAL with
synchronous=NORMAL survives kill -9 without losing a commit; a power cut may lose the last ones.

A file is first inspected through a read-only connection, so that a file of another program is
refused before a byte of it changes.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote

from sqlalchemy import URL, Column, Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool, StaticPool

from storage import migrations
from storage.columns import dump_json
from traces import InputError, StoreError, uninterrupted

BUSY_TIMEOUT_S = 30.0
"""How long a write waits for another process, and for another thread of this one."""

TRIES = 8
"""How often a transaction is tried that others stand in the way of."""

T = TypeVar("T")

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


class Connections(ABC):
    """The database as `read()` and `write()` blocks; safe to share between threads.

    Within a thread, a block inside a `write()` block joins its transaction; an inner `write()`
    block is a savepoint, so that a caller who catches its error keeps the rest.
    """

    def __init__(self, engine: Engine, where: str) -> None:
        self.where = where
        """The database without a password, for error messages."""
        self.engine = engine
        self._thread = threading.local()

    @abstractmethod
    def translated(self) -> AbstractContextManager[None]:
        """Run a block and turn the database's refusals into StoreError."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """A connection whose transaction sees the database as it was at one moment."""

    @abstractmethod
    def writing(self, *, shared: bool) -> AbstractContextManager[Connection]:
        """A connection in whose transaction nothing that was read can be changed by another one.

        Args:
            shared: whether other `shared` transactions may run at the same time.
        """

    @abstractmethod
    def check_writable(self) -> None:
        """Prove that something could be written.

        Raises:
            StoreError: the database is read-only, or its disk almost full.
        """

    @abstractmethod
    def is_transient(self, fault: Exception) -> bool:
        """Whether the same transaction may succeed if it runs again."""

    @contextmanager
    def pooled(self, **options: Any) -> Iterator[Connection]:
        """A connection of the pool with these execution options.

        The pool has locks: an interrupt while one is taken would leave it taken.
        """
        connection = None
        try:
            with uninterrupted():
                connection = self.engine.connect()
            yield connection.execution_options(**options)
        finally:
            if connection is not None:
                with uninterrupted():
                    connection.close()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view of the database; inside a `write()` block of this thread, that block's.

        Raises:
            StoreError: the database cannot be read.
        """
        current: Connection | None = getattr(self._thread, "connection", None)
        with self.translated():
            if current is not None:
                yield current
            else:
                with self.reading() as connection:
                    yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back if an error leaves it.

        Raises:
            StoreError: the database cannot be written, or is busy for longer than the timeout.
        """
        with self.translated(), self._transaction(shared=False) as connection:
            yield connection

    @contextmanager
    def _transaction(self, *, shared: bool) -> Iterator[Connection]:
        current: Connection | None = getattr(self._thread, "connection", None)
        if current is not None:
            with current.begin_nested():
                yield current
            return
        with self.writing(shared=shared) as connection:
            self._thread.connection = connection
            try:
                yield connection
            finally:
                self._thread.connection = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns from one transaction that may run beside others of this kind.

        `work` may run several times: of two transactions that wait for each other, a database with
        many writers gives one up. It must not depend on what other such transactions write.

        Raises:
            StoreError: as in `write`.
        """
        joined = getattr(self._thread, "connection", None) is not None
        left = 1 if joined else TRIES
        while True:
            left -= 1
            try:
                with self.translated(), self._transaction(shared=True) as connection:
                    return work(connection)
            except Exception as fault:
                if not left or not self.is_transient(fault):
                    raise

    def finds(self, column: Column[Any], value: str) -> bool:
        """Whether a row has this value in a column, as `read` would see it."""
        with self.read() as connection:
            return connection.scalar(select(1).where(column == value)) is not None

    def close(self) -> None:
        """Release all connections."""
        self.engine.dispose()


class SqliteConnections(Connections):
    """A SQLite database: a file, or in memory."""

    def __init__(
        self, url: URL, *, timeout_s: float = BUSY_TIMEOUT_S, read_only: bool = False
    ) -> None:
        where = url.database or ":memory:"
        self._timeout_s = timeout_s
        self._memory = url.database in (None, "", ":memory:")
        # Absolute, so that a program may change its working directory.
        self._path = "" if self._memory else os.path.abspath(where)
        self._read_only = read_only
        if not self._memory:
            url = url.set(database=self._path)
        if read_only:
            location, _, query = _read_only_uri(self._path).partition("?")
            url = url.set(database=location, query=dict(parse_qsl(query)) | {"uri": "true"})
        engine = create_engine(
            url,
            poolclass=StaticPool if self._memory else QueuePool,
            connect_args={"check_same_thread": False, "timeout": timeout_s},
            json_serializer=dump_json,
        )
        super().__init__(engine, where)
        event.listen(engine, "connect", self._prepare)
        event.listen(engine, "begin", _begin)
        self._write_lock = threading.RLock()
        self._file: tuple[int, int] | None = None

    def translated(self) -> AbstractContextManager[None]:
        """See `Connections.translated`."""
        return translated(self.where)

    def is_transient(self, fault: Exception) -> bool:
        """Never: a writer that takes the lock first waits for its turn."""
        return False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """See `Connections.reading`."""
        if self._memory:
            with self._locked(), self._connected("BEGIN") as connection:
                yield connection
        else:
            with self._connected("BEGIN") as connection:
                yield connection

    @contextmanager
    def writing(self, *, shared: bool) -> Iterator[Connection]:
        """See `Connections.writing`; there is one writer at a time, `shared` or not."""
        with (
            self._locked(),
            self._connected("BEGIN IMMEDIATE") as connection,
            connection.begin(),
        ):
            yield connection
            self._refuse_other_file()

    def finds(self, column: Column[Any], value: str) -> bool:
        """See `Connections.finds`; takes a tenth of its time, before every model call."""
        if self._memory or getattr(self._thread, "connection", None) is not None:
            return super().finds(column, value)
        query = f"SELECT 1 FROM {column.table.name} WHERE {column.name} = ?"
        with (
            uninterrupted(),
            translated(self.where),
            closing(self.engine.raw_connection()) as raw,
            closing(raw.cursor()) as cursor,
        ):
            cursor.execute(query, (value,))
            return cursor.fetchone() is not None

    def check_writable(self) -> None:
        """See `Connections.check_writable`."""
        self._refuse_full_disk()
        with self.write() as connection:
            # A commit that changes nothing still has to reach the disk.
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")

    def _refuse_full_disk(self) -> None:
        """Refuse a disk without room for what calls in flight may bring."""
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

    @contextmanager
    def _connected(self, begin: str) -> Iterator[Connection]:
        with self.pooled(stepgold_begin=begin) as connection:
            yield connection

    @contextmanager
    def _locked(self) -> Iterator[None]:
        taken = False
        try:
            with uninterrupted():
                taken = self._write_lock.acquire(timeout=self._timeout_s)
            if not taken:
                raise StoreError(
                    "The database is in use: another thread has been writing for too long.",
                    where=self.where,
                    remedy="run the command again",
                )
            yield
        finally:
            if taken:
                self._write_lock.release()

    def _prepare(self, raw: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        # We begin transactions ourselves: the driver would begin deferred ones.
        raw.isolation_level = None
        with translated(self.where), closing(raw.cursor()) as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(self._timeout_s * 1000)}")
            cursor.execute("PRAGMA foreign_keys = ON")
            if not self._read_only:
                cursor.execute("PRAGMA journal_mode = WAL")
                cursor.execute("PRAGMA synchronous = NORMAL")
        self._refuse_other_file()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("stepgold_begin", "BEGIN"))


def database_url(path: Path) -> str:
    """The URL of a database file; any character may occur in the path."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def open_connections(url: str, *, create: bool) -> Connections:
    """Open the database at `url`; create and upgrade it as needed.

    Raises:
        InputError: the URL is not one of a SQLite or PostgreSQL database.
        StoreError: there is none and `create` is False; it is not writable; it belongs to another
            program; its schema is newer than this program or too old.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "postgresql":
        try:
            from storage.postgres import open_postgres
        except ModuleNotFoundError as fault:
            raise InputError(
                f"PostgreSQL needs the package {fault.name}.",
                where=parsed.render_as_string(hide_password=True),
                remedy="pip install 'stepgold[postgres]'",
            ) from fault
        return open_postgres(parsed, create=create)
    path = None if parsed.database in (None, "", ":memory:") else Path(str(parsed.database))
    revision = None if path is None else _look(path, create=create)
    read_only = path is not None and revision is not None and _read_only_place(path) is not None
    if read_only and revision != migrations.HEAD:
        _check_writable(path or Path())  # it would have to be upgraded
    connections = SqliteConnections(parsed, read_only=read_only)
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
    except (ArgumentError, ValueError):
        raise InputError(
            "The value of --db is not a database URL.",
            remedy="write it as sqlite:///DIR/stepgold.db",
        ) from None
    if parsed.drivername == "postgresql+psycopg":
        return parsed
    if parsed.get_backend_name() != "sqlite" or parsed.query or parsed.host:
        raise InputError(
            f"The database {parsed.render_as_string(hide_password=True)!r} cannot be used:"
            " only plain SQLite files and PostgreSQL are supported.",
            remedy="write it as sqlite:///DIR/stepgold.db or postgresql+psycopg://HOST/NAME",
        )
    return parsed


def shown_url(url: str) -> str:
    """The URL of a database as it may be printed: without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return re.sub(r"://[^/@]*@", "://***@", url)


def _look(path: Path, *, create: bool) -> str | None:
    """The revision of the file; None if it has no schema yet."""
    where = str(path)
    try:
        size = _check_place(path, create=create)
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


def _check_place(path: Path, *, create: bool) -> int | None:
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
    if create or not size:  # else it can be read, and the first write is refused
        _check_writable(path)
    return size


def _check_writable(path: Path) -> None:
    """Raise StoreError if the file or its directory is read-only."""
    if (place := _read_only_place(path)) is not None:
        raise StoreError(
            f"The {'file' if place == path else 'directory'} of the database is read-only.",
            where=str(place),
            remedy="give yourself write access, or name another directory with --workspace",
        )


def _read_only_place(path: Path) -> Path | None:
    """The directory or file of a database that cannot be written; None if both can."""
    # Do not try to open the file: closing it would drop the locks of another Store in this process.
    places = (path.parent, path) if path.exists() else (path.parent,)
    return next((place for place in places if not _writable(place)), None)


def _read_only_uri(path: str) -> str:
    """The URI that reads a database without writing anything beside it.

    SQLite writes a file beside a database in WAL mode even to read it, unless that is immutable:
    in a directory that nobody here may write, without a log of another process, it is.
    """
    log = Path(f"{path}-wal")
    may_change = _writable(Path(path).parent) or (log.exists() and log.stat().st_size)
    return f"file:{quote(path)}?mode=ro" + ("" if may_change else "&immutable=1")


def _writable(place: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(place, os.W_OK, effective_ids=effective)


def _read_revision(path: Path) -> str | None:
    where = str(path)
    uri = _read_only_uri(str(path.resolve()))
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
    refuse_revision(revision, where)
    return revision


def refuse_revision(revision: str, where: str) -> None:
    """Refuse a schema that this program cannot open.

    Raises:
        StoreError: it is too old or newer.
    """
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
