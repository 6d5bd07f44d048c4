"""The ledger of model calls, which is the response store too: a paid reply is never bought twice.

Batch jobs on their way: written down before they are sent, so that another process can go on.

A request is in at most one job at a time, because its key is the primary key of its row; the row
goes in the same transaction that records the reply. So nothing is paid for twice as long as its
job lives, and nothing that was paid for is forgotten, whenever the process dies.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, func, insert, select, update

from storage import checks
from storage.codecs.ledger import call_columns, call_from, reply_from
from storage.codecs.model_text import decode_text, encode_text
from storage.connection import Connections, chunks, delete_where_in, insert_missing, now
from storage.outcomes import CallTotals, Spending
from storage.tables import BATCH_JOBS, BATCH_REQUESTS, MODEL_CALLS
from traces import (
    BatchEnding,
    BatchJob,
    BatchRow,
    BatchState,
    InputError,
    ModelReply,
    StoredCall,
    Usage,
)

_BY_KEY = select(MODEL_CALLS).where(MODEL_CALLS.c.key == bindparam("wanted"))
"""Built once: it is asked for every stored reply."""
_HAS_KEY = f"SELECT 1 FROM {MODEL_CALLS.name} WHERE key = ?"


class Responses:
    """Replies under their content address (`inference.protocol.ResponseStore`); safe between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def get(self, key: str) -> ModelReply | None:
        """The reply recorded under `key`, marked as cached; None if there is none."""
        if not self._connections.finds(_HAS_KEY, key):
            return None
        with self._connections.read() as connection:
            row = connection.execute(_BY_KEY, {"wanted": key}).one_or_none()
        return None if row is None else reply_from(row)

    def put(self, call: StoredCall) -> None:
        """Record a reply; it is committed when this returns. The first one of a key stays.

        Raises:
            StoreError: it could not be written.
            InputError: a number or the meta cannot be stored.
        """
        self.put_all([call])

    def put_all(self, calls: Sequence[StoredCall]) -> None:
        """Record replies in one transaction, all or none; see `put`."""
        moment = now()
        rows = [call_columns(call) | {"created_at": moment} for call in calls]
        with self._connections.write() as connection:
            insert_missing(connection, MODEL_CALLS, rows, "key")

    def count_hit(self, key: str) -> None:
        """Note that the reply was used again instead of being bought.

        Raises:
            InputError: there is none under `key`.
        """
        with self._connections.write() as connection:
            touched = connection.execute(
                update(MODEL_CALLS)
                .where(MODEL_CALLS.c.key == key)
                .values(hits=MODEL_CALLS.c.hits + 1)
            ).rowcount
        if not touched:
            raise InputError(f"There is no model call {key!r} in the ledger.")

    def calls(self) -> Iterator[StoredCall]:
        """All calls by key, for an audit: the prompt really sent and the raw reply."""
        with self._connections.read() as connection:
            keys = list(connection.scalars(select(MODEL_CALLS.c.key).order_by(MODEL_CALLS.c.key)))
        for key in keys:
            with self._connections.read() as connection:
                row = connection.execute(
                    select(MODEL_CALLS).where(MODEL_CALLS.c.key == key)
                ).one_or_none()
            if row is not None:
                yield call_from(row)

    def spending(self) -> list[Spending]:
        """What was sent and saved, by model, purpose and version that answered."""
        calls = MODEL_CALLS.c
        by = (calls.model, calls.purpose, calls.resolved_model)
        query = (
            select(
                *by,
                func.count().label("sent"),
                func.sum(calls.hits).label("cached"),
                func.coalesce(func.sum(calls.usd), 0.0).label("usd"),
                func.coalesce(func.sum(calls.usd * calls.hits), 0.0).label("saved"),
                func.count(calls.usd).label("priced"),
                func.sum(calls.input_tokens).label("input_tokens"),
                func.sum(calls.cached_tokens).label("cached_tokens"),
                func.sum(calls.output_tokens).label("output_tokens"),
                func.sum(calls.thinking_tokens).label("thinking_tokens"),
            )
            .group_by(*by)
            .order_by(*by)
        )
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
        return [
            Spending(
                row.model,
                row.purpose,
                row.resolved_model,
                row.sent,
                int(row.cached),
                row.usd,
                row.saved,
                row.sent - row.priced,
                Usage(
                    int(row.input_tokens),
                    int(row.cached_tokens),
                    int(row.output_tokens),
                    int(row.thinking_tokens),
                ),
            )
            for row in rows
        ]

    def totals(self) -> CallTotals:
        """Calls sent and saved, and what they cost."""
        rows = self.spending()
        return CallTotals(
            sum(row.sent for row in rows),
            sum(row.cached for row in rows),
            math.fsum(row.usd for row in rows),
            sum(row.unpriced for row in rows),
            math.fsum(row.saved_usd for row in rows),
        )

    def versions(self, model: str) -> set[str]:
        """The versions that answered for this model, as far as the service said."""
        query = select(MODEL_CALLS.c.resolved_model).where(MODEL_CALLS.c.model == model).distinct()
        with self._connections.read() as connection:
            return {version for version in connection.scalars(query) if version}


# --- Batch jobs on their way: written down before they are sent, so that another process can go


class BatchJobs:
    """The jobs that were sent or are about to be, with their requests; safe between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._responses = Responses(connections)

    def open(self, job: BatchJob, rows: Sequence[BatchRow]) -> set[str]:
        """Write a job down before it is sent; return the keys that are in it now.

        A request that is in another open job, or whose reply is recorded, is left out. Without
        any request the job is not written.

        Raises:
            InputError: a number is out of range, or a meta is not JSON.
        """
        columns = {row.key: _row_columns(row) for row in rows}
        with self._connections.write() as connection:
            free = [key for chunk in chunks(columns) for key in _free(connection, chunk)]
            if not free:
                return set()
            connection.execute(insert(BATCH_JOBS), [_job_columns(job, len(free))])
            fresh = [{**columns[key], "job_id": None, "jobs": 0} for key in free]
            insert_missing(connection, BATCH_REQUESTS, fresh, "key")
            for chunk in chunks(free):
                connection.execute(
                    update(BATCH_REQUESTS)
                    .where(BATCH_REQUESTS.c.key.in_(chunk))
                    .values(job_id=job.id, jobs=BATCH_REQUESTS.c.jobs + 1)
                )
            return set(free)

    def submitted(self, job_id: str, name: str, *, progress: str, at: float) -> bool:
        """Note the service's name of a prepared job; False if another process closed it."""
        return self._set(
            job_id,
            BatchState.PREPARED,
            {
                "state": BatchState.SUBMITTED.value,
                "name": name,
                "progress": progress,
                "progress_at": at,
            },
        )

    def progressed(self, job_id: str, progress: str, *, at: float) -> None:
        """Note a sign of life."""
        self._set(job_id, BatchState.SUBMITTED, {"progress": progress, "progress_at": at})

    def cancelling(self, job_id: str, *, at: float) -> None:
        """Note that the service was asked to cancel the job."""
        self._set(job_id, BatchState.SUBMITTED, {"cancelled_at": at})

    def alive(self, model: str | None = None) -> list[BatchJob]:
        """Jobs that are not closed, of one model or of all, oldest first."""
        with self._connections.read() as connection:
            return [_job_from(row) for row in connection.execute(_alive(model))]

    def rows(self, job_id: str) -> dict[str, BatchRow]:
        """The requests of a job whose replies are not recorded, by key."""
        query = select(BATCH_REQUESTS).where(BATCH_REQUESTS.c.job_id == job_id)
        with self._connections.read() as connection:
            return {row.key: _row_from(row) for row in connection.execute(query)}

    def keys(self, model: str) -> set[str]:
        """The keys of all requests of a model that are in an open job."""
        query = (
            select(BATCH_REQUESTS.c.key)
            .join(BATCH_JOBS, BATCH_REQUESTS.c.job_id == BATCH_JOBS.c.id)
            .where(BATCH_JOBS.c.model == model)
        )
        with self._connections.read() as connection:
            return set(connection.scalars(query))

    def record(self, calls: Iterable[StoredCall]) -> None:
        """Record replies in the ledger and take their requests off the jobs, in one transaction.

        A reply to a request that is in no job was recorded before: it is passed over. One to a request
        that was bought elsewhere meanwhile is paid all the same: it is recorded under a key of its own.

        Raises:
            StoreError: it could not be written; then nothing of it was.
            InputError: a number or a meta cannot be stored.
        """
        ready = {call.key: call for call in calls}
        with self._connections.write() as connection:
            jobs = {
                row.key: row.job_id
                for chunk in chunks(ready)
                for row in connection.execute(
                    select(BATCH_REQUESTS.c.key, BATCH_REQUESTS.c.job_id).where(
                        BATCH_REQUESTS.c.key.in_(chunk)
                    )
                )
            }
            twice = {key for chunk in chunks(jobs) for key in _recorded(connection, chunk)}
            self._responses.put_all(
                [
                    replace(ready[key], key=f"{key}+{job}") if key in twice else ready[key]
                    for key, job in jobs.items()
                ]
            )
            delete_where_in(connection, BATCH_REQUESTS, BATCH_REQUESTS.c.key, jobs)

    def close(
        self, job_id: str, ending: BatchEnding, *, at: float, detail: str | None = None
    ) -> dict[str, int]:
        """Close a job and release the requests it has no reply for.

        A job that never ran does not count for them.

        Returns:
            The released keys, with the number of jobs each has been in.
        """
        ran = ending not in (BatchEnding.NEVER_SENT, BatchEnding.REFUSED)
        here = BATCH_REQUESTS.c.job_id == job_id
        with self._connections.write() as connection:
            connection.execute(
                update(BATCH_JOBS)
                .where(BATCH_JOBS.c.id == job_id, BATCH_JOBS.c.state != BatchState.CLOSED.value)
                .values(
                    state=BatchState.CLOSED.value,
                    ending=ending.value,
                    closed_at=at,
                    detail=None if detail is None else encode_text(detail),
                )
            )
            if not ran:
                connection.execute(
                    update(BATCH_REQUESTS).where(here).values(jobs=BATCH_REQUESTS.c.jobs - 1)
                )
            released = connection.execute(
                select(BATCH_REQUESTS.c.key, BATCH_REQUESTS.c.jobs).where(here)
            ).all()
            connection.execute(delete(BATCH_REQUESTS).where(here, BATCH_REQUESTS.c.jobs == 0))
            connection.execute(update(BATCH_REQUESTS).where(here).values(job_id=None))
        return {row.key: row.jobs for row in released}

    def forget(self, keys: Collection[str]) -> None:
        """Drop requests whose outcome is decided without a reply to record."""
        with self._connections.write() as connection:
            delete_where_in(connection, BATCH_REQUESTS, BATCH_REQUESTS.c.key, keys)

    def _set(self, job_id: str, state: BatchState, values: dict[str, Any]) -> bool:
        with self._connections.write() as connection:
            changed = connection.execute(
                update(BATCH_JOBS)
                .where(BATCH_JOBS.c.id == job_id, BATCH_JOBS.c.state == state.value)
                .values(values)
            )
        return changed.rowcount == 1


def _free(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Of `keys`, those that are in no open job and have no recorded reply, in their order."""
    taken = set(
        connection.scalars(
            select(BATCH_REQUESTS.c.key).where(
                BATCH_REQUESTS.c.key.in_(keys), BATCH_REQUESTS.c.job_id.is_not(None)
            )
        )
    )
    taken |= _recorded(connection, keys)
    return [key for key in keys if key not in taken]


def _recorded(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Of `keys`, those whose replies are in the ledger."""
    return set(connection.scalars(select(MODEL_CALLS.c.key).where(MODEL_CALLS.c.key.in_(keys))))


def _alive(model: str | None) -> Select[Any]:
    query = (
        select(
            BATCH_JOBS,
            func.count(BATCH_REQUESTS.c.key).label("outstanding"),
            func.coalesce(func.sum(BATCH_REQUESTS.c.tokens), 0).label("tokens"),
            func.coalesce(func.sum(BATCH_REQUESTS.c.usd), 0.0).label("usd"),
        )
        .outerjoin(BATCH_REQUESTS, BATCH_REQUESTS.c.job_id == BATCH_JOBS.c.id)
        .where(BATCH_JOBS.c.state != BatchState.CLOSED.value)
        .group_by(BATCH_JOBS.c.id)
        .order_by(BATCH_JOBS.c.created_at, BATCH_JOBS.c.id)
    )
    return query if model is None else query.where(BATCH_JOBS.c.model == model)


def _job_columns(job: BatchJob, requests: int) -> dict[str, Any]:
    return {
        "id": checks.name(job.id, "The id of a batch job"),
        "model": checks.name(job.model, "The model of a batch job"),
        "endpoint": job.endpoint,
        "state": BatchState.PREPARED.value,
        "requests": requests,
        "progress": job.progress,
        "progress_at": job.created_at,
        "created_at": job.created_at,
    }


def _job_from(row: Row[Any]) -> BatchJob:
    return BatchJob(
        row.id,
        row.model,
        row.endpoint,
        row.created_at,
        BatchState(row.state),
        row.name,
        row.progress,
        row.progress_at,
        row.cancelled_at,
        row.requests,
        row.tokens,
        row.usd,
        row.outstanding,
    )


def _row_columns(row: BatchRow) -> dict[str, Any]:
    return {
        "key": checks.name(row.key, "The key of a request"),
        "request": encode_text(row.request),
        "tokens": checks.count(row.tokens, "The count of input tokens"),
        "usd": checks.amount(row.usd, "The cost of a request"),
        "meta": checks.json_value(row.meta, "The meta of a request"),
    }


def _row_from(row: Row[Any]) -> BatchRow:
    return BatchRow(row.key, decode_text(row.request), row.tokens, row.usd, row.meta)
