"""Problems and traces as the stages read them, page by page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from storage.codecs.problems import problem_from, trace_from
from storage.connection import Connections, chunks
from storage.datasets import IMPORT_ORDER, dataset_pk, trace_keys
from storage.evidence_sets import load_sets
from storage.tables import PROBLEMS, STEPS, TRACE_EVIDENCE, TRACES
from traces import Problem, TraceInContext, may_hold_phi

_PAGE = 500


def contexts(
    connections: Connections,
    dataset: str,
    *,
    trace_ids: Collection[str] | None,
    with_evidence: bool,
    limit: int | None,
) -> Iterator[TraceInContext]:
    """Traces with their problems and evidence, in the order of import.

    The names are checked at once; the texts are read page by page, so that a long run neither holds
    them all nor keeps a read transaction open while labels are written. A trace that is removed
    meanwhile does not come.
    """
    with connections.read() as connection:
        keys = trace_keys(connection, dataset_pk(connection, dataset), trace_ids)
    pks = [key.pk for key in keys.values()][:limit]
    return _context_pages(connections, pks, with_evidence=with_evidence)


def problems(connections: Connections, dataset: str) -> Iterator[Problem]:
    """Problems in the order of import, read page by page as in `contexts`."""
    with connections.read() as connection:
        query = select(PROBLEMS.c.pk).where(
            PROBLEMS.c.dataset_pk == dataset_pk(connection, dataset)
        )
        pks = list(connection.scalars(query.order_by(PROBLEMS.c.pk)))
    return _problem_pages(connections, pks)


def has_images(connections: Connections, dataset: str) -> bool:
    """Whether any problem of the dataset has an image."""
    with connections.read() as connection:
        query = select(PROBLEMS.c.images).where(
            PROBLEMS.c.dataset_pk == dataset_pk(connection, dataset)
        )
        return any(connection.scalars(query))


def marked_problems(connections: Connections, dataset: str) -> frozenset[str]:
    """Ids of problems that say `phi_removed: false`, or of which a trace does."""
    with connections.read() as connection:
        query = (
            select(PROBLEMS.c.id, PROBLEMS.c.meta, TRACES.c.meta)
            .join(TRACES, TRACES.c.problem_pk == PROBLEMS.c.pk)
            .where(PROBLEMS.c.dataset_pk == dataset_pk(connection, dataset))
        )
        rows = connection.execute(query)
        return frozenset(each for each, *metas in rows if any(map(may_hold_phi, metas)))


def _problem_pages(connections: Connections, pks: Sequence[int]) -> Iterator[Problem]:
    for page in chunks(pks, _PAGE):
        with connections.read() as connection:
            query = select(PROBLEMS).where(PROBLEMS.c.pk.in_(page)).order_by(PROBLEMS.c.pk)
            found = [problem_from(row) for row in connection.execute(query)]
        yield from found


def _context_pages(
    connections: Connections, pks: Sequence[int], *, with_evidence: bool
) -> Iterator[TraceInContext]:
    for page in chunks(pks, _PAGE):
        with connections.read() as connection:
            found = _context_page(connection, page, with_evidence=with_evidence)
        yield from found


def _context_page(
    connection: Connection, pks: Sequence[int], *, with_evidence: bool
) -> list[TraceInContext]:
    query = select(TRACES).where(TRACES.c.pk.in_(pks)).order_by(*IMPORT_ORDER)
    rows = list(connection.execute(query))
    problem_rows = _by_pk(connection, {row.problem_pk for row in rows})
    found = {pk: problem_from(row) for pk, row in problem_rows.items()}
    steps = load_steps(connection, pks)
    chosen = _chosen_sets(connection, rows, problem_rows)
    sets = load_sets(connection, filter(None, chosen.values())) if with_evidence else {}
    return [
        TraceInContext(
            problem := found[row.problem_pk],
            trace_from(row, problem.id, tuple(steps[row.pk])),
            sets.get(chosen[row.pk] or 0, ()),
        )
        for row in rows
    ]


def _chosen_sets(
    connection: Connection, rows: Sequence[Row[Any]], problem_rows: dict[int, Row[Any]]
) -> dict[int, int | None]:
    """By trace: what was retrieved for it, else for its problem, else what came with the row."""
    query = select(TRACE_EVIDENCE.c.trace_pk, TRACE_EVIDENCE.c.evidence_set_pk)
    own = connection.execute(query.where(TRACE_EVIDENCE.c.trace_pk.in_([row.pk for row in rows])))
    by_trace = {found.trace_pk: found.evidence_set_pk for found in own}
    chosen: dict[int, int | None] = {}
    for row in rows:
        ways = (
            by_trace.get(row.pk),
            problem_rows[row.problem_pk].evidence_set_pk,
            row.evidence_set_pk,
        )
        chosen[row.pk] = next((pk for pk in ways if pk is not None), None)
    return chosen


def _by_pk(connection: Connection, pks: Collection[int]) -> dict[int, Row[Any]]:
    return {
        row.pk: row for row in connection.execute(select(PROBLEMS).where(PROBLEMS.c.pk.in_(pks)))
    }


def load_steps(connection: Connection, pks: Sequence[int]) -> dict[int, list[str]]:
    """The steps of traces, by the key of the trace."""
    steps: dict[int, list[str]] = defaultdict(list)
    query = select(STEPS.c.trace_pk, STEPS.c.text).where(STEPS.c.trace_pk.in_(pks))
    for row in connection.execute(query.order_by(STEPS.c.trace_pk, STEPS.c.step_index)):
        steps[row.trace_pk].append(row.text)
    return steps
