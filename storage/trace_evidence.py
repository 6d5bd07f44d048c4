"""What was retrieved for single traces, by the queries of their steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import exists, select

from storage.bulk import chunks, delete_where_in, insert_rows
from storage.connection import Connections
from storage.datasets import IMPORT_ORDER, dataset_pk, trace_keys
from storage.evidence import RETRIEVE_STAGE
from storage.evidence_sets import check_set, delete_orphans, store_sets
from storage.tables import FAILURES, TRACE_EVIDENCE, TRACES
from traces.evidence import Evidence

_BATCH = 64


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
