"""Rejected rows, for a person and for the document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from traces import RejectedRow

SHOWN_ROWS = 10
"""Rows shown to a person; all of them are in the JSON document."""


def row_document(row: RejectedRow) -> dict[str, Any]:
    """A rejected row as the contract lists it."""
    return {"file": row.file, "line": row.line, "id": row.id, "reason": row.reason}


def rejection_lines(rejected: Sequence[RejectedRow]) -> Iterator[str]:
    """One line a row, and a last one that counts the others."""
    for row in rejected[:SHOWN_ROWS]:
        place = row.file if row.line is None else f"{row.file}:{row.line}"
        what = "imported, but" if row.imported else "rejected"
        yield f"{what}: {place}: {row.id or 'no id'}: {row.reason}"
    if len(rejected) > SHOWN_ROWS:
        yield f"... and {len(rejected) - SHOWN_ROWS} more: --json lists them all"
