"""What was retrieved for the problems of a dataset, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, select, update

from storage import checks
from storage.codecs.problems import problem_from
from storage.connection import Connections, chunks, delete_where_in, insert_rows
from storage.datasets import IMPORT_ORDER, dataset_pk, trace_keys
from storage.evidence_sets import check_set, delete_orphans, store_sets
from storage.tables import DATASETS, FAILURES, PROBLEMS, TRACE_EVIDENCE, TRACES
from traces import Evidence, InputError, Problem

RETRIEVE_STAGE = "retrieve"
"""The stage under which failures of retrieval are kept; evidence for the problem clears them."""
_BATCH = 64
_DENSE_OF_OLD = ": --mode dense --keep-duplicates"


def declare_retrieval(
    connection: Connection, dataset: str, config: Mapping[str, Any], *, replace: bool
) -> None:
    """Say how the evidence of the dataset is retrieved; with `replace`, another way drops the old one.

    Raises:
        InputError: it was retrieved in another way and `replace` is False.
    """
    pk = dataset_pk(connection, dataset)
    wanted = checks.plain_json(config, "The configuration of retrieval")
    stored = connection.scalar(select(DATASETS.c.retrieval_config).where(DATASETS.c.pk == pk))
    if stored is not None and checks.canonical(stored) != checks.canonical(wanted):
        if not replace:
            raise InputError(
                f"The evidence of dataset {dataset!r} was retrieved with another configuration:"
                f" {checks.differences(stored, wanted)}.",
                remedy="retrieve it anew with --replace, or give the options it was retrieved with"
                + _DENSE_OF_OLD * _is_old_dense(stored),
            )
        connection.execute(
            update(PROBLEMS).where(PROBLEMS.c.dataset_pk == pk).values(evidence_set_pk=None)
        )
        of_dataset = select(TRACES.c.pk).where(TRACES.c.dataset_pk == pk)
        connection.execute(delete(TRACE_EVIDENCE).where(TRACE_EVIDENCE.c.trace_pk.in_(of_dataset)))
        delete_orphans(connection)
    connection.execute(update(DATASETS).where(DATASETS.c.pk == pk).values(retrieval_config=wanted))


def retrieval_config(connection: Connection, dataset: str) -> Mapping[str, Any] | None:
    """How the evidence of the dataset was retrieved; None if it was not."""
    pk = dataset_pk(connection, dataset)
    stored: Mapping[str, Any] | None = connection.scalar(
        select(DATASETS.c.retrieval_config).where(DATASETS.c.pk == pk)
    )
    return stored


def _is_old_dense(stored: Any) -> bool:
    """Whether it was retrieved when there was one way only, the vectors alone."""
    return (
        isinstance(stored, dict)
        and stored.get("retriever") == "dense"
        and "duplicates" not in stored
    )


def put_evidence(
    connections: Connections, dataset: str, items: Iterable[tuple[str, Sequence[Evidence]]]
) -> int:
    """Store the evidence of problems, in place of what was retrieved for them before.

    `items` may be a generator that does the work: every 64 problems are a transaction of their own, so
    that an interrupted run keeps what it has.
    """
    done = 0
    for batch in chunks(items, _BATCH):
        with connections.write() as connection:
            _put_batch(connection, dataset, dict(batch))
        done += len(batch)
    return done


def problems_without_evidence(connection: Connection, dataset: str) -> list[Problem]:
    """Problems for which retrieval has not run; one that found nothing has run."""
    query = (
        select(PROBLEMS)
        .where(
            PROBLEMS.c.dataset_pk == dataset_pk(connection, dataset),
            PROBLEMS.c.evidence_set_pk.is_(None),
        )
        .order_by(PROBLEMS.c.pk)
    )
    return [problem_from(row) for row in connection.execute(query)]


def _put_batch(
    connection: Connection, dataset: str, items: Mapping[str, Sequence[Evidence]]
) -> None:
    owner = dataset_pk(connection, dataset)
    query = select(PROBLEMS.c.id, PROBLEMS.c.pk, PROBLEMS.c.evidence_set_pk).where(
        PROBLEMS.c.dataset_pk == owner, PROBLEMS.c.id.in_(items)
    )
    stored = {row.id: row for row in connection.execute(query)}
    unknown = [problem_id for problem_id in items if problem_id not in stored]
    if unknown:
        raise InputError(f"Dataset {dataset!r} has no problem {unknown[0]!r}.")
    checked = {problem_id: check_set(listed) for problem_id, listed in items.items()}
    sets = store_sets(connection, checked.values())
    statement = (
        update(PROBLEMS)
        .where(PROBLEMS.c.pk == bindparam("target"))
        .values(evidence_set_pk=bindparam("chosen"))
    )
    connection.execute(
        statement,
        [
            {"target": stored[problem_id].pk, "chosen": sets[listed.digest]}
            for problem_id, listed in checked.items()
        ],
    )
    connection.execute(
        delete(FAILURES).where(
            FAILURES.c.dataset_pk == owner,
            FAILURES.c.stage == RETRIEVE_STAGE,
            FAILURES.c.id.in_(items),
        )
    )
    if any(row.evidence_set_pk is not None for row in stored.values()):
        delete_orphans(connection)


# --- What was retrieved for single traces, by the queries of their steps


class TraceEvidence:
    """Evidence by trace; for its trace it goes before what was retrieved for the problem."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def put(self, dataset: str, items: Iterable[tuple[str, Sequence[Evidence]]]) -> int:
        """Store (trace id, evidence best first), committed every 64 traces; return how many.

        Raises:
            InputError: the dataset has no such trace, or a passage cannot be stored.
        """
        done = 0
        for batch in chunks(items, _BATCH):
            self._put_batch(dataset, dict(batch))
            done += len(batch)
        return done

    def missing(self, dataset: str) -> list[str]:
        """Ids of the traces for which retrieval has not run, in the order of import."""
        with self._connections.read() as connection:
            query = select(TRACES.c.id).where(
                TRACES.c.dataset_pk == dataset_pk(connection, dataset),
                ~exists().where(TRACE_EVIDENCE.c.trace_pk == TRACES.c.pk),
            )
            return list(connection.scalars(query.order_by(*IMPORT_ORDER)))

    def _put_batch(self, dataset: str, items: dict[str, Sequence[Evidence]]) -> None:
        with self._connections.write() as connection:
            owner = dataset_pk(connection, dataset)
            keys = trace_keys(connection, owner, list(items))
            checked = {trace_id: check_set(listed) for trace_id, listed in items.items()}
            sets = store_sets(connection, checked.values())
            pks = [keys[trace_id].pk for trace_id in items]
            replaced = delete_where_in(connection, TRACE_EVIDENCE, TRACE_EVIDENCE.c.trace_pk, pks)
            rows = [
                {"trace_pk": keys[trace_id].pk, "evidence_set_pk": sets[listed.digest]}
                for trace_id, listed in checked.items()
            ]
            insert_rows(connection, TRACE_EVIDENCE, rows)
            here = (FAILURES.c.dataset_pk == owner, FAILURES.c.stage == RETRIEVE_STAGE)
            delete_where_in(connection, FAILURES, FAILURES.c.id, items, *here)
            if replaced:
                delete_orphans(connection)
