"""Labels: written a call at a time, read a labeler at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, select

from storage.bulk import delete_where_in, insert_keyed, insert_rows, now
from storage.codecs.labels import (
    continuation_columns,
    continuation_from,
    quote_columns,
    quote_from,
    step_label_columns,
    step_label_from,
    trace_label_columns,
    trace_label_from,
)
from storage.datasets import IMPORT_ORDER, TraceKey, dataset_pk, trace_keys
from storage.labelers import add_resolved_model, labeler_row
from storage.tables import CONTINUATIONS, FAILURES, QUOTES, STEP_LABELS, TRACE_LABELS, TRACES
from traces.errors import InputError
from traces.evidence import Quote
from traces.labels import StepLabel, TraceLabel
from traces.records import Continuation

Columns = dict[str, Any]
"""Column values by name."""


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """A label that was checked, as columns without the keys."""

    trace_label: Columns
    """Of the trace label."""
    step_labels: list[Columns]
    """Of the step labels."""
    quotes: list[Columns]
    """Of the quotes."""


def check_label(label: TraceLabel, n_steps: int) -> LabelColumns:
    """The label as columns.

    Raises:
        InputError: it does not fit the trace or cannot be stored.
    """
    return LabelColumns(
        trace_label_columns(label, n_steps),
        [
            step_label_columns(step, label.trace_id, index)
            for index, step in enumerate(label.step_labels)
        ],
        [
            quote_columns(step.quote, index)
            for index, step in enumerate(label.step_labels)
            if step.quote is not None
        ],
    )


def insert_labels(
    connection: Connection,
    labels: Mapping[tuple[int, int], LabelColumns],
    *,
    imported: bool,
) -> dict[tuple[int, int], int]:
    """Insert checked labels by (key of the labeler, key of the trace); give their keys."""
    moment = now()
    rows = [
        label.trace_label
        | {
            "labeler_pk": labeler,
            "trace_pk": trace,
            "imported": imported,
            "created_at": moment,
        }
        for (labeler, trace), label in labels.items()
    ]
    keys = insert_keyed(connection, TRACE_LABELS, rows, "labeler_pk", "trace_pk")
    for table, part in ((STEP_LABELS, "step_labels"), (QUOTES, "quotes")):
        insert_rows(
            connection,
            table,
            [
                columns | {"trace_label_pk": keys[pair]}
                for pair, label in labels.items()
                for columns in getattr(label, part)
            ],
        )
    return keys


def put(
    connection: Connection,
    dataset: str,
    name: str,
    labels: Sequence[TraceLabel],
    *,
    resolved_model: str | None,
    continuations: Sequence[Continuation],
) -> int:
    """Store labels, each in place of what the labeler said on the trace before; return how many.

    What is stored for a trace is exactly what its last call gave: a new label drops the continuations
    behind the old one. Explicit failures of this labeler on these traces are cleared.
    """
    owner = dataset_pk(connection, dataset)
    labeler = labeler_row(connection, owner, name)
    labeler_pk: int = labeler.pk
    ids = [label.trace_id for label in labels]
    if len(set(ids)) < len(ids):
        twice = next(trace_id for trace_id in ids if ids.count(trace_id) > 1)
        raise InputError(f"There are two labels for trace {twice!r} in one call.")
    keys = trace_keys(connection, owner, ids)
    checked = {
        (labeler_pk, keys[label.trace_id].pk): check_label(label, keys[label.trace_id].n_steps)
        for label in labels
    }
    drawn = _continuation_rows(continuations, keys)
    pks = [pk for _, pk in checked]
    delete_where_in(
        connection,
        TRACE_LABELS,
        TRACE_LABELS.c.trace_pk,
        pks,
        TRACE_LABELS.c.labeler_pk == labeler_pk,
    )
    stored = insert_labels(connection, checked, imported=False)
    insert_rows(
        connection,
        CONTINUATIONS,
        [row | {"trace_label_pk": stored[labeler_pk, pk]} for pk, row in drawn],
    )
    here = (FAILURES.c.dataset_pk == owner, FAILURES.c.stage == name)
    delete_where_in(connection, FAILURES, FAILURES.c.id, ids, *here)
    add_resolved_model(connection, labeler_pk, resolved_model)
    return len(checked)


def drop(connection: Connection, dataset: str, name: str, trace_ids: Sequence[str]) -> int:
    """Delete what a labeler said on these traces; return on how many it had said something."""
    owner = dataset_pk(connection, dataset)
    labeler = labeler_row(connection, owner, name)
    keys = trace_keys(connection, owner, trace_ids)
    return delete_where_in(
        connection,
        TRACE_LABELS,
        TRACE_LABELS.c.trace_pk,
        [key.pk for key in keys.values()],
        TRACE_LABELS.c.labeler_pk == labeler.pk,
    )


def load(connection: Connection, dataset: str, name: str) -> dict[str, TraceLabel]:
    """All labels of a labeler by trace id, in the order of import."""
    labeler = labeler_row(connection, dataset_pk(connection, dataset), name)
    mine = TRACE_LABELS.c.labeler_pk == labeler.pk
    quotes: dict[tuple[int, int], Quote] = {
        (row.trace_label_pk, row.step_index): quote_from(row)
        for row in connection.execute(
            select(QUOTES)
            .join(TRACE_LABELS, QUOTES.c.trace_label_pk == TRACE_LABELS.c.pk)
            .where(mine)
        )
    }
    steps: dict[int, list[StepLabel]] = defaultdict(list)
    query = (
        select(STEP_LABELS)
        .join(TRACE_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .where(mine)
        .order_by(STEP_LABELS.c.trace_label_pk, STEP_LABELS.c.step_index)
    )
    for row in connection.execute(query):
        quote = quotes.get((row.trace_label_pk, row.step_index))
        steps[row.trace_label_pk].append(step_label_from(row, quote))
    rows = connection.execute(
        select(TRACE_LABELS, TRACES.c.id.label("trace_id"))
        .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
        .where(mine)
        .order_by(*IMPORT_ORDER)
    )
    return {row.trace_id: trace_label_from(row, tuple(steps.get(row.pk, ()))) for row in rows}


def continuations(
    connection: Connection, dataset: str, name: str, trace_id: str
) -> list[Continuation]:
    """The continuations behind a label, by step and number; empty if there are none."""
    owner = dataset_pk(connection, dataset)
    labeler = labeler_row(connection, owner, name)
    trace = trace_keys(connection, owner, [trace_id])[trace_id]
    query = (
        select(CONTINUATIONS)
        .join(TRACE_LABELS, CONTINUATIONS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .where(TRACE_LABELS.c.labeler_pk == labeler.pk, TRACE_LABELS.c.trace_pk == trace.pk)
        .order_by(CONTINUATIONS.c.step_index, CONTINUATIONS.c.continuation_index)
    )
    return [continuation_from(row, trace_id) for row in connection.execute(query)]


def unlabeled_trace_ids(connection: Connection, dataset: str, name: str) -> list[str]:
    """Traces without a stored word of the labeler, in the order of import; an abstention is a word."""
    owner = dataset_pk(connection, dataset)
    labeler = labeler_row(connection, owner, name)
    labelled = exists().where(
        TRACE_LABELS.c.trace_pk == TRACES.c.pk, TRACE_LABELS.c.labeler_pk == labeler.pk
    )
    query = select(TRACES.c.id).where(TRACES.c.dataset_pk == owner, ~labelled)
    return list(connection.scalars(query.order_by(*IMPORT_ORDER)))


def drop_imported(connection: Connection, traces: Iterable[int]) -> None:
    """Delete the labels that came with the rows of these traces."""
    delete_where_in(
        connection,
        TRACE_LABELS,
        TRACE_LABELS.c.trace_pk,
        traces,
        TRACE_LABELS.c.imported.is_(True),
    )


def _continuation_rows(
    continuations: Sequence[Continuation], keys: Mapping[str, TraceKey]
) -> list[tuple[int, Columns]]:
    rows = []
    for continuation in continuations:
        key = keys.get(continuation.trace_id)
        if key is None:
            raise InputError(
                f"There are continuations of trace {continuation.trace_id!r}, but no label of it in"
                " the same call."
            )
        rows.append((key.pk, continuation_columns(continuation, key.n_steps)))
    return rows
