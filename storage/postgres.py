"""PostgreSQL: connections, one writer where order matters, and what the server refuses.

A write takes an advisory lock before it reads, so that nothing it read can change before it
commits: what BEGIN IMMEDIATE is in SQLite. Transactions that do not depend on each other (replies
of models) take the lock together, and one that the server gives up for another is run again.

What differs in SQL is in `rows.py`: inserting many rows, upserts, and new keys. Text that a
PostgreSQL server cannot hold (a NUL, half of a surrogate pair) is refused or escaped before it gets
here, for every database alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
from sqlalchemy import URL, Connection, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from storage import migrations
from storage.columns import dump_json
from storage.database import APPLICATION_ID, Connections, refuse_revision
from storage.tables import METADATA
from traces import InputError, StoreError

LOCK_TIMEOUT_S = 120
"""How long a write waits for those of other processes and machines; to replace a file is one."""

_LOCK = {
    False: f"SELECT pg_advisory_xact_lock({APPLICATION_ID})",
    True: f"SELECT pg_advisory_xact_lock_shared({APPLICATION_ID})",
}
_TRANSIENT = ("40001", "40P01")
"""SQLSTATE of a serialization failure and of a deadlock."""

_SERVER = "check the server, and the host and port of --db; what was finished before is kept"
_LOGIN = "set PGUSER and PGPASSWORD, or write a ~/.pgpass; see `psql` with the same URL"
_FAULTS = {
    "28": ("The database server refused the login.", _LOGIN),
    "3D": ("The server has no database of that name.", "create it with `createdb NAME`"),
    "53100": ("The disk of the database server is full.", "free some space and run it again"),
    "53": ("The database server has no room for more.", _SERVER),
    "55P03": (
        "The database is in use: another process has been writing to it for too long.",
        "wait until the other stepgold command has ended, then run this one again",
    ),
    "25006": ("The database is read-only.", "connect to the primary server"),
    "42501": ("The database may not be accessed.", "GRANT this user the rights on the schema"),
    "57": ("The database server shut down.", _SERVER),
    "08": ("The connection to the database server broke.", _SERVER),
    "58": ("The database server reported an error of its system.", _SERVER),
    "XX": ("The database server reported an internal error.", _SERVER),
}
"""By SQLSTATE or its class (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def _driver_fault(fault: Exception) -> BaseException | None:
    """What the driver raised; rows that are copied do not pass through SQLAlchemy."""
    return fault.orig if isinstance(fault, DBAPIError) else fault


def _store_error(fault: BaseException | None, where: str) -> StoreError | None:
    """The error for the user; None if the fault is a defect of this program, or transient."""
    state = getattr(fault, "sqlstate", None)
    detail = str(fault).strip().splitlines()[:1]
    cause = f" ({detail[0]})" if detail else ""
    if state is None:
        # Before there is a connection, the client itself reports what went wrong.
        if not isinstance(fault, psycopg.OperationalError):
            return None
        login = "password" in cause or "authentication" in cause
        what, remedy = _FAULTS["28" if login else "08"]
        what = what if login else "The database server cannot be reached."
        return StoreError(what + cause, where=where, remedy=remedy)
    for known, (what, remedy) in _FAULTS.items():
        if state.startswith(known):
            return StoreError(what + cause, where=where, remedy=remedy)
    return None


class PostgresConnections(Connections):
    """A PostgreSQL database."""

    def __init__(self, url: URL) -> None:
        engine = create_engine(url, json_serializer=dump_json, pool_pre_ping=True)
        super().__init__(engine, url.render_as_string(hide_password=True))
        event.listen(engine, "connect", _set_timeout)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """See `Connections.translated`."""
        try:
            yield
        except (DBAPIError, psycopg.Error, UnicodeEncodeError) as raised:
            fault = _driver_fault(raised)
            if isinstance(fault, (psycopg.DataError, UnicodeEncodeError)):
                raise InputError(
                    f"PostgreSQL cannot hold this text or number ({fault}).",
                    where=self.where,
                    remedy="correct the name or id",
                ) from raised
            error = _store_error(fault, self.where)
            if error is None:
                raise
            raise error from raised

    def is_transient(self, fault: Exception) -> bool:
        """See `Connections.is_transient`."""
        return getattr(_driver_fault(fault), "sqlstate", None) in _TRANSIENT

    def reading(self) -> AbstractContextManager[Connection]:
        """See `Connections.reading`."""
        return self._connected("REPEATABLE READ")

    @contextmanager
    def writing(self, *, shared: bool) -> Iterator[Connection]:
        """See `Connections.writing`.

        Each statement sees what was committed before it, and nothing is committed by others once
        the lock is held.
        """
        with self._connected("READ COMMITTED") as connection, connection.begin():
            connection.execute(text(_LOCK[shared]))
            yield connection

    def check_writable(self) -> None:
        """See `Connections.check_writable`; the server watches its disk itself."""
        with self.read() as connection:
            if connection.scalar(text("SELECT pg_is_in_recovery()")):
                what, remedy = _FAULTS["25006"]
                raise StoreError(what, where=self.where, remedy=remedy)

    @contextmanager
    def _connected(self, isolation: str) -> Iterator[Connection]:
        readonly = isolation == "REPEATABLE READ"
        with self.pooled(isolation_level=isolation, postgresql_readonly=readonly) as connection:
            yield connection


def _set_timeout(raw: object, _: ConnectionPoolEntry) -> None:
    with raw.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
    raw.commit()  # type: ignore[attr-defined]


def open_postgres(url: URL, *, create: bool) -> Connections:
    """Open the database at `url`; create and upgrade its tables as needed.

    Raises:
        StoreError: see `storage.database.open_connections`.
    """
    connections = PostgresConnections(url)
    try:
        revision = _revision(connections)
        if revision is None and not create:
            raise StoreError(
                "There is no StepGold database here.",
                where=connections.where,
                remedy="create one with `stepgold import`, or name another one with --db",
            )
        if revision != migrations.HEAD:
            with connections.write() as connection:
                migrations.prepare(connection)
    except BaseException:
        connections.close()
        raise
    return connections


def _revision(connections: Connections) -> str | None:
    """The revision of the schema; None if there is none yet."""
    with connections.read() as connection:
        tables = set(inspect(connection).get_table_names())
        ours = tables & METADATA.tables.keys()
        if "alembic_version" not in tables and not ours:
            return None
        revision = None
        if "alembic_version" in tables and ours:
            revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is None:
        raise StoreError(
            "The schema holds tables of another program.",
            where=connections.where,
            remedy="give StepGold a database of its own: `createdb NAME`, then --db .../NAME",
        )
    refuse_revision(revision, connections.where)
    return str(revision)
