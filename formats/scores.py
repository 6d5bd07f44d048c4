"""A third party's outputs, matched to traces by id: JSONL rows of scores, verdicts or a first error.

`{"id": <trace id>, "scores": [0.9, null, ..]}`, `{"id", "verdicts": [1, 0, -1, null]}` or
`{"id", "first_error": 2 or null}`. Any of them may say whether the reason given for the first error is
right (`"reason_correct": true, false or null`): MR-Score's third part, which only a reader can judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from formats.files.container import read_rows
from formats.labels import read_label
from formats.reading import checked_rows, file_stem
from formats.rows import Reading, RowFault, optional_bool_of, text_of
from traces import RejectedRow, TraceLabel

_SAID = {"scores", "verdicts", "first_error"}
_REASON = "reason_correct"


def read_scores(path: Path, known: Mapping[str, int]) -> Iterator[TraceLabel | RejectedRow]:
    """Yield one label per usable row, and every row that fits no trace.

    Args:
        path: the file; a JSON list and gzip are read too.
        known: trace id -> number of steps of the dataset's traces. Which of them no row speaks of
            is for the caller to list: they may stand in another file of the same call.

    Raises:
        TraceFormatError: the file cannot be read to its end, or holds no scores; while iterating.
    """
    reading = Reading(str(path), file_stem(path))
    seen: set[str] = set()
    for row in checked_rows(read_rows(path), path, "scores", _fits):
        id = row.value.get("id")
        id = id if isinstance(id, str) else None
        try:
            if row.fault is not None:
                raise RowFault(f"the row {row.fault}")
            label = _label(row.value, known)
            if label.trace_id in seen:
                raise RowFault("the id stands twice in the file")
        except RowFault as fault:
            yield reading.rejected(row, id, str(fault))
            continue
        seen.add(label.trace_id)
        yield label


def _fits(row: Mapping[str, Any]) -> bool:
    return "id" in row and bool(row.keys() & _SAID)


def _label(row: Mapping[str, Any], known: Mapping[str, int]) -> TraceLabel:
    trace_id = text_of(row, "id")
    if trace_id not in known:
        raise RowFault("the dataset has no trace of this id")
    entry = {key: row[key] for key in _SAID & row.keys()}
    reason = optional_bool_of(row, _REASON)
    meta = {} if reason is None else {_REASON: reason}
    return read_label(trace_id, entry | {"meta": meta}, known[trace_id])
