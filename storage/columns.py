"""How a value is checked, written to a column and read back, and how dataclasses become rows.

The declaration of a column in `tables.py` names its `Kind`; a `Codec` derives everything else from
the fields of a dataclass and the columns of its table.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import JSON, Boolean, CheckConstraint, Index, Integer, Row, String, Table, text
from sqlmodel import Field

from storage import checks
from traces import Abstention, AbstentionReason, Verdict

T = TypeVar("T")

Columns = dict[str, Any]
"""Column values by name."""

_ESCAPED = "json:"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a column holds."""

    write: Callable[[Any, str], Any]
    """Checks a value and returns what the database holds; the second argument names the value in
    an InputError. Not called for NULL."""
    read: Callable[[Any], Any] | None = None
    """Returns the value from what the database holds; None if both are the same. Not called for
    NULL."""
    sa_type: type[JSON] | None = None
    """Column type, where the annotation does not determine it."""


def encode_text(text: str) -> str:
    """Text written by a model, in a form that every database can hold.

    A paid reply is never refused, and a reply may contain a NUL or half of a surrogate pair (one
    that was cut inside an emoji does). Such a text is stored as `json:` and its JSON string, in
    which both are escaped; every other text as it is. `decode_text` returns the original.
    """
    if "\0" not in text and not text.startswith(_ESCAPED):
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _ESCAPED + json.dumps(text)


def decode_text(stored: str) -> str:
    """The text that was given to `encode_text`."""
    if not stored.startswith(_ESCAPED):
        return stored
    try:
        return str(json.loads(stored[len(_ESCAPED) :]))
    except json.JSONDecodeError:
        return stored  # written before its column was escaped


def decode_optional(stored: str | None) -> str | None:
    """As `decode_text`; None stays None."""
    return None if stored is None else decode_text(stored)


def pack_text(text: str) -> bytes:
    """Text written by a model or for one, compressed; prompts shrink to a fifth."""
    return zlib.compress(encode_text(text).encode())


def unpack_text(stored: bytes) -> str:
    """The text that was given to `pack_text`."""
    return decode_text(zlib.decompress(stored).decode())


def dump_json(value: Any) -> str:
    """Strict JSON text; characters that UTF-8 cannot hold are escaped, nothing is dropped."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text


def choice(values: type[StrEnum]) -> Kind:
    """A member of an enum, stored as its value."""
    return Kind(lambda value, _: values(value).value, values)


def parent(key: str, **options: Any) -> Any:
    """A reference to the row that this one is deleted with."""
    return Field(foreign_key=key, ondelete="CASCADE", **options)


def partial(name: str, column: str, *, where: str) -> Index:
    """An index of the rows that meet a condition."""
    return Index(name, column, sqlite_where=text(where), postgresql_where=text(where))


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


def collate(tables: Iterable[Table]) -> None:
    """Give all texts one order in every database: that of their code points, as in SQLite."""
    for column in (column for table in tables for column in table.c):
        if isinstance(column.type, String):
            column.type = String().with_variant(String(collation="C"), "postgresql")


def _write_texts(value: Any, what: str) -> list[str]:
    return [checks.plain_text(text, what) for text in value]


def _read_words(stored: list[str]) -> tuple[Verdict | AbstentionReason, ...]:
    verdicts = frozenset(Verdict)
    return tuple(Verdict(word) if word in verdicts else AbstentionReason(word) for word in stored)


NAME = Kind(checks.name)
TEXT = Kind(checks.plain_text)
MODEL_TEXT = Kind(lambda text, _: encode_text(text), decode_text)
PACKED_TEXT = Kind(lambda text, _: pack_text(text), unpack_text)
FLAG = Kind(lambda value, _: bool(value))
COUNT = Kind(checks.count)
SIMILARITY = Kind(checks.similarity)
AMOUNT = Kind(checks.amount)
STRICT_JSON = Kind(checks.json_value, sa_type=JSON)
PLAIN_JSON = Kind(checks.plain_json, sa_type=JSON)
TEXTS = Kind(_write_texts, tuple, JSON)
WORDS = Kind(lambda words, _: [word.value for word in words], _read_words, JSON)
_AS_IS = Kind(lambda value, _: value)


def _kind(column: Any) -> Kind:
    if isinstance(declared := column.info.get("kind"), Kind):
        return declared
    if isinstance(column.type, Boolean):
        return FLAG
    return COUNT if isinstance(column.type, Integer) else _AS_IS


def _label(field: str) -> str:
    return "cost" if field == "usd" else field.replace("_", " ")


class Codec(Generic[T]):
    """A dataclass as the columns of a table.

    Covers the fields that have a column of their name (or of the name given in `renamed`); the
    caller supplies the others. An `abstention` takes two columns, its reason and its detail.
    """

    def __init__(self, record: type[T], table: Table, **renamed: str) -> None:
        self._record = record
        names = [field.name for field in fields(record)]  # type: ignore[arg-type]
        self._abstains = "abstention" in names
        mapped = [
            (name, table.c[column])
            for name in names
            if (column := renamed.get(name, name)) in table.c and name != "abstention"
        ]
        self._written = [
            (name, column.name, _kind(column).write, column.nullable, _label(name))
            for name, column in mapped
        ]
        self._read = [(name, column.name, _kind(column).read) for name, column in mapped]

    def columns(self, record: T, where: str) -> Columns:
        """The record's columns; `where` names the record in messages.

        Raises:
            InputError: a value cannot be stored.
        """
        columns: Columns = {}
        for name, column, write, nullable, label in self._written:
            value = getattr(record, name)
            if value is not None or not nullable:
                value = write(value, f"The {label} of {where}")
            columns[column] = value
        return columns | _abstention_columns(record) if self._abstains else columns

    def record(self, row: Row[Any], **others: Any) -> T:
        """The record in a row; `others` are the fields that the row does not hold."""
        for name, column, read in self._read:
            value = getattr(row, column)
            others[name] = value if read is None or value is None else read(value)
        if self._abstains:
            others["abstention"] = _abstention(row)
        return self._record(**others)


def _abstention_columns(record: Any) -> Columns:
    abstention: Abstention | None = record.abstention
    if abstention is None:
        return {"abstention": None, "abstention_detail": None}
    return {
        "abstention": AbstentionReason(abstention.reason).value,
        "abstention_detail": encode_text(abstention.detail),
    }


def _abstention(row: Row[Any]) -> Abstention | None:
    if row.abstention is None:
        return None
    detail = decode_optional(row.abstention_detail) or ""
    return Abstention(AbstentionReason(row.abstention), detail)
