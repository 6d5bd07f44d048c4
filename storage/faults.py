"""What SQLite says when it cannot go on, turned into an error for a person. The only place that does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from traces.errors import StoreError

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
