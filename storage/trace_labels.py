"""Rows of labels: inserted through the driver, read for a chunk of traces at a time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, String, select, type_coerce

from storage.columns import Columns, decode_optional, dump_json
from storage.database import Connections
from storage.lookups import trace_pages
from storage.records import QUOTE, LabelColumns
from storage.rows import CHUNK, chunks, delete_where, insert_rows, insert_tuples, now, reserve
from storage.steps import LabelArrays, unpack_steps
from storage.tables import (
    QUOTES,
    STEP_LABELS,
    STEP_NOTES,
    TRACE_LABELS,
    TRACES,
)
from traces import Abstention, AbstentionReason, Quote, TraceLabel

_LABEL = (
    "pk",
    "labeler_pk",
    "trace_pk",
    "first_error_given",
    "first_error_index",
    "abstention",
    "abstention_detail",
    "meta",
    "imported",
    "created_at",
)
_STEPS = ("trace_label_pk", "marks", "scores", "labeled")
_SPREAD = 8


def insert_labels(
    connection: Connection, labels: Mapping[tuple[int, int], LabelColumns], *, imported: bool
) -> dict[tuple[int, int], int]:
    """Insert checked labels by (labeler key, trace key), and return their keys."""
    at = now()
    keys = dict(zip(labels, reserve(connection, TRACE_LABELS, len(labels)), strict=True))
    rows = [
        (keys[pair], *pair, *label.first_error, *label.abstention, label.meta, imported, at)
        for pair, label in labels.items()
    ]
    insert_tuples(connection, TRACE_LABELS, _LABEL, rows)
    packed = [(keys[pair], label.steps) for pair, label in labels.items() if label.steps]
    steps = [(pk, each.marks, each.scores, each.labeled) for pk, each in packed]
    insert_tuples(connection, STEP_LABELS, _STEPS, steps)
    notes = [(pk, dump_json(each.notes)) for pk, each in packed if each.notes]
    insert_tuples(connection, STEP_NOTES, ("trace_label_pk", "notes"), notes)
    quotes: list[Columns] = [
        columns | {"trace_label_pk": keys[pair]}
        for pair, label in labels.items()
        for columns in label.quotes
    ]
    insert_rows(connection, QUOTES, quotes)
    return keys


def delete_labels(connection: Connection, labeler: int, traces: Iterable[int]) -> int:
    """Delete the labeler's labels on the traces with these keys, and return how many there were."""
    mine = TRACE_LABELS.c.labeler_pk == labeler
    return delete_where(connection, TRACE_LABELS.c.trace_pk, traces, mine)


def stream_labels(
    connections: Connections, labeler: Row[Any], *, size: int = CHUNK
) -> Iterator[TraceLabel]:
    """All labels of a labeler in the order of import, each chunk of traces read by itself."""
    query = select(TRACES.c.pk, TRACES.c.id)
    for page in trace_pages(connections, labeler.dataset_pk, query, size=size):
        with connections.read() as connection:
            found = labels_of(connection, labeler.pk, [row.pk for row in page])
        yield from found.values()


def labels_of(connection: Connection, labeler: int, traces: Sequence[int]) -> dict[str, TraceLabel]:
    """A labeler's labels on the traces with these keys by trace id, in the order of the keys."""
    found: dict[int, TraceLabel] = {}
    for chunk in chunks(traces):
        on = _on(chunk)
        quotes: dict[int, dict[int, Quote]] = defaultdict(dict)
        for row in connection.execute(_quotes().where(TRACE_LABELS.c.labeler_pk == labeler, on)):
            quotes[row.trace_label_pk][row.step_index] = QUOTE.record(row)
        rows = connection.execute(_labels().where(TRACE_LABELS.c.labeler_pk == labeler, on))
        for pk, key, trace, given, index, reason, detail, meta, marks, scores, notes in rows:
            steps = unpack_steps(marks, scores, _json(notes), quotes.get(pk)) if marks else ()
            found[key] = TraceLabel(
                trace,
                step_labels=steps,
                first_error_given=given,
                first_error_index=index,
                abstention=None if reason is None else _abstention(reason, detail),
                meta=_json(meta),
            )
    return {label.trace_id: label for key in traces if (label := found.get(key)) is not None}


def label_arrays(connection: Connection, labeler: int, traces: Sequence[int]) -> LabelArrays:
    """A labeler's labels on the traces with these keys, in the order of the keys."""
    query = (
        select(
            TRACE_LABELS.c.trace_pk,
            TRACES.c.id,
            TRACE_LABELS.c.abstention,
            TRACE_LABELS.c.first_error_given,
            TRACE_LABELS.c.first_error_index,
            STEP_LABELS.c.marks,
            STEP_LABELS.c.scores,
        )
        .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
        .outerjoin(STEP_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .where(TRACE_LABELS.c.labeler_pk == labeler)
    )
    found = {
        row[0]: row
        for chunk in chunks(traces)
        for row in connection.execute(query.where(_on(chunk)))
    }
    return LabelArrays.of([row for key in traces if (row := found.get(key)) is not None])


def _on(traces: Sequence[int]) -> ColumnElement[bool]:
    """That a label is on one of the traces, or on one between them: an interval is faster."""
    column = TRACE_LABELS.c.trace_pk
    low, high = min(traces), max(traces)
    return column.between(low, high) if high - low < _SPREAD * len(traces) else column.in_(traces)


def _labels() -> Select[Any]:
    label, steps = TRACE_LABELS.c, STEP_LABELS.c
    return (
        select(
            label.pk,
            label.trace_pk,
            TRACES.c.id,
            label.first_error_given,
            label.first_error_index,
            label.abstention,
            label.abstention_detail,
            type_coerce(label.meta, String),
            steps.marks,
            steps.scores,
            type_coerce(STEP_NOTES.c.notes, String),
        )
        .join(TRACES, label.trace_pk == TRACES.c.pk)
        .outerjoin(STEP_LABELS, steps.trace_label_pk == label.pk)
        .outerjoin(STEP_NOTES, STEP_NOTES.c.trace_label_pk == steps.trace_label_pk)
    )


def _quotes() -> Select[Any]:
    return select(QUOTES).join(TRACE_LABELS, QUOTES.c.trace_label_pk == TRACE_LABELS.c.pk)


def _json(stored: Any) -> dict[str, Any]:
    """A JSON object as the driver gives it: as text, or parsed."""
    if stored is None or stored == "{}":
        return {}
    parsed: dict[str, Any] = json.loads(stored) if isinstance(stored, str) else stored
    return parsed


def _abstention(reason: str, detail: str | None) -> Abstention:
    return Abstention(AbstentionReason(reason), decode_optional(detail) or "")
