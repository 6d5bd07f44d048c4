"""Batch jobs on their way: written down before they are sent, so that another process can go on.

A request is in at most one job at a time, because its key is the primary key of its row; the row
goes in the same transaction that records the reply. So nothing is paid for twice as long as its
job lives, and nothing that was paid for is forgotten, whenever the process dies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from storage import checks
from storage.bulk import chunks, delete_where_in, insert_missing
from storage.calls import Responses
from storage.codecs.model_text import decode_text, encode_text
from storage.connection import Connections
from storage.tables import BATCH_JOBS, BATCH_REQUESTS, MODEL_CALLS
from traces.batches import BatchEnding, BatchJob, BatchRow, BatchState
from traces.records import StoredCall


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
