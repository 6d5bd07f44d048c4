"""Reading and writing rows through SQLAlchemy Core, in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, delete, insert
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


def insert_keyed(
    connection: Connection, table: Table, rows: Sequence[Columns], *, by: Sequence[str]
) -> dict[Any, int]:
    """Insert the rows and return their new `pk` by the value (or values) of the columns `by`."""
    keys: dict[Any, int] = {}
    statement = insert(table).returning(table.c.pk, *(table.c[name] for name in by))
    for chunk in chunks(rows):
        for pk, *values in connection.execute(statement, chunk):
            keys[values[0] if len(by) == 1 else tuple(values)] = pk
    return keys


def insert_missing(
    connection: Connection, table: Table, rows: Sequence[Columns], *, key: Sequence[str]
) -> None:
    """Insert the rows, except those whose `key` columns are taken: the existing rows stay."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing(index_elements=key)
    for chunk in chunks(rows):
        connection.execute(statement, chunk)


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
