"""Opening a database: is there one, is it ours, does it have the right schema?

A file is looked at through a read-only connection first: a file of another program is refused before a
byte of it is changed.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from storage import migrations
from storage.connection import BUSY_TIMEOUT_S, Connections, translated
from traces import InputError, StoreError

APPLICATION_ID = 0x53544744
""" "STGD" in the header of our files (https://www.sqlite.org/pragma.html#pragma_application_id)."""


def open_connections(url: str, *, create: bool) -> Connections:
    """Open the database at `url`, made and migrated as needed.

    Raises:
        InputError: the URL is not one of a SQLite database.
        StoreError: there is none and `create` is False; it cannot be written; it is not ours; it is
            of a newer version.
    """
    parsed = _parse(url)
    path = None if parsed.database in (None, "", ":memory:") else Path(str(parsed.database))
    revision = None if path is None else _look(path, create=create)
    connections = Connections(parsed)
    try:
        if revision != migrations.HEAD:
            with connections.write() as connection:
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                migrations.upgrade(connection)
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
    """The revision of the file; None if the schema is still to be made."""
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
            remedy="make one with `stepgold import`, or name its directory with --workspace",
        )
    return revision


def _check_place(path: Path) -> int | None:
    """Size of the file, None if there is none; raises OSError or StoreError if it cannot be used."""
    where = str(path)
    folder = path.parent
    if path.is_dir():
        raise StoreError(
            "A directory stands where the database should be.",
            where=where,
            remedy="name a file with --db, or use --workspace for a directory",
        )
    if not folder.is_dir():
        raise StoreError(
            "The directory of the database does not exist.",
            where=str(folder),
            remedy="make it, or name another one with --workspace",
        )
    size = path.stat().st_size if path.exists() else None
    # Not by opening the file for a try: closing it would drop the locks of another Store in this process.
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
            "The database is damaged: it does not say which schema it has.",
            where=where,
            remedy="restore a copy, or name another directory with --workspace",
        )
    revision = str(row[0])
    if revision not in migrations.REVISIONS:
        raise StoreError(
            f"The database was written by a newer StepGold (schema {revision!r};"
            f" this one knows up to {migrations.HEAD!r}).",
            where=where,
            remedy="update StepGold, or name another directory with --workspace",
        )
    return revision
