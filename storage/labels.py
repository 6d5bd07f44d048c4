"""Labelers and their labels: written a few at a time, read a labeler at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    exists,
    func,
    select,
    update,
)

from storage import checks
from storage.columns import Columns
from storage.database import Connections
from storage.failures import Failures
from storage.lookups import (
    IMPORT_ORDER,
    TraceKey,
    dataset_pk,
    find_labeler,
    labeler_row,
    trace_keys,
    trace_pages,
)
from storage.records import (
    CONTINUATION,
    LABELER,
    LabelColumns,
    continuation_columns,
    label_columns,
    vote_columns,
    vote_from,
)
from storage.rows import CHUNK, chunks, delete_where, insert_one, insert_rows, now
from storage.steps import LabelArrays, TraceColumns
from storage.tables import (
    CONTINUATIONS,
    DATASETS,
    FAILURES,
    LABELERS,
    STEP_LABELS,
    TRACE_LABELS,
    TRACES,
    VOTES,
)
from storage.trace_labels import (
    count_quotes,
    delete_labels,
    insert_labels,
    label_arrays,
    labels_of,
    quote_methods,
    stream_labels,
    uncollected,
)
from traces import (
    Continuation,
    InputError,
    Labeler,
    LabelerKind,
    TraceLabel,
    Vote,
)

DECLARE_REMEDY = "use another name, or drop the old labels with --replace"
_HUMAN = (LabelerKind.GOLD, LabelerKind.EXPERT)


@dataclass(frozen=True, slots=True)
class LabelerSummary:
    """A labeler and how much it has labeled."""

    dataset: str
    labeler: Labeler
    """With every resolved model version."""
    traces: int
    """Traces with a stored label, including abstentions."""
    steps: int
    """Steps with a verdict or a score."""
    abstained: int
    """Traces on which it abstained as a whole."""


@dataclass(frozen=True, slots=True)
class ShortenedTrace:
    """A trace that was labeled without some of its documents, because not all of them fit."""

    dataset: str
    labeler: str
    id: str
    dropped: int
    """Documents that were left out, at least 1."""
    kept: int
    """Documents that were not."""
    tokens: int | None
    """Tokens of the prompt with the kept documents; None if the labeler did not record them."""


@dataclass(frozen=True, slots=True)
class VoteTotals:
    """How a labeler's voting went."""

    traces: int
    """Traces whose label was made from votes."""
    cast: int
    """Votes, including escalations."""
    escalated: int
    """Traces whose split vote was put to another model."""


class Labels:
    """Labelers with their labels, votes and failures; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.votes = Votes(connections)
        self.failures = Failures(connections)

    def declare(self, dataset: str, labeler: Labeler, *, replace: bool = False) -> None:
        """Register a labeler; registering the same one again keeps its labels.

        Raises:
            InputError: the name is taken by another kind, model or configuration; with `replace`
                that labeler is dropped with its labels instead.
        """
        with self._connections.write() as connection:
            owner = dataset_pk(connection, dataset)
            declare_labeler(connection, owner, labeler, replace=replace)

    def labelers(self, dataset: str | None = None) -> list[LabelerSummary]:
        """The labelers of one dataset or of all, in the order in which they were declared."""
        with self._connections.read() as connection:
            query = _summaries()
            if dataset is not None:
                query = query.where(DATASETS.c.pk == dataset_pk(connection, dataset))
            return [
                LabelerSummary(
                    dataset=row.dataset,
                    labeler=LABELER.record(row),
                    traces=row.traces,
                    steps=row.steps,
                    abstained=row.abstained,
                )
                for row in connection.execute(query)
            ]

    def labeler(self, dataset: str, name: str) -> Labeler:
        """The labeler of that name; `resolved_model` lists every version that answered."""
        with self._connections.read() as connection:
            return LABELER.record(find_labeler(connection, dataset, name))

    def remove_labeler(self, dataset: str, name: str) -> None:
        """Remove a labeler with all its labels."""
        with self._connections.write() as connection:
            found = find_labeler(connection, dataset, name)
            connection.execute(delete(LABELERS).where(LABELERS.c.pk == found.pk))

    def unlabeled_trace_ids(self, dataset: str, name: str) -> list[str]:
        """Traces without a label of the labeler, in import order; an abstention is a label."""
        with self._connections.read() as connection:
            labeler = find_labeler(connection, dataset, name)
        return list(self._ids(labeler.dataset_pk, ~_labeled_by(labeler)))

    def labeled_ids(self, dataset: str, names: Sequence[str]) -> Iterator[str]:
        """Traces that all these labelers labeled, in import order."""
        with self._connections.read() as connection:
            labelers = [find_labeler(connection, dataset, name) for name in names]
            owner = dataset_pk(connection, dataset)
        return self._ids(owner, *map(_labeled_by, labelers))

    def _ids(self, dataset: int, *conditions: ColumnElement[bool]) -> Iterator[str]:
        query = select(TRACES.c.id).where(*conditions)
        for page in trace_pages(self._connections, dataset, query, size=10 * CHUNK):
            yield from (row.id for row in page)

    def stamps(
        self, dataset: str, labeler: Labeler, trace_ids: Sequence[str]
    ) -> dict[str, str | None]:
        """When this very labeler labeled these traces; None where it has not.

        Traces that do not exist are left out; the labels of another labeler of its name do not
        count.
        """
        wanted = checks.canonical(_identity(LABELER.columns(labeler, "the labeler")))
        with self._connections.read() as connection:
            owner = dataset_pk(connection, dataset)
            found = labeler_row(connection, owner, labeler.name)
            same = found is not None and checks.canonical(_identity(found._mapping)) == wanted
            mine = and_(
                TRACE_LABELS.c.trace_pk == TRACES.c.pk,
                TRACE_LABELS.c.labeler_pk == (found.pk if found is not None and same else None),
            )
            query = select(TRACES.c.id, TRACE_LABELS.c.created_at).outerjoin(TRACE_LABELS, mine)
            query = query.where(TRACES.c.dataset_pk == owner)
            return {
                row.id: row.created_at
                for chunk in chunks(trace_ids)
                for row in connection.execute(query.where(TRACES.c.id.in_(chunk)))
            }

    def put(
        self,
        dataset: str,
        name: str,
        labels: Iterable[TraceLabel],
        *,
        resolved_model: str | None = None,
        continuations: Iterable[Continuation] = (),
    ) -> int:
        """Store labels with the continuations they were made from, all or none.

        A label replaces the labeler's previous label on the trace, with its continuations and
        votes, and clears the trace's failure. `resolved_model` is added to those of the labeler.

        Returns:
            How many labels were stored.

        Raises:
            InputError: a label does not fit its trace, is empty, or has a score outside [0, 1].
        """
        # Exhaust the caller's generators before taking the write lock: they may run for hours.
        ready, texts = list(labels), list(continuations)
        ids = [label.trace_id for label in ready]
        if len(set(ids)) < len(ids):
            [(twice, _)] = Counter(ids).most_common(1)
            raise InputError(f"There are two labels for trace {twice!r} in one call.")
        with self._connections.write() as connection:
            labeler = find_labeler(connection, dataset, name)
            keys = trace_keys(connection, labeler.dataset_pk, ids)
            checked: dict[tuple[int, int], LabelColumns] = {}
            for label in ready:
                key = keys[label.trace_id]
                checked[labeler.pk, key.pk] = label_columns(label, key.n_steps)
            rows = _continuation_rows(texts, keys)
            delete_labels(connection, labeler.pk, [key.pk for key in keys.values()])
            stored = insert_labels(connection, checked, imported=False)
            owned = [row | {"trace_label_pk": stored[labeler.pk, trace]} for trace, row in rows]
            insert_rows(connection, CONTINUATIONS, owned)
            here = and_(FAILURES.c.dataset_pk == labeler.dataset_pk, FAILURES.c.stage == name)
            delete_where(connection, FAILURES.c.id, ids, here)
            _add_resolved_model(connection, labeler.pk, resolved_model)
        return len(ready)

    def drop(self, dataset: str, name: str, trace_ids: Sequence[str]) -> int:
        """Delete the labeler's labels on these traces, and return how many there were."""
        with self._connections.write() as connection:
            labeler = find_labeler(connection, dataset, name)
            keys = trace_keys(connection, labeler.dataset_pk, trace_ids)
            return delete_labels(connection, labeler.pk, [key.pk for key in keys.values()])

    def load(
        self, dataset: str, name: str, trace_ids: Collection[str] | None = None
    ) -> dict[str, TraceLabel]:
        """Labels of a labeler (all, or on these traces) by trace id, in the order of import."""
        if trace_ids is None:
            with uncollected():
                return {label.trace_id: label for label in self.stream(dataset, name)}
        with self._connections.read() as connection:
            labeler = find_labeler(connection, dataset, name)
            keys = trace_keys(connection, labeler.dataset_pk, trace_ids)
            return labels_of(connection, labeler.pk, {key.pk: id_ for id_, key in keys.items()})

    def stream(self, dataset: str, name: str) -> Iterator[TraceLabel]:
        """All labels of a labeler in the order of import, read a thousand traces at a time."""
        with self._connections.read() as connection:
            labeler = find_labeler(connection, dataset, name)
        return stream_labels(self._connections, labeler)

    def columns(
        self, dataset: str, name: str, *, subset: str | None = None, size: int = 10 * CHUNK
    ) -> Iterator[LabelArrays]:
        """All labels of a labeler as arrays, in the order of import, `size` traces at a time.

        Texts are not read. For labels that are to be compared trace by trace, see `columns_of`.
        """
        with self._connections.read() as connection:
            labeler = find_labeler(connection, dataset, name)
        return self._arrays(labeler, subset=subset, size=size)

    def _arrays(self, labeler: Row[Any], *, subset: str | None, size: int) -> Iterator[LabelArrays]:
        query = select(TRACES.c.pk, TRACES.c.id)
        if subset is not None:
            query = query.where(TRACES.c.subset == subset)
        for page in trace_pages(self._connections, labeler.dataset_pk, query, size=size):
            with self._connections.read() as connection:
                found = label_arrays(connection, labeler.pk, {row.pk: row.id for row in page})
            if found.ids:
                yield found

    def columns_of(self, dataset: str, name: str, traces: TraceColumns) -> LabelArrays:
        """A labeler's labels on these traces as arrays, in their order; others are left out.

        The rows of `traces` that have a label are `numpy.isin(traces.keys, labels.keys)`.
        """
        with self._connections.read() as connection:
            labeler = find_labeler(connection, dataset, name)
            keys = dict(zip(traces.keys.tolist(), traces.ids, strict=True))
            return label_arrays(connection, labeler.pk, keys)

    def flags(self, dataset: str, name: str, key: str) -> dict[int, bool]:
        """By key of the trace, what the meta of a labeler's labels says under a key, yes or no.

        Labels whose meta does not say are left out.
        """
        with self._connections.read() as connection:
            labeler = find_labeler(connection, dataset, name)
            query = select(TRACE_LABELS.c.trace_pk, TRACE_LABELS.c.meta).where(
                TRACE_LABELS.c.labeler_pk == labeler.pk,
                TRACE_LABELS.c.meta[key].as_string().is_not(None),
            )
            rows = connection.execute(query)
            return {pk: meta[key] for pk, meta in rows if isinstance(meta[key], bool)}

    def abstentions(self, dataset: str, name: str) -> dict[str, int]:
        """Traces on which a labeler abstained as a whole, by reason in alphabetical order."""
        reason = TRACE_LABELS.c.abstention
        with self._connections.read() as connection:
            labeler = find_labeler(connection, dataset, name)
            query = select(reason, func.count().label("traces")).where(
                TRACE_LABELS.c.labeler_pk == labeler.pk, reason.is_not(None)
            )
            rows = connection.execute(query.group_by(reason))
            return dict(sorted((row.abstention, row.traces) for row in rows))

    def continuations(self, dataset: str, name: str, trace_id: str) -> list[Continuation]:
        """The continuations a label was made from, by step and number; may be empty."""
        with self._connections.read() as connection:
            labeler = find_labeler(connection, dataset, name)
            trace = trace_keys(connection, labeler.dataset_pk, [trace_id])[trace_id]
            query = (
                select(CONTINUATIONS)
                .join(TRACE_LABELS, CONTINUATIONS.c.trace_label_pk == TRACE_LABELS.c.pk)
                .where(TRACE_LABELS.c.labeler_pk == labeler.pk, TRACE_LABELS.c.trace_pk == trace.pk)
                .order_by(CONTINUATIONS.c.step_index, CONTINUATIONS.c.continuation_index)
            )
            rows = connection.execute(query)
            return [CONTINUATION.record(row, trace_id=trace_id) for row in rows]

    def shortened(
        self, dataset: str | None = None, labeler: str | None = None
    ) -> list[ShortenedTrace]:
        """Traces labeled with fewer documents than they have, by dataset, labeler and import order.

        Args:
            dataset: None for all.
            labeler: None for all.

        Raises:
            InputError: there is no such dataset.
        """
        meta = TRACE_LABELS.c.meta
        dropped = meta["documents_dropped"].as_integer()
        query = (
            select(
                DATASETS.c.name.label("dataset"),
                LABELERS.c.name.label("labeler"),
                TRACES.c.id,
                dropped.label("dropped"),
                func.coalesce(meta["documents"].as_integer(), 0).label("kept"),
                meta["tokens"].as_integer().label("tokens"),
            )
            .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
            .join(LABELERS, TRACE_LABELS.c.labeler_pk == LABELERS.c.pk)
            .join(DATASETS, LABELERS.c.dataset_pk == DATASETS.c.pk)
            .where(dropped > 0)
            .order_by(DATASETS.c.pk, LABELERS.c.pk, *IMPORT_ORDER)
        )
        with self._connections.read() as connection:
            if dataset is not None:
                query = query.where(DATASETS.c.pk == dataset_pk(connection, dataset))
            if labeler is not None:
                query = query.where(LABELERS.c.name == labeler)
            return [ShortenedTrace(**row._mapping) for row in connection.execute(query)]


class Votes:
    """Votes and quotes of judges' labels; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def put(self, dataset: str, labeler: str, votes: Iterable[Vote]) -> int:
        """Store the votes from which stored labels were made, and return how many.

        A label that is put again drops its votes: put both in one transaction, labels first.

        Raises:
            InputError: there is no label for a vote's trace, or the vote does not fit the trace.
        """
        ready = list(votes)
        with self._connections.write() as connection:
            owner = find_labeler(connection, dataset, labeler)
            query = (
                select(TRACES.c.id, TRACES.c.n_steps, TRACE_LABELS.c.pk)
                .join(TRACE_LABELS, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
                .where(
                    TRACE_LABELS.c.labeler_pk == owner.pk,
                    TRACES.c.id.in_({vote.trace_id for vote in ready}),
                )
            )
            labeled = {row.id: row for row in connection.execute(query)}
            rows = []
            for vote in ready:
                label = labeled.get(vote.trace_id)
                if label is None:
                    raise InputError(
                        f"There is a vote on trace {vote.trace_id!r}, but no label of {labeler!r}."
                    )
                rows.append(vote_columns(vote, label.n_steps) | {"trace_label_pk": label.pk})
            insert_rows(connection, VOTES, rows)
        return len(rows)

    def of(self, dataset: str, labeler: str, trace_id: str) -> tuple[Vote, ...]:
        """The votes of a labeler on one trace; an escalation comes last."""
        return self.load(dataset, labeler, trace_id=trace_id).get(trace_id, ())

    def load(
        self, dataset: str, labeler: str, *, trace_id: str | None = None
    ) -> dict[str, tuple[Vote, ...]]:
        """Votes of a labeler (all, or on one trace) by trace id, in import order; an escalation
        comes last."""
        found: dict[str, list[Vote]] = defaultdict(list)
        with self._connections.read() as connection:
            owner = find_labeler(connection, dataset, labeler)
            query = (
                select(VOTES, TRACES.c.id.label("trace_id"))
                .join(TRACE_LABELS, VOTES.c.trace_label_pk == TRACE_LABELS.c.pk)
                .join(TRACES, TRACE_LABELS.c.trace_pk == TRACES.c.pk)
                .where(TRACE_LABELS.c.labeler_pk == owner.pk)
                .order_by(*IMPORT_ORDER, VOTES.c.escalated, VOTES.c.vote_index)
            )
            if trace_id is not None:
                key = trace_keys(connection, owner.dataset_pk, [trace_id])[trace_id]
                query = query.where(TRACES.c.pk == key.pk)
            for row in connection.execute(query):
                found[row.trace_id].append(vote_from(row))
        return {trace_id: tuple(votes) for trace_id, votes in found.items()}

    def totals(self, dataset: str, labeler: str) -> VoteTotals:
        """How a labeler's voting went."""
        escalated = case((VOTES.c.escalated, 1), else_=0)
        with self._connections.read() as connection:
            owner = find_labeler(connection, dataset, labeler)
            query = (
                select(
                    func.count(VOTES.c.trace_label_pk.distinct()).label("traces"),
                    func.count().label("cast"),
                    func.coalesce(func.sum(escalated), 0).label("escalated"),
                )
                .select_from(VOTES)
                .join(TRACE_LABELS, VOTES.c.trace_label_pk == TRACE_LABELS.c.pk)
                .where(TRACE_LABELS.c.labeler_pk == owner.pk)
            )
            row = connection.execute(query).one()
        return VoteTotals(row.traces, row.cast, row.escalated)

    def quotes(self, dataset: str, labeler: str) -> Mapping[str, dict[str, int]]:
        """Verified, unverified and absent quotes of a labeler's steps, by verdict.

        Returns:
            For each of `correct`, `incorrect`, `neutral` and `no_evidence` the counts under
            `verified`, `unverified` and `absent`. Steps that have no verdict for another reason
            are left out.
        """
        with self._connections.read() as connection:
            return count_quotes(connection, find_labeler(connection, dataset, labeler).pk)

    def quote_methods(self, dataset: str, labeler: str) -> dict[str, int]:
        """Steps with a verdict and a verified quote, by how the quote matched, in alphabetical
        order."""
        with self._connections.read() as connection:
            return quote_methods(connection, find_labeler(connection, dataset, labeler).pk)


def declare_labeler(
    connection: Connection,
    dataset: int,
    labeler: Labeler,
    *,
    replace: bool = False,
    remedy: str = DECLARE_REMEDY,
) -> int:
    """Register a labeler and return its key; see `Labels.declare`.

    Raises:
        InputError: the name is taken by another kind, model or configuration and `replace` is
            False, or it is reserved for human annotation.
    """
    if labeler.name == "gold" and labeler.kind not in _HUMAN:
        raise InputError(
            'Only human annotation may be named "gold"; this labeler is of kind'
            f" {labeler.kind.value}.",
            remedy="use another name",
        )
    columns = LABELER.columns(labeler, f"labeler {labeler.name!r}")
    found = labeler_row(connection, dataset, labeler.name)
    if found is not None:
        stored = _identity(found._mapping)
        wanted = _identity(columns)
        if checks.canonical(stored) == checks.canonical(wanted):
            _add_resolved_model(connection, found.pk, labeler.resolved_model)
            return int(found.pk)
        if not replace:
            raise InputError(
                f"The labeler {labeler.name!r} has another configuration:"
                f" {checks.differences(stored, wanted)}.",
                remedy=remedy,
            )
        connection.execute(delete(LABELERS).where(LABELERS.c.pk == found.pk))
    row = columns | {"dataset_pk": dataset, "created_at": now()}
    return insert_one(connection, LABELERS, row)


def _labeled_by(labeler: Row[Any]) -> ColumnElement[bool]:
    return exists().where(
        TRACE_LABELS.c.trace_pk == TRACES.c.pk, TRACE_LABELS.c.labeler_pk == labeler.pk
    )


def _identity(columns: Mapping[Any, Any]) -> dict[str, Any]:
    """What two declarations of one labeler must share.

    An option named `kind` or `model` gets another key, so that it does not hide that field.
    """
    fields = {"kind": columns["kind"], "model": columns["model"]}
    config = checks.without_origin(columns["config"])
    return fields | {f"{key} " if key in fields else key: config[key] for key in config}


def _add_resolved_model(connection: Connection, labeler: int, resolved_model: str | None) -> None:
    """Record the model version that answered, beside those recorded before."""
    if not resolved_model:
        return
    stored = connection.scalar(select(LABELERS.c.resolved_model).where(LABELERS.c.pk == labeler))
    versions = {*(stored or "").split(", "), *resolved_model.split(", ")} - {""}
    joined = ", ".join(sorted(versions))
    if joined != stored:
        connection.execute(
            update(LABELERS).where(LABELERS.c.pk == labeler).values(resolved_model=joined)
        )


def _summaries() -> Any:
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
        select(TRACE_LABELS.c.labeler_pk, func.sum(STEP_LABELS.c.labeled).label("steps"))
        .join(STEP_LABELS, STEP_LABELS.c.trace_label_pk == TRACE_LABELS.c.pk)
        .group_by(TRACE_LABELS.c.labeler_pk)
        .subquery()
    )
    return (
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
