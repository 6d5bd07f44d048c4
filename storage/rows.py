"""Reading and writing rows through SQLAlchemy Core, in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Table,
    delete,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

from storage.columns import Columns

T = TypeVar("T")

CHUNK = 1000
"""Rows per statement."""


def now() -> str:
    """The current time in UTC as ISO 8601 text, which keeps its zone in every database."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def chunks(things: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The things in lists of at most `size`, as they come."""
    iterator = iter(things)
    while chunk := list(islice(iterator, size)):
        yield chunk


def insert_rows(connection: Connection, table: Table, rows: Sequence[Columns]) -> None:
    """Insert the rows; a row whose key exists is an error."""
    for chunk in chunks(rows):
        connection.execute(insert(table), chunk)


def insert_one(connection: Connection, table: Table, row: Columns) -> int:
    """Insert a row and return its `pk`."""
    return int(connection.execute(insert(table).values(row).returning(table.c.pk)).scalar_one())


def insert_tuples(
    connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Insert rows of values, in the order of `names`, through the driver.

    The driver gets the values as they are: JSON as text. Takes half the time of `insert_rows`.
    """
    if not rows:
        return
    columns = ", ".join(f'"{name}"' for name in names)
    if connection.dialect.name == "postgresql":
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    statement = f"INSERT INTO {table.name} ({columns}) VALUES ({', '.join('?' * len(names))})"
    connection.exec_driver_sql(statement, rows if isinstance(rows, list) else list(rows))


def reserve(connection: Connection, table: Table, number: int) -> Sequence[int]:
    """Keys for this number of new rows, which the caller inserts with them in this transaction."""
    if not number:
        return ()
    if connection.dialect.name == "postgresql":
        sequence = f"SELECT nextval('{table.name}_pk_seq') FROM generate_series(1, {number})"
        return list(connection.scalars(text(sequence)))
    last = connection.scalar(select(func.max(table.c.pk))) or 0
    return range(last + 1, last + 1 + number)


def insert_keyed(
    connection: Connection, table: Table, rows: Sequence[Columns], *, by: str
) -> dict[Any, int]:
    """Insert the rows and return their new `pk` by the value of the column `by`."""
    keys = reserve(connection, table, len(rows))
    insert_rows(connection, table, [{"pk": pk, **row} for pk, row in zip(keys, rows, strict=True)])
    return {row[by]: pk for pk, row in zip(keys, rows, strict=True)}


def insert_missing(
    connection: Connection, table: Table, rows: Sequence[Columns], *, key: Sequence[str]
) -> None:
    """Insert the rows, except those whose `key` columns are taken: the existing rows stay."""
    statement = _insert_missing(connection, table, key)
    for chunk in chunks(rows):
        connection.execute(statement, chunk)


def insert_one_missing(connection: Connection, table: Table, row: Columns, *, key: str) -> bool:
    """Insert a row unless its key is taken; False if it is."""
    statement = _insert_missing(connection, table, [key]).execution_options(preserve_rowcount=True)
    return bool(connection.execute(statement, row).rowcount)


def _insert_missing(connection: Connection, table: Table, key: Sequence[str]) -> Executable:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement: Executable = dialect.insert(table).on_conflict_do_nothing(index_elements=key)
    return statement


def delete_where(
    connection: Connection,
    column: ColumnElement[Any],
    values: Iterable[Any],
    *conditions: ColumnElement[bool],
) -> int:
    """Delete the rows whose `column` is one of `values` and that meet the conditions.

    Returns:
        How many rows were deleted.
    """
    table = column.table
    return sum(
        connection.execute(delete(table).where(column.in_(chunk), *conditions)).rowcount
        for chunk in chunks(values)
    )
