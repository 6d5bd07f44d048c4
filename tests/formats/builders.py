"""Small rows and files for the tests of formats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

from formats import read_file
from formats.trace_files import ReadOptions
from traces.labels import TraceLabel
from traces.records import ImportedTrace, RejectedRow


def jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A JSONL file of the rows."""
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def read(
    format: str,
    path: Path,
    **options: Unpack[ReadOptions],
) -> tuple[list[ImportedTrace], list[RejectedRow]]:
    """Traces and rejected rows of a file, apart."""
    found = list(read_file(format, path, **options))
    traces = [item for item in found if isinstance(item, ImportedTrace)]
    return traces, [item for item in found if isinstance(item, RejectedRow)]


def labels_by_name(trace: ImportedTrace) -> dict[str, TraceLabel]:
    """The labels of a trace under their labelers' names."""
    return {labeler.name: label for labeler, label in trace.labels}
