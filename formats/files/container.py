"""Turns a file into rows, by content: Parquet, or a JSON list, JSON object of lists or JSONL.

JSON may be gzipped.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from formats.files.json import (
    ROW_LIMIT,
    JsonFault,
    JsonStream,
    StrictDecoder,
    list_elements,
    mapped_lists,
)
from formats.files.parquet import parquet_rows
from traces import TraceFormatError

HEAD = 64 * 1024
"""Bytes read to detect what a file is."""
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_OBJECT_OF_LISTS = re.compile(rb'\s*\{\s*"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*\{')


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row of a file, of whatever format."""

    index: int
    """0-based number of the row; blank lines do not count."""
    line: int
    """1-based line; in a JSON list, object or table the 1-based position of the row."""
    value: dict[str, Any] = field(default_factory=dict)
    """The row; empty if it has a fault."""
    fault: str | None = None
    """Why the row cannot be used, as a clause that follows "the row"; None if it can."""


def read_rows(path: Path, *, row_limit: int = ROW_LIMIT) -> Iterator[RawRow]:
    """Yield the rows of a .json, .jsonl, gzipped or Parquet file in bounded memory.

    Args:
        path: the file; its suffix is ignored.
        row_limit: longest row, in bytes of a line or characters of an element.

    Raises:
        TraceFormatError: the file cannot be read to its end, or has no rows.
        InputError: it is Parquet, and the extra `parquet` is not installed.
    """
    with _named_faults(path):
        kind = _kind(path)
        if kind == "parquet":
            for index, (value, fault) in enumerate(parquet_rows(path)):
                yield _row(value, fault, index, index + 1)
            return
        with _opened(path) as stream:
            if kind == "lines":
                yield from _lines(stream, path, row_limit)
            else:
                yield from _elements(stream, kind, path, row_limit)


def is_object_of_lists(path: Path, *, field_names: Collection[str] = ()) -> bool:
    """Whether the file is one JSON object whose values are lists of objects, as MR-Ben's files are.

    Args:
        path: the file.
        field_names: keys of rows: a file that begins with one of them is a row, not an object of
            lists.
    """
    with _named_faults(path), _opened(path) as stream:
        begins = _OBJECT_OF_LISTS.match(stream.read(HEAD).removeprefix(_BOM))
    return begins is not None and begins[1].decode(errors="replace") not in field_names


def read_mapped_rows(path: Path, *, row_limit: int = ROW_LIMIT) -> Iterator[RawRow]:
    """Yield the rows of one JSON object of lists (see `is_object_of_lists`), all lists in order.

    Raises:
        TraceFormatError: the file cannot be read to its end.
    """
    with _named_faults(path), _opened(path) as stream:
        yield from _elements(stream, "object", path, row_limit)


@contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    name = f"'{path}'"
    try:
        yield
    except FileNotFoundError as error:
        raise TraceFormatError(
            f"File {name} not found.", where=str(path), remedy="check the path"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceFormatError(
            f"The gzip file {name} is cut off or damaged.",
            where=str(path),
            remedy="get the file again",
        ) from error
    except OSError as error:
        raise TraceFormatError(
            f"Cannot read {name}: {error.strerror or error}.",
            where=str(path),
            remedy="name a file that you may read",
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    with path.open("rb") as plain:
        zipped = plain.read(2) == _GZIP
        plain.seek(0)
        if not zipped:
            yield plain
            return
        with gzip.open(plain, "rb") as unzipped:
            yield unzipped


def _kind(path: Path) -> str:
    """`parquet`, `list` or `lines`; raises TraceFormatError for anything else."""
    with _opened(path) as stream:
        head = stream.read(HEAD)
    name = f"'{path}'"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head[:4].count(b"\x00") in (2, 3):
        raise TraceFormatError(
            f"{name} is UTF-16 or UTF-32 text.", where=str(path), remedy="save it as UTF-8"
        )
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.removeprefix(_BOM).lstrip()
    if not text and len(head) < HEAD:
        raise TraceFormatError(
            f"{name} is empty.", where=str(path), remedy="give a file with at least one row"
        )
    if text.startswith(b"["):
        return "list"
    lines = text.splitlines()
    if not any(line.lstrip().startswith(b"{") for line in lines):
        what = "a binary file" if b"\x00" in head else "neither a JSON list nor JSON lines"
        raise TraceFormatError(
            f"{name} is {what}.",
            where=str(path),
            remedy="give a .json list or a .jsonl file, plain or gzipped, or Parquet",
        )
    if _is_spread(lines):
        looks = bool(_OBJECT_OF_LISTS.match(text))
        raise TraceFormatError(
            f"{name} is one JSON object spread over several lines"
            + ("; it looks like mr-ben." if looks else "."),
            where=str(path),
            remedy="stepgold import mr-ben ..."
            if looks
            else "give a JSON list, or one row on each line",
        )
    return "lines"


def _is_spread(lines: list[bytes]) -> bool:
    # A broken first row of JSONL is followed by another row; the first line of an object is not.
    if len(lines) < 2 or not lines[0].startswith(b"{") or lines[1].lstrip().startswith(b"{"):
        return False
    try:
        StrictDecoder().decode(lines[0].decode("utf-8", errors="surrogateescape"))
    except JsonFault as fault:
        return fault.cut
    return False


def _lines(stream: io.BufferedIOBase, path: Path, row_limit: int) -> Iterator[RawRow]:
    decoder = StrictDecoder()
    index = line = blanks = 0
    while data := stream.readline(row_limit + 1):
        line += 1
        if len(data) > row_limit:
            while data and not data.endswith(b"\n"):
                data = stream.readline(HEAD)
            yield RawRow(index, line, fault=f"is longer than {row_limit} bytes")
            index += 1
            continue
        if line == 1:
            data = data.removeprefix(_BOM)
        if not data.strip():
            blanks += len(data)
            if blanks > row_limit:
                raise TraceFormatError(
                    f"'{path}' has more than {row_limit} blanks in a row.",
                    where=f"{path}, line {line}",
                    remedy="get the file again, or delete its blank lines",
                )
            continue
        blanks = 0
        yield _line(decoder, data, index=index, line=line, path=path)
        index += 1


def _line(decoder: StrictDecoder, data: bytes, index: int, line: int, path: Path) -> RawRow:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return RawRow(
            index, line, fault=f"is not UTF-8 (byte {data[error.start]:#04x} at {error.start + 1})"
        )
    try:
        value, fault = decoder.decode(text)
    except JsonFault as error:
        if error.cut and not data.endswith(b"\n"):
            raise TraceFormatError(
                f"'{path}' is cut off: its last line ends in the middle of a row.",
                where=f"{path}, line {line}",
                remedy="get the file again, or delete that line",
            ) from error
        return RawRow(index, line, fault=error.reason)
    return _row(value, fault, index, line)


def _row(value: Any, fault: str | None, index: int, line: int) -> RawRow:
    if fault is None and not isinstance(value, dict):
        fault = "is not a JSON object"
    return RawRow(index, line, fault=fault) if fault else RawRow(index, line, value)


def _elements(stream: io.BufferedIOBase, kind: str, path: Path, row_limit: int) -> Iterator[RawRow]:
    cursor = JsonStream(stream.read, row_limit=row_limit)
    index = 0
    try:
        for value, fault in (list_elements if kind == "list" else mapped_lists)(cursor):
            yield _row(value, fault, index, index + 1)
            index += 1
        cursor.require_end()
    except JsonFault as fault:
        what = "is cut off" if fault.cut else f"cannot be read to its end: the text {fault.reason}"
        if "longer than" in fault.reason:
            what = f"cannot be read to its end: row {index + 1} {fault.reason}"
        raise TraceFormatError(
            f"'{path}' {what}.",
            where=f"{path}, row {index + 1}",
            remedy="get the file again, or correct that row",
        ) from fault
