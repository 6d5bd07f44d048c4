"""What all tables share: one metadata with constraint names, and CHECKs in place of native enums."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, MetaData, Table, inspect
from sqlalchemy.orm import registry
from sqlmodel import SQLModel

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Constraint names, given once so that a later migration can name what it changes."""

METADATA = MetaData(naming_convention=NAMING)
"""Our tables only; another library's SQLModel tables never get into our schema."""


class Base(SQLModel, registry=registry(metadata=METADATA)):
    """Base of every table."""


def table_of(model: type[SQLModel]) -> Table:
    """The Core table behind a model: bulk writes through Core are ten times faster than the ORM."""
    table = inspect(model).local_table
    if not isinstance(table, Table):
        raise TypeError(f"{model.__name__} is not mapped to a table")
    return table


def one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """A CHECK that a text column holds a value of the enum (or NULL).

    A native enum stores names instead of values and needs its own type in PostgreSQL.
    """
    listed = ", ".join(f"'{member.value}'" for member in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def within(column: str, low: int, high: int | None = None) -> CheckConstraint:
    """A CHECK that a number is not below `low` and not above `high` (or is NULL)."""
    bound = f"{column} >= {low}" if high is None else f"{column} BETWEEN {low} AND {high}"
    return CheckConstraint(bound, name=column)
