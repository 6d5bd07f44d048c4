"""Rows of a corpus in JSONL, plain or gzipped: MedRAG's `{id,title,content}` and its relatives."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

_TEXT_KEYS = ("content", "text", "contents")


@dataclass(frozen=True, slots=True)
class CorpusRow:
    """One row: a text, or why there is none."""

    line: int
    """1-based line in the (unpacked) file."""
    id: str | None
    """The row's own id, else its line number; None if the row could not be read."""
    title: str = ""
    """The row's title; "" if it has none."""
    text: str = ""
    """The row's text."""
    source: str = ""
    """The row's url, else its source; "" if it names neither."""
    problem: str | None = None
    """Why the row is unusable; None if it is usable."""


def read_rows(path: Path, *, max_bytes: int) -> Iterator[CorpusRow]:
    """Stream the rows of a .jsonl or .jsonl.gz file in constant memory; empty lines are skipped.

    Args:
        path: the file.
        max_bytes: longest line; a longer one is a problem and is passed over.

    Raises:
        ValueError: the file is not what its name says, or breaks off; rows read before are good.
        OSError: the file cannot be opened or read.
    """
    seen: set[str | None] = set()
    number = 0
    try:
        with _open(path) as stream:
            for number, line in _lines(stream, max_bytes):
                row = _row(number, line, max_bytes)
                if row is None:
                    continue
                if row.problem is None and row.id in seen:
                    yield CorpusRow(number, row.id, problem=f"repeats the id '{row.id}'")
                    continue
                if row.problem is None:
                    seen.add(row.id)
                yield row
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise ValueError(f"is damaged or cut off after line {number} ({fault})") from fault


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines; None for a line that is too long."""
    number = 0
    while line := stream.readline(max_bytes + 1):
        number += 1
        if len(line) <= max_bytes:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(max_bytes)
        yield number, None


def _row(number: int, line: bytes | None, max_bytes: int) -> CorpusRow | None:
    """The row in a line; None if the line is blank."""
    if line is None:
        return CorpusRow(number, None, problem=f"is longer than {max_bytes:,} bytes")
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        return None
    try:
        fields = json.loads(line.decode(), object_pairs_hook=_once)
    except UnicodeDecodeError:
        return CorpusRow(number, None, problem="is not UTF-8: convert it to UTF-8")
    except _TwiceError as fault:
        return CorpusRow(number, None, problem=f"holds the key '{fault}' twice")
    except (ValueError, RecursionError) as fault:  # ValueError: also a number of 4,301 digits
        return CorpusRow(number, None, problem=f"is not JSON ({fault})")
    if not isinstance(fields, dict):
        return CorpusRow(number, None, problem="is not a JSON object")
    return _from_fields(number, fields)


class _TwiceError(Exception):
    """A key that an object has twice; of two texts Python would silently keep one."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise _TwiceError(key)
        fields[key] = value
    return fields


def _from_fields(number: int, fields: dict[str, Any]) -> CorpusRow:
    own_id = fields.get("id", fields.get("_id"))
    if own_id is not None and (not isinstance(own_id, str | int) or isinstance(own_id, bool)):
        return CorpusRow(number, None, problem="has an id that is neither text nor a whole number")
    row_id = str(number) if own_id is None else str(own_id)
    key = next((key for key in _TEXT_KEYS if key in fields), None)
    if key is None:
        return CorpusRow(number, row_id, problem="has no 'content', 'text' or 'contents'")
    if not isinstance(fields[key], str):
        return CorpusRow(number, row_id, problem=f"has a '{key}' that is not text")
    title = fields.get("title") or ""
    if not isinstance(title, str):
        return CorpusRow(number, row_id, problem="has a 'title' that is not text")
    places = (fields.get("url"), fields.get("source"))
    source = next((place for place in places if isinstance(place, str) and place), "")
    return CorpusRow(number, row_id, title, text=fields[key], source=source)
