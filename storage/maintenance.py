"""The database as a whole: compacted, backed up, checked, and copied into another one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Row,
    Table,
    exists,
    func,
    literal,
    select,
    text,
    tuple_,
)

from storage.columns import dump_json
from storage.database import Connections
from storage.review_tables import REVIEW_LEASES
from storage.rows import CHUNK, insert_tuples
from storage.steps import unpack_steps
from storage.tables import (
    EVIDENCE,
    EVIDENCE_PASSAGES,
    EVIDENCE_SETS,
    METADATA,
    PROBLEMS,
    STEP_LABELS,
    TRACE_EVIDENCE,
    TRACE_LABELS,
    TRACES,
)
from traces import InputError, StoreError

_PASSING = ("claims", "claimants", REVIEW_LEASES.name)
"""What running commands and experts hold; it is not copied."""
TABLES = [table for table in METADATA.sorted_tables if table.name not in _PASSING]
"""The tables of a copy, those that others point at first."""
_SHOWN = 20

Watch = Callable[[Sequence[Table], str], Iterable[Table]]
"""Passes tables on, given the name of the phase."""


@dataclass(frozen=True, slots=True)
class TableCopy:
    """One table of a copy."""

    name: str
    rows: int
    """Rows in both databases."""
    copied: int
    """Rows that this call copied; an earlier call copied the others."""
    sha256: str
    """Hash of the rows in the order of their keys, the same in both databases."""


@dataclass(frozen=True, slots=True)
class DatabaseCheck:
    """What a check found."""

    rows: dict[str, int]
    """Rows by table."""
    damage: tuple[str, ...]
    """What the database says is wrong, and labels that cannot be read; at most 20 of each kind."""
    orphans: dict[str, int]
    """Rows that nothing refers to any more, by table; they cost space only."""


class Maintenance:
    """The database as a whole; see the functions of this module for copies."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @property
    def where(self) -> str:
        """The database without a password."""
        return self._connections.where

    def size(self) -> int:
        """Bytes that the database takes on its disk."""
        with self._connections.read() as connection:
            if _is_postgres(connection):
                size = text("SELECT pg_database_size(current_database())")
                return int(connection.execute(size).scalar_one())
            pages, each = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("page_count", "page_size")
            )
        return int(pages or 0) * int(each or 0)

    def vacuum(self) -> None:
        """Give free space back, and renew what the planner of queries knows."""
        engine = self._connections.engine
        with self._connections.translated(), closing(engine.raw_connection()) as raw:
            driver: Any = raw.driver_connection
            if engine.dialect.name == "postgresql":
                driver.rollback()
                driver.autocommit = True
                try:
                    driver.execute("VACUUM (ANALYZE)")
                finally:
                    driver.autocommit = False
            else:
                for statement in ("VACUUM", "ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"):
                    driver.execute(statement)

    def backup(self, path: Path) -> None:
        """Copy a SQLite database to a new file while others go on using it.

        Raises:
            InputError: the file exists, or the database is not SQLite.
        """
        engine = self._connections.engine
        if engine.dialect.name != "sqlite":
            raise InputError(
                "Only a SQLite database is backed up to a file in one piece.",
                where=self.where,
                remedy="copy it with `stepgold db copy`, or use pg_dump",
            )
        _refuse_existing(path)
        part = path.with_name(f"{path.name}.part")
        part.unlink(missing_ok=True)
        with self._connections.translated(), closing(engine.raw_connection()) as raw:
            driver: Any = raw.driver_connection
            with closing(sqlite3.connect(part)) as target:
                driver.backup(target, pages=4096)
                target.execute("PRAGMA journal_mode = DELETE")
        part.replace(path)

    def check(self) -> DatabaseCheck:
        """Ask the database for damage, decode all labels of steps, and count rows and orphans."""
        with self._connections.read() as connection:
            count = select(func.count())
            rows = {
                table.name: int(connection.scalar(count.select_from(table)) or 0)
                for table in METADATA.sorted_tables
            }
            damage = [*_server_damage(connection), *_broken_labels(connection)]
            orphans = {
                name: int(connection.scalar(query) or 0) for name, query in _orphans().items()
            }
        return DatabaseCheck(rows, tuple(damage), orphans)


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise InputError(
            f"The file '{path}' exists.", where=str(path), remedy="name a new file, or remove it"
        )
    if not path.parent.is_dir():
        raise InputError(
            "The folder of the backup does not exist.",
            where=str(path.parent),
            remedy="create it, or name another file",
        )


def _server_damage(connection: Connection) -> list[str]:
    if _is_postgres(connection):
        return []  # its checksums and foreign keys are always on
    found = connection.exec_driver_sql(f"PRAGMA integrity_check({_SHOWN})").scalars().all()
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_SHOWN)
    return [line for line in found if line != "ok"] + [
        f"{table}, row {row}: refers to a row of {parent} that does not exist"
        for table, row, parent, _ in broken
    ]


def _broken_labels(connection: Connection) -> list[str]:
    query = (
        select(TRACES.c.id, TRACES.c.n_steps, STEP_LABELS)
        .join(TRACE_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
    )
    found: list[str] = []
    for row in connection.execute(query.execution_options(yield_per=CHUNK)):
        labels = _decoded(row)
        fits = labels is not None and len(labels) == row.n_steps
        if not fits or row.labeled != sum(each.abstention is None for each in labels or ()):
            found.append(f"the labels of the steps of trace {row.id!r} do not fit it")
            if len(found) == _SHOWN:
                break
    return found


def _decoded(row: Row[Any]) -> tuple[Any, ...] | None:
    scored = sum(mark.isupper() for mark in row.marks)
    if len(row.scores or b"") != 8 * scored:
        return None
    return unpack_steps(row.marks, row.scores)


def _orphans() -> dict[str, Any]:
    count, sets = select(func.count()), EVIDENCE_SETS.c.pk
    used = (PROBLEMS.c.evidence_set_pk, TRACES.c.evidence_set_pk, TRACE_EVIDENCE.c.evidence_set_pk)
    passage = EVIDENCE.c.evidence_passage_pk == EVIDENCE_PASSAGES.c.pk
    return {
        "problems": count.select_from(PROBLEMS).where(
            ~exists().where(TRACES.c.problem_pk == PROBLEMS.c.pk)
        ),
        "evidence_sets": count.select_from(EVIDENCE_SETS).where(
            *(~exists().where(column == sets) for column in used)
        ),
        "evidence_passages": count.select_from(EVIDENCE_PASSAGES).where(~exists().where(passage)),
    }


def copy_rows(source: Connections, target: Connections, *, watch: Watch) -> list[TableCopy]:
    """Copy all rows into a database that is empty, or that holds the first rows of a copy.

    Each thousand rows are committed, so that a copy that was interrupted goes on where it stopped.
    The source is read as it was when the copy began. Afterwards the rows of both are hashed.

    Args:
        source: where the rows are.
        target: where they go; its schema exists.
        watch: wraps the tables that a phase goes through, to show its progress.

    Raises:
        StoreError: the target holds other rows, before any is copied; or its rows differ after.
    """
    with source.read() as reader:
        with target.read() as connection:
            done = {table.name: _last_key(connection, table) for table in TABLES}
            for table in TABLES:
                until = done[table.name]
                held = None if until is None else _digest(connection, table, until)
                if held is not None and held != _digest(reader, table, until):
                    raise StoreError(
                        f"The database holds other rows in table {table.name} than the first ones"
                        " of the copy.",
                        where=target.where,
                        remedy="copy into an empty database",
                    )
        copied = {}
        for table in watch(TABLES, "copy"):
            copied[table.name] = _copy_table(reader, target, table, done[table.name])
        with target.write() as connection:
            _advance_keys(reader, connection)
        report = []
        for table in watch(TABLES, "compare"):
            digest, rows = _digest(reader, table)
            with target.read() as connection:
                if _digest(connection, table) != (digest, rows):
                    raise StoreError(
                        f"The rows of table {table.name} differ after the copy.",
                        where=target.where,
                        remedy="copy into an empty database again",
                    )
            report.append(TableCopy(table.name, rows, copied[table.name], digest))
        return report


def _key(table: Table) -> list[Any]:
    return list(table.primary_key.columns)


_HASHED = ("model_calls", "prompts", "batch_requests")
"""Tables whose keys are hashes: their order is the same in every language."""


def _ordered(connection: Connection, table: Table) -> list[Any]:
    """The key as it is compared in SQLite: PostgreSQL sorts text by the language of the server."""
    if not _is_postgres(connection) or table.name in _HASHED:
        return _key(table)
    # A key is made of numbers and texts.
    return [
        column if column.type.python_type is int else column.collate("C") for column in _key(table)
    ]


def _last_key(connection: Connection, table: Table) -> tuple[Any, ...] | None:
    order = [column.desc() for column in _ordered(connection, table)]
    query = select(*_key(table)).order_by(*order).limit(1)
    row = connection.execute(query).first()
    return None if row is None else tuple(row)


def _rows(
    connection: Connection,
    table: Table,
    *,
    after: tuple[Any, ...] | None = None,
    until: tuple[Any, ...] | None = None,
) -> Iterator[Sequence[Row[Any]]]:
    """Rows in the order of their keys, a thousand at a time."""
    key = _ordered(connection, table)
    query = select(table).order_by(*key).limit(CHUNK)
    if until is not None:
        query = query.where(tuple_(*key) <= tuple_(*map(literal, until)))
    while True:
        page = query
        if after is not None:
            page = query.where(tuple_(*key) > tuple_(*map(literal, after)))
        rows = connection.execute(page).all()
        if not rows:
            return
        yield rows
        after = tuple(getattr(rows[-1], column.name) for column in _key(table))


def _digest(
    connection: Connection, table: Table, until: tuple[Any, ...] | None = None
) -> tuple[str, int]:
    """Hash and number of the rows up to a key."""
    digest, count = sha256(), 0
    for page in _rows(connection, table, until=until):
        count += len(page)
        for row in page:
            digest.update(
                repr([_plain(value) for value in row]).encode("utf-8", "backslashreplace")
            )
    return digest.hexdigest(), count


def _plain(value: Any) -> Any:
    """A value in a form that is the same in both databases: JSON by content."""
    return dump_json(_sorted(value)) if isinstance(value, (dict, list)) else value


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _copy_table(
    reader: Connection, target: Connections, table: Table, after: tuple[Any, ...] | None
) -> int:
    names = [column.name for column in table.c]
    texts = [isinstance(column.type, JSON) for column in table.c]
    count = 0
    for page in _rows(reader, table, after=after):
        rows = [
            tuple(
                dump_json(value) if is_json and value is not None else value
                for value, is_json in zip(row, texts, strict=True)
            )
            for row in page
        ]
        with target.write() as connection:
            insert_tuples(connection, table, names, rows)
        count += len(rows)
    return count


def _advance_keys(reader: Connection, connection: Connection) -> None:
    """Let new rows begin after the copied ones; ids of passages are never used twice."""
    if _is_postgres(reader):
        passage = reader.scalar(text("SELECT last_value FROM passages_id_seq"))
    else:
        query = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'passages'"
        passage = reader.scalar(text(query))
    if not _is_postgres(connection):
        if passage:
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = 'passages'"))
            insert = text("INSERT INTO sqlite_sequence VALUES ('passages', :last)")
            connection.execute(insert, {"last": passage})
        return
    for table in TABLES:
        name = "id" if table.name == "passages" else "pk"
        if name not in table.c or _key(table)[0].type.python_type is not int:
            continue
        last = connection.scalar(select(func.max(table.c[name]))) or 0
        last = max(last, passage or 0) if table.name == "passages" else last
        if last:
            connection.execute(
                text(f"SELECT setval('{table.name}_{name}_seq', :last)"), {"last": last}
            )
