"""The ids and texts of a row, whatever its format: to look for, not to understand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats.files.container import is_object_of_lists, read_mapped_rows, read_rows
from formats.known import FIELD_NAMES
from traces import RejectedRow

ID_KEYS = frozenset(
    {"id", "trace_id", "problem_id", "question_id", "uuid", "Question_UUID", "case_id"}
)
"""Keys under which formats of the field keep ids."""
ROLE_KEYS = frozenset({"role", "from"})
"""Keys of a chat message that say who speaks."""


@dataclass(frozen=True, slots=True)
class RowTexts:
    """What stands in a row."""

    line: int
    """1-based line, or position in a JSON list."""
    ids: tuple[str, ...]
    """Its ids."""
    texts: tuple[str, ...]
    """All other texts, in order; not the roles of a chat."""


def read_row_texts(path: Path) -> Iterator[RowTexts | RejectedRow]:
    """Yield ids and texts of every row of a file.

    Raises:
        TraceFormatError: the file cannot be read to its end.
    """
    mapped = is_object_of_lists(path, field_names=FIELD_NAMES)
    rows = read_mapped_rows(path) if mapped else read_rows(path)
    for row in rows:
        if row.fault is not None:
            yield RejectedRow(str(path), row.line, None, f"the row {row.fault}")
            continue
        ids: list[str] = []
        texts: list[str] = []
        _gather(row.value, ids, texts)
        yield RowTexts(row.line, tuple(ids), tuple(texts))


def _gather(value: Any, ids: list[str], texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        for part in value:
            _gather(part, ids, texts)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key in ID_KEYS and isinstance(part, str):
                ids.append(part)
            elif key not in ROLE_KEYS or not isinstance(part, str):
                _gather(part, ids, texts)
