"""Bulk writes through SQLAlchemy Core, in chunks; the only place that knows how dialects differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, delete, insert
from sqlalchemy.dialects import postgresql, sqlite

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
