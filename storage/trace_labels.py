"""Rows of labels: inserted through the driver, read for a chunk of traces at a time."""

from __future__ import annotations

import gc
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, String, func, select, type_coerce

from storage.columns import Columns, decode_optional, dump_json
from storage.database import Connections
from storage.lookups import trace_pages
from storage.records import QUOTE, LabelColumns
from storage.rows import CHUNK, chunks, delete_where, insert_rows, insert_tuples, now, reserve
from storage.steps import MARKS, LabelArrays, unpack_scored, unpack_steps
from storage.tables import (
    QUOTES,
    STEP_LABELS,
    STEP_NOTES,
    TRACE_LABELS,
    TRACES,
)
from traces import Abstention, AbstentionReason, Quote, StepLabel, TraceLabel, Verdict

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
        with connections.read() as connection, uncollected():
            found = labels_of(connection, labeler.pk, {row.pk: row.id for row in page})
        yield from found.values()


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector: it would search the new labels again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def labels_of(
    connection: Connection, labeler: int, traces: Mapping[int, str]
) -> dict[str, TraceLabel]:
    """A labeler's labels on traces given as ids by key, by id and in their order."""
    found: dict[int, TraceLabel] = {}
    for chunk in chunks(traces):
        rows = connection.execute(_labels(labeler, chunk)).all()
        rows = [row for row in rows if row.trace_pk in traces]
        quotes = _quotes(connection, [row.pk for row in rows])
        plain = [
            (marks, scores)
            for pk, *_, marks, scores, notes in rows
            if scores and not notes and pk not in quotes and len(scores) == 8 * len(marks)
        ]
        bulk = iter(unpack_scored("".join(m for m, _ in plain), b"".join(s for _, s in plain)))
        for pk, key, given, index, reason, detail, meta, marks, scores, notes in rows:
            if not marks:
                steps: tuple[StepLabel, ...] = ()
            elif notes or pk in quotes or not scores or len(scores) < 8 * len(marks):
                steps = unpack_steps(marks, scores, _json(notes), quotes.get(pk))
            else:
                steps = tuple(islice(bulk, len(marks)))
            found[key] = TraceLabel(
                traces[key],
                step_labels=steps,
                first_error_given=given,
                first_error_index=index,
                abstention=None if reason is None else _abstention(reason, detail),
                meta=_json(meta),
            )
    return {traces[key]: label for key in traces if (label := found.get(key)) is not None}


def label_arrays(connection: Connection, labeler: int, traces: Mapping[int, str]) -> LabelArrays:
    """A labeler's labels on traces given as ids by key, in their order."""
    label, steps = TRACE_LABELS.c, STEP_LABELS.c
    query = (
        select(label.trace_pk, label.abstention, label.first_error_given, label.first_error_index)
        .add_columns(steps.marks, steps.scores)
        .outerjoin_from(TRACE_LABELS, STEP_LABELS, steps.trace_label_pk == label.pk)
        .where(label.labeler_pk == labeler)
    )
    found = {
        row[0]: row
        for chunk in chunks(traces)
        for row in connection.execute(query.where(among(label.trace_pk, chunk))).all()
    }
    rows = [(found[key], traces[key]) for key in traces if key in found]
    return LabelArrays.of([(row[0], id_, *row[1:]) for row, id_ in rows])


def among(column: ColumnElement[int], keys: Sequence[int]) -> ColumnElement[bool]:
    """That a key is one of these, or between them: an interval is faster to look up."""
    low, high = min(keys), max(keys)
    return column.between(low, high) if high - low < _SPREAD * len(keys) else column.in_(keys)


def _labels(labeler: int, traces: Sequence[int]) -> Select[Any]:
    label, steps = TRACE_LABELS.c, STEP_LABELS.c
    return (
        select(
            label.pk,
            label.trace_pk,
            label.first_error_given,
            label.first_error_index,
            label.abstention,
            label.abstention_detail,
            type_coerce(label.meta, String),
            steps.marks,
            steps.scores,
            type_coerce(STEP_NOTES.c.notes, String),
        )
        .outerjoin_from(TRACE_LABELS, STEP_LABELS, steps.trace_label_pk == label.pk)
        .outerjoin(STEP_NOTES, STEP_NOTES.c.trace_label_pk == steps.trace_label_pk)
        .where(label.labeler_pk == labeler, among(label.trace_pk, traces))
    )


def _quotes(connection: Connection, labels: Sequence[int]) -> dict[int, dict[int, Quote]]:
    quotes: dict[int, dict[int, Quote]] = defaultdict(dict)
    if labels:
        query = select(QUOTES).where(among(QUOTES.c.trace_label_pk, labels))
        for row in connection.execute(query).all():
            quotes[row.trace_label_pk][row.step_index] = QUOTE.record(row)
    return quotes


def _json(stored: Any) -> dict[str, Any]:
    """A JSON object as the driver gives it: as text, or parsed."""
    if stored is None or stored == "{}":
        return {}
    parsed: dict[str, Any] = json.loads(stored) if isinstance(stored, str) else stored
    return parsed


def _abstention(reason: str, detail: str | None) -> Abstention:
    return Abstention(AbstentionReason(reason), decode_optional(detail) or "")


def count_quotes(connection: Connection, labeler: int) -> dict[str, dict[str, int]]:
    """What `Votes.quotes` returns for the labeler with this key."""
    query = (
        select(STEP_LABELS.c.marks)
        .join(TRACE_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .where(TRACE_LABELS.c.labeler_pk == labeler)
    )
    steps: Counter[str] = Counter()
    for row in connection.execute(query.execution_options(yield_per=CHUNK)):
        steps.update(row.marks.lower())
    quoted = _quoted(labeler, _MARK, QUOTES.c.verified)
    found = {(row[0], row[1]): row[2] for row in connection.execute(quoted)}
    counts = {}
    for word in (*Verdict, AbstentionReason.NO_EVIDENCE):
        verified, other = (found.get((MARKS[word], flag), 0) for flag in (True, False))
        absent = steps[MARKS[word]] - verified - other
        counts[word.value] = {"verified": verified, "unverified": other, "absent": absent}
    return counts


def quote_methods(connection: Connection, labeler: int) -> dict[str, int]:
    """What `Votes.quote_methods` returns for the labeler with this key."""
    method = func.coalesce(func.nullif(QUOTES.c.method, ""), "unnamed")
    query = _quoted(labeler, method).where(
        QUOTES.c.verified.is_(True), _MARK.in_([MARKS[verdict] for verdict in Verdict])
    )
    return dict(sorted((row[0], row[1]) for row in connection.execute(query)))


_MARK = func.lower(func.substr(STEP_LABELS.c.marks, QUOTES.c.step_index + 1, 1))


def _quoted(labeler: int, *by: ColumnElement[Any]) -> Select[Any]:
    """The number of quoted steps of a labeler by these columns."""
    return (
        select(*by, func.count())
        .select_from(TRACE_LABELS)
        .join(STEP_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .join(QUOTES, QUOTES.c.trace_label_pk == STEP_LABELS.c.trace_label_pk)
        .where(TRACE_LABELS.c.labeler_pk == labeler)
        .group_by(*by)
    )
