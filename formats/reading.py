"""Reads a file of a known format: usable traces, and every row that is none, with its reason."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from formats.files.container import RawRow, is_object_of_lists, read_mapped_rows, read_rows
from formats.known import FIELD_NAMES, IMPORT_FORMATS, KNOWN, format_named, guess_format
from formats.rows import FileFormat, NeutralPolicy, Reading, RowFault
from traces import (
    ImportedTrace,
    InputError,
    Labeler,
    LabelerKind,
    RejectedRow,
    SourceFile,
    TraceFormatError,
)

FIRST_ROWS = 5
"""Rows looked at to tell whether a file is of the named format at all."""


def read_file(
    format: str,
    path: Path,
    *,
    subset: str | None = None,
    labeler: str | None = None,
    kind: LabelerKind | None = None,
    neutral: NeutralPolicy = NeutralPolicy.KEEP,
) -> Iterator[ImportedTrace | RejectedRow]:
    """Yield the traces of a file and the rows that cannot be used, in bounded memory.

    Args:
        format: one of `IMPORT_FORMATS`.
        path: .json, .jsonl, either gzipped, or Parquet; told apart by content.
        subset: the subset of all traces; None takes the format's own field, else `default`.
        labeler: who labelled, for formats that do not say (trl, openrlhf, qwen-prm, sharegpt).
        kind: that labeler's kind.
        neutral: how a step is read that its annotator called neutral (prm800k, visualprocessbench).

    Raises:
        InputError: unknown format, or labeler, kind or neutral missing or out of place.
        TraceFormatError: the file cannot be read to its end, or is of another format; raised
            while iterating, so a caller rolls back what it took before.
    """
    known = format_named(format, IMPORT_FORMATS)
    if known.wants_labeler and (labeler is None or kind is None):
        raise InputError(
            f"A {format} file does not say who labelled it.",
            remedy="add --labeler NAME and --kind KIND",
        )
    if not known.wants_labeler and (labeler is not None or kind is not None):
        raise InputError(
            f"A {format} file names its labelers itself.", remedy="leave --labeler and --kind out"
        )
    if neutral is not NeutralPolicy.KEEP and not known.has_neutral:
        having = ", ".join(name for name in IMPORT_FORMATS if KNOWN[name].has_neutral)
        raise InputError(
            f"A {format} file has no neutral steps of its annotators.",
            remedy=f"leave --neutral out; it is for {having}",
        )
    who = Labeler(labeler, kind, {"imported_from": format}) if labeler and kind else None
    return _traces(known, path, Reading(str(path), file_stem(path), subset, who, neutral))


def file_stem(path: Path) -> str:
    """The base name without .gz and without .json, .jsonl or .parquet.

    >>> file_stem(Path("a/train.jsonl.gz")), file_stem(Path("v1.2.json"))
    ('train', 'v1.2')
    """
    stem = path.name.removesuffix(".gz").removesuffix(".parquet")
    return stem.removesuffix(".jsonl").removesuffix(".json")


def source_file(path: Path, format: str, options: Mapping[str, Any]) -> SourceFile:
    """Name (without its folder), hash, format and options of a file, by which a second import is known.

    Raises:
        TraceFormatError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise TraceFormatError(
            f"There is no file '{path}'.", where=str(path), remedy="check the path"
        ) from error
    except OSError as error:
        raise TraceFormatError(
            f"Cannot read '{path}': {error.strerror or error}.",
            where=str(path),
            remedy="name a file that you may read",
        ) from error
    return SourceFile(path.name, digest, format, dict(options), str(path))


def checked_rows(
    rows: Iterable[RawRow], path: Path, name: str, fits: Callable[[Mapping[str, Any]], bool]
) -> Iterator[RawRow]:
    """The rows, once one of the first `FIRST_ROWS` sound ones is of the named format.

    Raises:
        TraceFormatError: none is, or the first looks like a closer relative of the format.
    """
    rows = iter(rows)
    first: list[RawRow] = []
    for row in rows:
        first.append(row)
        if sum(not known.fault for known in first) >= FIRST_ROWS:
            break
    sound = [row for row in first if not row.fault]
    looks = guess_format(sound[0].value) if sound else None
    closer = name == "traces" and looks == "processbench"
    if sound and (closer or not any(fits(row.value) for row in sound)):
        keys = ", ".join(f"'{key}'" for key in list(sound[0].value)[:8])
        raise TraceFormatError(
            f"'{path}' is not in format {name}: "
            + (
                f"it looks like {looks}."
                if looks
                else f"its first row has the keys {keys or 'of no format'}."
            ),
            where=f"{path}, row {sound[0].index + 1}",
            remedy=f"stepgold import {looks} ..."
            if looks
            else "see the README for the keys of each format",
        )
    yield from itertools.chain(first, rows)


def _traces(
    known: FileFormat, path: Path, reading: Reading
) -> Iterator[ImportedTrace | RejectedRow]:
    parse = known.parse
    if parse is None:
        raise InputError(f"Format '{known.name}' is only written.", remedy="choose another format")
    mapped = known.maps_lists and is_object_of_lists(path, field_names=FIELD_NAMES)
    rows = read_mapped_rows(path) if mapped else read_rows(path)
    seen: set[str] = set()
    labelers: dict[str, Labeler] = {}
    problems: dict[str, int] = {}
    for row in checked_rows(rows, path, known.name, known.fits):
        if row.fault is not None:
            yield reading.rejected(row, None, f"the row {row.fault}")
            continue
        try:
            found = list(parse(row, reading))
        except RowFault as fault:
            yield reading.rejected(row, known.name_row(row, reading), str(fault))
            continue
        refused: set[str] = set()
        for item in found:
            if isinstance(item, ImportedTrace):
                reason = _clash(item, seen, labelers, problems)
                if reason is not None:
                    refused.add(item.trace.id)
                    yield reading.rejected(row, item.trace.id, reason)
                    continue
            elif item.imported and item.id in refused:
                continue
            yield item


def _clash(
    item: ImportedTrace, seen: set[str], labelers: dict[str, Labeler], problems: dict[str, int]
) -> str | None:
    """Why a trace contradicts what came before it in the file; None if it does not."""
    if item.trace.id in seen:
        return "the id stands twice in the file"
    asked = item.problem
    content = hash((asked.question, asked.options, asked.answer, asked.images))
    if problems.setdefault(asked.id, content) != content:
        return f"problem '{asked.id}' is another question here than before"
    for labeler, _ in item.labels:
        known = labelers.setdefault(labeler.name, labeler)
        if known != labeler:
            return f"labeler '{labeler.name}' is of kind {labeler.kind.value} here and {known.kind.value} before"
    seen.add(item.trace.id)
    return None
