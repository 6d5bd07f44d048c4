"""Parquet as a container: rows of any table, and our own rows as one. Needs the extra `parquet`.

A column has a value in every row, so null also means "absent": null keys are dropped, except for
the two where null is a statement (`mistake_index`, and a `first_error` without scores or verdicts).
Our rows keep `labels`, `evidence` and both metas as JSON text, because a struct column would give
every row the keys of all others.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from formats.files.json import JsonFault, StrictDecoder, text_fault
from traces import InputError, TraceFormatError

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]


BATCH = 500
"""Rows in memory at a time."""
_AS_TEXT = ("labels", "evidence", "meta", "problem_meta")
_OURS = {"id", "problem", "steps"}
_LISTS = ("options", "images", "steps")
_COLUMNS = (
    "id", "problem", "options", "answer", "images", "subset", "generator", "steps", "final_answer",
    "final_answer_correct", *_AS_TEXT,
)  # fmt: skip


class _Unknown(ValueError):
    """A value without a JSON form."""


def require_pyarrow(path: Path) -> None:
    """Raise InputError if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"'{path}' is a Parquet file, and pyarrow is not installed.",
            where=str(path),
            remedy="pip install 'stepgold[parquet]'",
        ) from error


def parquet_rows(path: Path) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The rows of a table, each with why it cannot be used (None if it can), in bounded memory.

    Raises:
        InputError: pyarrow is missing.
        TraceFormatError: the file cannot be read to its end.
    """
    require_pyarrow(path)
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            encoded = _encoded_columns(table.schema_arrow)
            for batch in table.iter_batches(batch_size=BATCH):
                for row in _python_rows(batch):
                    yield _usable(row, encoded)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise TraceFormatError(
            f"The Parquet file '{path}' is damaged or cut off.",
            where=str(path),
            remedy="get the file again",
        ) from error


def _encoded_columns(schema: pyarrow.Schema) -> frozenset[str]:
    """Columns of our rows that contain JSON text."""
    import pyarrow

    if not set(schema.names) >= _OURS:
        return frozenset()
    texts = {field.name for field in schema if pyarrow.types.is_string(field.type)}
    return frozenset(texts & set(_AS_TEXT))


def _python_rows(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch; a fault in place of a row whose text is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield from batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError:
                yield "contains text that is not UTF-8"


def _usable(
    row: dict[str, Any] | str, encoded: frozenset[str]
) -> tuple[dict[str, Any], str | None]:
    if isinstance(row, str):
        return {}, row
    decoder, decoded = StrictDecoder(), {}
    try:
        for name in encoded & row.keys():
            if row[name] is not None:
                # Nulls stay: in JSON text they were written on purpose.
                decoded[name], fault = decoder.decode(row.pop(name))
                if fault is not None:
                    return {}, fault
        plain = _plain(row)
    except (_Unknown, JsonFault) as error:
        return {}, str(error)
    return plain | decoded, text_fault(plain)


def _plain(value: Any) -> Any:
    """The value as JSON, null keys dropped."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Unknown(f"contains {value}, which is not a JSON number: write null")
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if _is_stated(key, part, value)}
    kind = "binary data" if isinstance(value, bytes) else f"a value of type {type(value).__name__}"
    raise _Unknown(f"contains {kind}, which has no JSON form")


def _is_stated(key: str, value: Any, row: Mapping[str, Any]) -> bool:
    if value is not None or key == "mistake_index":
        return True
    return key == "first_error" and row.get("scores") is None and row.get("verdicts") is None


def write_parquet(out: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of our own format as one table, batch by batch."""
    import pyarrow
    import pyarrow.parquet

    types = {name: pyarrow.list_(pyarrow.string()) for name in _LISTS}
    types["final_answer_correct"] = pyarrow.bool_()
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in _COLUMNS])
    pending = iter(rows)
    with pyarrow.parquet.ParquetWriter(out, schema) as writer:
        while batch := [_columns(row) for row in islice(pending, BATCH)]:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))


def write_messages(out: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write chat messages as one table, batch by batch, with `images` only where rows have some.

    verl takes every row of a table with that column for one with images.

    Raises:
        InputError: images begin after the first batch of rows.
    """
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    turn = pyarrow.struct([("role", text), ("content", text)])
    who = pyarrow.struct([("name", text), ("kind", text)])
    columns = [("messages", pyarrow.list_(turn)), ("trace_id", text), ("labeler", who)]
    pending = iter(rows)
    batch = list(islice(pending, BATCH))
    with_images = any("images" in row for row in batch)
    if with_images:
        columns.append(("images", pyarrow.list_(text)))
    schema = pyarrow.schema(columns)
    with pyarrow.parquet.ParquetWriter(out, schema) as writer:
        while batch:
            if not with_images and any("images" in row for row in batch):
                raise InputError(
                    f"The first {BATCH} rows have no images, and a later one has.",
                    remedy="end the path in .jsonl, or export the subsets one by one",
                )
            full = [{"images": [], **row} for row in batch]
            writer.write_batch(pyarrow.RecordBatch.from_pylist(full, schema=schema))
            batch = list(islice(pending, BATCH))


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    texts = {
        name: json.dumps(row[name], ensure_ascii=False, allow_nan=False)
        for name in _AS_TEXT
        if name in row
    }
    return {**row, **texts}
