"""From the names of datasets, labelers and traces to the keys of their rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from storage import checks
from storage.rows import insert_one, now
from storage.tables import DATASETS, LABELERS, TRACES
from traces import InputError

IMPORT_ORDER = (TRACES.c.source_file_pk, TRACES.c.position)
"""The order of every listing of traces."""
_FEW = 500


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


def trace_keys(
    connection: Connection, dataset: int, trace_ids: Collection[str] | None = None
) -> dict[str, TraceKey]:
    """The traces of a dataset (or those with these ids) by id, in the order of import.

    Raises:
        InputError: the dataset has no trace of that id.
    """
    query = select(TRACES.c.id, TRACES.c.pk, TRACES.c.n_steps).where(TRACES.c.dataset_pk == dataset)
    if trace_ids is not None and len(trace_ids) <= _FEW:
        query = query.where(TRACES.c.id.in_(trace_ids))
    rows = connection.execute(query.order_by(*IMPORT_ORDER))
    keys = {row.id: TraceKey(row.pk, row.n_steps) for row in rows}
    if trace_ids is None:
        return keys
    wanted = set(trace_ids)
    if unknown := sorted(wanted - keys.keys()):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(f"The dataset has no trace {unknown[0]!r}{more}.")
    return {trace_id: key for trace_id, key in keys.items() if trace_id in wanted}


def _find(connection: Connection, dataset: str) -> int | None:
    pk = connection.scalar(select(DATASETS.c.pk).where(DATASETS.c.name == dataset))
    return None if pk is None else int(pk)
