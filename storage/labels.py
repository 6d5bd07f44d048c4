"""Labels: written a call at a time, read a labeler at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, or_, select, update

from storage import checks
from storage.codecs.labels import (
    continuation_columns,
    continuation_from,
    labeler_columns,
    labeler_from,
    quote_columns,
    quote_from,
    step_label_columns,
    step_label_from,
    trace_label_columns,
    trace_label_from,
)
from storage.connection import Connections, delete_where_in, insert_keyed, insert_rows, now
from storage.datasets import IMPORT_ORDER, TraceKey, dataset_pk, trace_keys
from storage.outcomes import LabelerSummary
from storage.tables import (
    CONTINUATIONS,
    DATASETS,
    FAILURES,
    LABELERS,
    QUOTES,
    STEP_LABELS,
    TRACE_LABELS,
    TRACES,
)
from traces import Continuation, InputError, Labeler, LabelerKind, Quote, StepLabel, TraceLabel


def labeler_row(connection: Connection, dataset: int, name: str) -> Row[Any]:
    """The row of a labeler.

    Raises:
        InputError: the dataset has none of that name.
    """
    found = _find(connection, dataset, name)
    if found is None:
        names = connection.scalars(select(LABELERS.c.name).where(LABELERS.c.dataset_pk == dataset))
        raise checks.known("labeler", name, names, make="run a labelling command first")
    return found


_HUMAN = (LabelerKind.GOLD, LabelerKind.EXPERT)
DECLARE_REMEDY = "give this one another name, or drop the old labels with --replace"


def declare(
    connection: Connection,
    dataset: int,
    labeler: Labeler,
    *,
    replace: bool = False,
    remedy: str = DECLARE_REMEDY,
) -> int:
    """Make a labeler known and give its key; the same one again changes nothing.

    With `replace`, another configuration under the same name drops the old one with its labels.

    Raises:
        InputError: the name is taken by another kind, model or configuration and `replace` is False,
            or it is the name of human annotation and this is none.
    """
    if labeler.name == "gold" and labeler.kind not in _HUMAN:
        raise InputError(
            f'Only human annotation is called "gold"; this is a labeler of kind {labeler.kind.value}.',
            remedy="give it another name",
        )
    columns = labeler_columns(labeler)
    found = _find(connection, dataset, labeler.name)
    if found is not None:
        stored = _identity(found.kind, found.model, found.config)
        wanted = _identity(columns["kind"], columns["model"], columns["config"])
        if checks.canonical(stored) == checks.canonical(wanted):
            add_resolved_model(connection, int(found.pk), labeler.resolved_model)
            return int(found.pk)
        if not replace:
            raise InputError(
                f"The labeler {labeler.name!r} was made with another configuration:"
                f" {checks.differences(stored, wanted)}.",
                remedy=remedy,
            )
        connection.execute(delete(LABELERS).where(LABELERS.c.pk == found.pk))
    row = columns | {"dataset_pk": dataset, "created_at": now()}
    pk = connection.scalar(LABELERS.insert().values(row).returning(LABELERS.c.pk))
    return int(pk or 0)


def load_labelers(connection: Connection, dataset: str, name: str) -> Labeler:
    """The labeler of that name."""
    return labeler_from(labeler_row(connection, dataset_pk(connection, dataset), name))


def add_resolved_model(connection: Connection, labeler: int, resolved_model: str | None) -> None:
    """Note the model version that answered; if several did, all of them stay visible."""
    if not resolved_model:
        return
    stored = connection.scalar(select(LABELERS.c.resolved_model).where(LABELERS.c.pk == labeler))
    versions = {*(stored or "").split(", "), *resolved_model.split(", ")} - {""}
    joined = ", ".join(sorted(versions))
    if joined != stored:
        connection.execute(
            update(LABELERS).where(LABELERS.c.pk == labeler).values(resolved_model=joined)
        )


def summaries(connection: Connection, dataset: str | None) -> list[LabelerSummary]:
    """How much each labeler has said, in the order in which they were declared."""
    labels = (
        select(
            TRACE_LABELS.c.labeler_pk,
            func.count().label("traces"),
            func.count(TRACE_LABELS.c.abstention).label("abstained"),
        )
        .group_by(TRACE_LABELS.c.labeler_pk)
        .subquery()
    )
    steps = (
        select(TRACE_LABELS.c.labeler_pk, func.count().label("steps"))
        .join(STEP_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .where(or_(STEP_LABELS.c.verdict.is_not(None), STEP_LABELS.c.score.is_not(None)))
        .group_by(TRACE_LABELS.c.labeler_pk)
        .subquery()
    )
    query = (
        select(
            DATASETS.c.name.label("dataset"),
            LABELERS,
            func.coalesce(labels.c.traces, 0).label("traces"),
            func.coalesce(labels.c.abstained, 0).label("abstained"),
            func.coalesce(steps.c.steps, 0).label("steps"),
        )
        .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
        .outerjoin(labels, labels.c.labeler_pk == LABELERS.c.pk)
        .outerjoin(steps, steps.c.labeler_pk == LABELERS.c.pk)
        .order_by(DATASETS.c.pk, LABELERS.c.pk)
    )
    if dataset is not None:
        query = query.where(DATASETS.c.pk == dataset_pk(connection, dataset))
    return [
        LabelerSummary(row.dataset, labeler_from(row), row.traces, row.steps, row.abstained)
        for row in connection.execute(query)
    ]


def remove(connection: Connection, dataset: str, name: str) -> None:
    """Remove a labeler with all its labels."""
    found = labeler_row(connection, dataset_pk(connection, dataset), name)
    connection.execute(delete(LABELERS).where(LABELERS.c.pk == found.pk))


def _identity(kind: str, model: str | None, config: dict[str, Any]) -> dict[str, Any]:
    """What makes a labeler the same one; an option that is called like a field keeps apart from it."""
    fields = {"kind": kind, "model": model}
    return fields | {f"{key} " if key in fields else key: config[key] for key in config}


def _find(connection: Connection, dataset: int, name: str) -> Row[Any] | None:
    query = select(LABELERS).where(LABELERS.c.dataset_pk == dataset, LABELERS.c.name == name)
    return connection.execute(query).one_or_none()


# --- Labels: written a call at a time, read a labeler at a time


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


# --- Traces that a labeler saw with fewer documents than they have, because not all of them fit


_DROPPED, _KEPT, _TOKENS = "documents_dropped", "documents", "tokens"
"""Keys of a label's meta."""


@dataclass(frozen=True, slots=True)
class ShortenedTrace:
    """A trace that was labelled, but not with all its documents."""

    dataset: str
    """Its dataset."""
    labeler: str
    """Who labelled it."""
    id: str
    """The trace."""
    dropped: int
    """Documents that were left out, at least 1."""
    kept: int
    """Documents that were not."""
    tokens: int | None
    """Tokens of the whole with those kept; None if the labeler did not say."""


class Shortened:
    """What was shortened, from the labels themselves."""

    def __init__(self, connections: Connections) -> None:
        """Read through these connections."""
        self._connections = connections

    def load(self, dataset: str | None = None, labeler: str | None = None) -> list[ShortenedTrace]:
        """Every such trace, by dataset, labeler and order of import.

        Args:
            dataset: of one dataset; None for all.
            labeler: of one labeler; None for all.

        Raises:
            InputError: there is no such dataset.
        """
        meta = TRACE_LABELS.c.meta
        query = (
            select(
                DATASETS.c.name.label("dataset"),
                LABELERS.c.name.label("labeler"),
                TRACES.c.id,
                meta[_DROPPED].as_integer().label("dropped"),
                meta[_KEPT].as_integer().label("kept"),
                meta[_TOKENS].as_integer().label("tokens"),
            )
            .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
            .join(LABELERS, TRACE_LABELS.c.labeler_pk == LABELERS.c.pk)
            .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
            .where(meta[_DROPPED].as_integer() > 0)
            .order_by(DATASETS.c.pk, LABELERS.c.pk, *IMPORT_ORDER)
        )
        with self._connections.read() as connection:
            if dataset is not None:
                query = query.where(DATASETS.c.pk == dataset_pk(connection, dataset))
            if labeler is not None:
                query = query.where(LABELERS.c.name == labeler)
            return [
                ShortenedTrace(
                    row.dataset, row.labeler, row.id, row.dropped, row.kept or 0, row.tokens
                )
                for row in connection.execute(query)
            ]
