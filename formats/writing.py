"""Writes labelled traces into a file of the field: whole or not at all, strict JSON, nothing dropped unsaid."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from formats.files.parquet import require_pyarrow, write_parquet
from formats.known import EXPORT_FORMATS, format_named
from formats.rows import CannotCarry, ExportRow, FileFormat, Part, Rendered, SkippedTrace, parts_of
from traces import InputError


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What an export wrote, and what it did not."""

    written: int
    """Traces in the file."""
    skipped: tuple[SkippedTrace, ...]
    """Traces left out, each with its reason."""
    shortened: int = 0
    """Of the written ones, those without their last steps, on which the labeler is silent."""
    not_carried: Mapping[str, int] = field(default_factory=dict)
    """Of the written ones, how many have a part that the format has no place for, by part (`Part`)."""


def write_file(format: str, path: Path, rows: Iterable[ExportRow]) -> WriteOutcome:
    """Write the rows; `path` is replaced at the end, or left as it was.

    A path that ends in .json (or format medprm) becomes one JSON list, anything else JSONL; .gz
    behind it compresses. Format `parquet` writes our own rows as a table.

    Raises:
        InputError: unknown format, a Parquet path for a format of JSON rows or the other way round,
            pyarrow missing, or the file cannot be written.
    """
    known = format_named(format, EXPORT_FORMATS)
    tally = _Tally()
    rendered: Iterable[Mapping[str, Any]] = tally.rendered(known, rows)
    if known.gather is not None:
        rendered = known.gather(dict(row) for row in rendered)
    if _is_table(format, path):
        require_pyarrow(path)
        with replaced_bytes(path) as stream:
            write_parquet(stream, rendered)
        return tally.outcome()
    with replaced(path) as out:
        if known.always_list or path.name.removesuffix(".gz").endswith(".json"):
            _write_list(out, rendered)
        else:
            for row in rendered:
                out.write(f"{_dumped(row)}\n")
    return tally.outcome()


def _is_table(format: str, path: Path) -> bool:
    wanted = format == "parquet"
    if wanted != path.name.endswith(".parquet"):
        raise InputError(
            f"'{path}' does not fit format '{format}'.",
            where=str(path),
            remedy="end the path in .parquet" if wanted else "use format parquet, or end in .jsonl",
        )
    return wanted


class _Tally:
    """Counts while rows stream by."""

    def __init__(self) -> None:
        self.written = self.shortened = 0
        self.skipped: list[SkippedTrace] = []
        self.lost: Counter[str] = Counter()

    def rendered(self, known: FileFormat, rows: Iterable[ExportRow]) -> Iterator[dict[str, Any]]:
        if known.render is None:
            raise InputError(f"Format '{known.name}' is only read.", remedy="choose another format")
        for row in rows:
            try:
                rendered = known.render(row)
            except CannotCarry as limit:
                self.skipped.append(SkippedTrace(row.trace.id, limit.reason, limit.detail))
                continue
            self.written += 1
            self.shortened += rendered.steps_left_out > 0
            self.lost.update(part.value for part in _lost(row, known, rendered))
            yield rendered.row

    def outcome(self) -> WriteOutcome:
        """The counts, once all rows have streamed by."""
        lost = dict(sorted(self.lost.items()))
        return WriteOutcome(self.written, tuple(self.skipped), self.shortened, lost)


def _lost(row: ExportRow, known: FileFormat, rendered: Rendered) -> frozenset[Part]:
    cut = row.label.step_labels[len(row.trace.steps) - rendered.steps_left_out :]
    later = {Part.LATER_VERDICTS} if any(step.abstention is None for step in cut) else set()
    return (parts_of(row) - known.carries) | rendered.lost | later


def _dumped(row: Mapping[str, Any]) -> str:
    # A NaN that came this far is a defect of ours: better no file than one no reader takes.
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _write_list(out: TextIO, rows: Iterable[Mapping[str, Any]]) -> None:
    separator = "[\n"
    for row in rows:
        out.write(f"{separator}{_dumped(row)}")
        separator = ",\n"
    out.write("\n]\n" if separator == ",\n" else "[]\n")


def _text(packed: BinaryIO | gzip.GzipFile) -> TextIO:
    return io.TextIOWrapper(packed, encoding="utf-8", newline="\n")


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` when all went well; see `replaced_bytes`."""
    with replaced_bytes(path) as plain:
        if not path.name.endswith(".gz"):
            with _text(plain) as out:
                yield out
            return
        # No name and no time inside, so that equal content gives equal bytes.
        with gzip.GzipFile("", "wb", fileobj=plain, mtime=0) as packed, _text(packed) as out:
            yield out


@contextmanager
def replaced_bytes(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place when all went well, and vanishes otherwise.

    Raises:
        InputError: folder missing or read-only, disk full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as plain:
            yield plain
        os.replace(beside, path)
    except OSError as error:
        raise InputError(
            f"Cannot write '{path}': {error.strerror or error}.",
            where=str(path),
            remedy="choose a folder with room that you may write to",
        ) from error
    finally:
        beside.unlink(missing_ok=True)
