"""Datasets: their names, the keys of their traces, their sizes, their removal."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from storage import checks
from storage.evidence_sets import delete_orphans
from storage.outcomes import DatasetCounts
from storage.tables import DATASETS, PROBLEMS, TRACES
from traces import InputError

IMPORT_ORDER = (TRACES.c.source_file_pk, TRACES.c.position)
"""The order in which every listing of traces comes."""
_FEW = 500


@dataclass(frozen=True, slots=True)
class TraceKey:
    """What the modules of the store need to know of a trace."""

    pk: int
    """Key of its row."""
    n_steps: int
    """How many steps it has."""


def dataset_pk(connection: Connection, dataset: str) -> int:
    """The key of a dataset.

    Raises:
        InputError: there is none of that name.
    """
    pk = connection.scalar(select(DATASETS.c.pk).where(DATASETS.c.name == dataset))
    if pk is None:
        names = connection.scalars(select(DATASETS.c.name))
        raise checks.known(
            "dataset", dataset, names, make="import one with `stepgold import FORMAT FILE`"
        )
    return int(pk)


def counts(connection: Connection) -> dict[str, DatasetCounts]:
    """How large every dataset is, in the order of import."""
    problems = select(func.count()).where(PROBLEMS.c.dataset_pk == DATASETS.c.pk)
    traces = select(func.count()).where(TRACES.c.dataset_pk == DATASETS.c.pk)
    steps = select(func.coalesce(func.sum(TRACES.c.n_steps), 0)).where(
        TRACES.c.dataset_pk == DATASETS.c.pk
    )
    query = select(
        DATASETS.c.name,
        problems.scalar_subquery().label("problems"),
        traces.scalar_subquery().label("traces"),
        steps.scalar_subquery().label("steps"),
    ).order_by(DATASETS.c.pk)
    return {
        row.name: DatasetCounts(row.problems, row.traces, row.steps)
        for row in connection.execute(query)
    }


def trace_keys(
    connection: Connection, dataset: int, trace_ids: Collection[str] | None = None
) -> dict[str, TraceKey]:
    """The traces of a dataset (or those with these ids) by id, in the order of import.

    Raises:
        InputError: an id is not one of the dataset's.
    """
    columns = select(TRACES.c.id, TRACES.c.pk, TRACES.c.n_steps).where(
        TRACES.c.dataset_pk == dataset
    )
    if trace_ids is None or len(trace_ids) > _FEW:
        found = list(connection.execute(columns.order_by(*IMPORT_ORDER)))
    else:
        query = columns.where(TRACES.c.id.in_(trace_ids)).order_by(*IMPORT_ORDER)
        found = list(connection.execute(query))
    keys = {row.id: TraceKey(row.pk, row.n_steps) for row in found}
    if trace_ids is None:
        return keys
    wanted = set(trace_ids)
    if unknown := sorted(wanted - keys.keys()):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(f"The dataset has no trace {unknown[0]!r}{more}.")
    return {trace_id: key for trace_id, key in keys.items() if trace_id in wanted}


def remove(connection: Connection, dataset: str) -> None:
    """Remove a dataset with everything that hangs on it."""
    connection.execute(delete(DATASETS).where(DATASETS.c.pk == dataset_pk(connection, dataset)))
    delete_orphans(connection)
