"""From the names of datasets, labelers and traces to the keys of their rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, literal, select, tuple_

from storage import checks
from storage.database import Connections
from storage.rows import CHUNK, chunks, insert_one, now
from storage.tables import DATASETS, LABELERS, TRACES
from traces import InputError, meant

IMPORT_ORDER = (TRACES.c.source_file_pk, TRACES.c.position)
"""The order of every listing of traces."""
_PLACE = (*IMPORT_ORDER, TRACES.c.pk)


@dataclass(frozen=True, slots=True)
class TraceKey:
    """The key of a trace's row, and how many steps the trace has."""

    pk: int
    n_steps: int


def dataset_pk(connection: Connection, dataset: str) -> int:
    """The key of a dataset.

    Raises:
        InputError: there is none of that name.
    """
    pk = _find(connection, dataset)
    if pk is None:
        names = connection.scalars(select(DATASETS.c.name))
        raise checks.known(
            "dataset", dataset, names, make="import one with `stepgold import FORMAT FILE`"
        )
    return pk


def ensure_dataset(connection: Connection, dataset: str) -> int:
    """The key of a dataset, which is created if it is new.

    Raises:
        InputError: the name cannot be stored.
    """
    name = checks.name(dataset, "The dataset name")
    pk = _find(connection, name)
    if pk is None:
        return insert_one(connection, DATASETS, {"name": name, "created_at": now()})
    return pk


def find_labeler(connection: Connection, dataset: str, name: str) -> Row[Any]:
    """The row of a labeler.

    Raises:
        InputError: there is no such dataset, or it has no such labeler.
    """
    owner = dataset_pk(connection, dataset)
    found = labeler_row(connection, owner, name)
    if found is None:
        names = connection.scalars(select(LABELERS.c.name).where(LABELERS.c.dataset_pk == owner))
        raise checks.known("labeler", name, names, make="run a labeling command first")
    return found


def labeler_row(connection: Connection, dataset: int, name: str) -> Row[Any] | None:
    """The row of a labeler; None if the dataset has none of that name."""
    query = select(LABELERS).where(LABELERS.c.dataset_pk == dataset, LABELERS.c.name == name)
    return connection.execute(query).one_or_none()


_SUGGESTED_AMONG = 2000
"""Ids among which the one that was meant is looked for."""


def trace_keys(
    connection: Connection, dataset: int, trace_ids: Collection[str] | None = None
) -> dict[str, TraceKey]:
    """The traces of a dataset (or those with these ids) by id, in the order of import.

    Raises:
        InputError: the dataset has no trace of that id.
    """
    columns = (TRACES.c.id, TRACES.c.pk, TRACES.c.n_steps)
    query = select(*columns, *IMPORT_ORDER).where(TRACES.c.dataset_pk == dataset)
    if trace_ids is None:
        rows = connection.execute(query.order_by(*IMPORT_ORDER))
        return {row.id: TraceKey(row.pk, row.n_steps) for row in rows}
    wanted = set(trace_ids)
    found = [
        row
        for chunk in chunks(wanted)
        for row in connection.execute(query.where(TRACES.c.id.in_(chunk)))
    ]
    if len(found) < len(wanted):
        unknown = sorted(wanted - {row.id for row in found})
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        some = connection.scalars(
            select(TRACES.c.id).where(TRACES.c.dataset_pk == dataset).limit(_SUGGESTED_AMONG)
        ).all()
        known = f"its traces: {', '.join(some[:3])}{' ...' if len(some) > 3 else ''}"
        raise InputError(
            f"The dataset has no trace {unknown[0]!r}{more}.",
            remedy=meant(unknown[0], some, known) if some else None,
        )
    found.sort(key=lambda row: tuple(row[3:]))
    return {row.id: TraceKey(row.pk, row.n_steps) for row in found}


def trace_pages(
    connections: Connections, dataset: int, query: Select[Any], *, size: int = CHUNK
) -> Iterator[Sequence[Row[Any]]]:
    """Rows of traces of a dataset in the order of import, at most `size` at a time.

    Each page is read by itself and found by its place, so that neither a transaction nor the list
    of traces lasts. Traces that are imported meanwhile are left out.

    Args:
        connections: the database.
        dataset: key of the dataset.
        query: selects columns of `traces`, which may be joined with others.
        size: traces per page.
    """
    mine = TRACES.c.dataset_pk == dataset
    with connections.read() as connection:
        last = connection.scalar(select(func.max(TRACES.c.pk)).where(mine))
    query = query.add_columns(*_PLACE).where(mine, TRACES.c.pk <= (last or 0))
    query = query.order_by(*_PLACE).limit(size)
    page = query
    while True:
        with connections.read() as connection:
            rows = connection.execute(page).all()
        if not rows:
            return
        yield rows
        page = query.where(tuple_(*_PLACE) > tuple_(*map(literal, rows[-1][-len(_PLACE) :])))


def _find(connection: Connection, dataset: str) -> int | None:
    pk = connection.scalar(select(DATASETS.c.pk).where(DATASETS.c.name == dataset))
    return None if pk is None else int(pk)
