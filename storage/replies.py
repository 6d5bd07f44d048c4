"""The ledger of model calls, from which replies are reused, and the batch jobs in flight.

A batch job is written before it is sent, so that another process can continue it. A request is in
at most one job at a time, because its key is the primary key of its row; the row is deleted in the
transaction that records the reply. So nothing is paid for twice while its job exists, and no paid
reply is lost, whenever the process dies.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)

from storage import checks
from storage.columns import encode_text
from storage.database import Connections
from storage.records import BATCH_JOB, BATCH_ROW, call_columns, call_from, reply_from, usage_from
from storage.rows import chunks, delete_where, insert_missing, insert_one_missing, insert_rows, now
from storage.tables import BATCH_JOBS, BATCH_REQUESTS, MODEL_CALLS, PROMPTS
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
"""Built once: it runs for every stored reply."""


@dataclass(frozen=True, slots=True)
class CallTotals:
    """The ledger in five figures."""

    sent: int
    """Calls that were sent to a model."""
    cached: int
    """Calls that were answered from the store."""
    usd: float
    """Cost of the sent calls in US dollars, where prices are known."""
    unpriced: int = 0
    """Sent calls without a known price; they are not in `usd`."""
    saved_usd: float = 0.0
    """What the calls answered from the store would have cost, at the price of the sent ones."""


@dataclass(frozen=True, slots=True)
class CallSpending:
    """Calls to one model for one purpose: tokens and cost."""

    model: str
    """The model as requested."""
    purpose: str | None
    """What the calls were for (`judge`, `continue`); None where the call does not state it."""
    resolved_model: str | None
    """The version that answered; None if the service does not state it."""
    sent: int
    """As in `CallTotals`, and so are the next four."""
    cached: int
    usd: float
    saved_usd: float
    unpriced: int
    usage: Usage
    """Tokens of the sent calls."""


class Replies:
    """Replies by the content address of their requests, batch jobs and prompts.

    An `inference.protocol.ResponseStore`. Safe to share between threads.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.batch_jobs = BatchJobs(connections)

    def get(self, key: str) -> ModelReply | None:
        """The reply recorded under `key`, marked as cached; None if there is none."""
        if not self._connections.finds(MODEL_CALLS.c.key, key):
            return None
        with self._connections.read() as connection:
            row = connection.execute(_BY_KEY, {"wanted": key}).one_or_none()
        return None if row is None else reply_from(row)

    def put(self, call: StoredCall) -> None:
        """Record a reply; it is committed when this returns.

        The first reply of a key stays. A later one was paid for too, by another process that asked
        at the same time: it is recorded under a key of its own, so that the totals are right.

        Raises:
            StoreError: it could not be written.
            InputError: a number or the meta cannot be stored.
        """
        self.put_all([call])

    def put_all(self, calls: Sequence[StoredCall]) -> None:
        """Record replies in one transaction, all or none; see `put`."""
        self._connections.run(partial(_insert_calls, calls=calls))

    def check(self) -> None:
        """Prove that a reply could be recorded, before one is paid for.

        Raises:
            StoreError: the database cannot be written, or its disk is almost full.
        """
        self._connections.check_writable()

    def count_hit(self, key: str) -> None:
        """Record that the reply was reused instead of being bought.

        Raises:
            InputError: there is none under `key`.
        """
        statement = update(MODEL_CALLS).where(MODEL_CALLS.c.key == key)
        statement = statement.values(hits=MODEL_CALLS.c.hits + 1)
        if not self._connections.run(lambda connection: connection.execute(statement).rowcount):
            raise InputError(f"There is no model call {key!r} in the ledger.")

    def calls(self) -> Iterator[StoredCall]:
        """All calls by key, for an audit: the prompt as sent and the raw reply."""
        with self._connections.read() as connection:
            keys = list(connection.scalars(select(MODEL_CALLS.c.key).order_by(MODEL_CALLS.c.key)))
        for key in keys:
            if (call := self.call(key)) is not None:
                yield call

    def call(self, key: str) -> StoredCall | None:
        """The call with this key, as sent and received; None if there is none."""
        with self._connections.read() as connection:
            row = connection.execute(_BY_KEY, {"wanted": key}).one_or_none()
        return None if row is None else call_from(row)

    def spending(self) -> list[CallSpending]:
        """What was sent and saved, by model, purpose and version that answered."""
        calls = MODEL_CALLS.c
        by = (calls.model, calls.purpose, calls.resolved_model)
        tokens = ("input_tokens", "cached_tokens", "output_tokens", "thinking_tokens")
        query = select(
            *by,
            func.count().label("sent"),
            func.sum(calls.hits).label("cached"),
            func.coalesce(func.sum(calls.usd), 0.0).label("usd"),
            func.coalesce(func.sum(calls.usd * calls.hits), 0.0).label("saved"),
            func.count(calls.usd).label("priced"),
            *(cast(func.sum(calls[name]), BigInteger).label(name) for name in tokens),
        )
        query = query.group_by(*by).order_by(*(column.nulls_first() for column in by))
        with self._connections.read() as connection:
            rows = connection.execute(query).all()
        return [
            CallSpending(
                model=row.model,
                purpose=row.purpose,
                resolved_model=row.resolved_model,
                sent=row.sent,
                cached=int(row.cached),
                usd=row.usd,
                saved_usd=row.saved,
                unpriced=row.sent - row.priced,
                usage=usage_from(row),
            )
            for row in rows
        ]

    def totals(self) -> CallTotals:
        """Calls sent and saved, and what they cost."""
        rows = self.spending()
        return CallTotals(
            sent=sum(row.sent for row in rows),
            cached=sum(row.cached for row in rows),
            usd=math.fsum(row.usd for row in rows),
            unpriced=sum(row.unpriced for row in rows),
            saved_usd=math.fsum(row.saved_usd for row in rows),
        )

    def versions(self, model: str) -> set[str]:
        """The versions that answered for this model, where the service states them."""
        query = select(MODEL_CALLS.c.resolved_model).where(MODEL_CALLS.c.model == model).distinct()
        with self._connections.read() as connection:
            return {version for version in connection.scalars(query) if version}

    def put_prompt(self, sha256: str, text: str) -> None:
        """Keep a prompt under its hash; a prompt that is stored stays.

        Raises:
            InputError: the text cannot be stored.
        """
        row = {"sha256": sha256, "text": checks.plain_text(text, "The prompt"), "created_at": now()}
        with self._connections.write() as connection:
            insert_missing(connection, PROMPTS, [row], key=["sha256"])

    def prompt(self, sha256: str) -> str | None:
        """The prompt with this hash (a labeler's `prompt_sha256`); None if it was never stored."""
        with self._connections.read() as connection:
            text = connection.scalar(select(PROMPTS.c.text).where(PROMPTS.c.sha256 == sha256))
        return None if text is None else str(text)


class BatchJobs:
    """The jobs that were or will be sent, with their requests; safe to share between threads."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def open(self, job: BatchJob, rows: Sequence[BatchRow]) -> set[str]:
        """Record a job before it is sent, and return the keys of its requests.

        A request that is in another open job, or whose reply is recorded, is left out. A job
        without requests is not recorded.

        Raises:
            InputError: a number is out of range, or a meta is not JSON.
        """
        columns = {row.key: BATCH_ROW.columns(row, "a request") for row in rows}
        with self._connections.write() as connection:
            free = [key for chunk in chunks(columns) for key in _free(connection, chunk)]
            if not free:
                return set()
            prepared = replace(
                job, state=BatchState.PREPARED, requests=len(free), progress_at=job.created_at
            )
            columns_of_job = BATCH_JOB.columns(prepared, "a batch job")
            connection.execute(insert(BATCH_JOBS), [columns_of_job])
            fresh = [{**columns[key], "job_id": None, "jobs": 0} for key in free]
            insert_missing(connection, BATCH_REQUESTS, fresh, key=["key"])
            for chunk in chunks(free):
                connection.execute(
                    update(BATCH_REQUESTS)
                    .where(BATCH_REQUESTS.c.key.in_(chunk))
                    .values(job_id=job.id, jobs=BATCH_REQUESTS.c.jobs + 1)
                )
            return set(free)

    def submitted(self, job_id: str, name: str, *, progress: str, at: float) -> bool:
        """Record the service's name of a prepared job; False if another process closed it."""
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
        """Record a sign of life."""
        self._set(job_id, BatchState.SUBMITTED, {"progress": progress, "progress_at": at})

    def cancelling(self, job_id: str, *, at: float) -> None:
        """Record that the service was asked to cancel the job."""
        self._set(job_id, BatchState.SUBMITTED, {"cancelled_at": at})

    def alive(self, model: str | None = None) -> list[BatchJob]:
        """Jobs that are not closed, of one model or of all, oldest first."""
        with self._connections.read() as connection:
            return [
                BATCH_JOB.record(row, tokens=row.tokens, usd=row.usd, outstanding=row.outstanding)
                for row in connection.execute(_alive(model))
            ]

    def rows(self, job_id: str) -> dict[str, BatchRow]:
        """The requests of a job without a recorded reply, by key."""
        query = select(BATCH_REQUESTS).where(BATCH_REQUESTS.c.job_id == job_id)
        with self._connections.read() as connection:
            return {row.key: BATCH_ROW.record(row) for row in connection.execute(query)}

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
        """Record replies in the ledger and delete their requests, in one transaction.

        A reply to a request that is in no job was recorded before and is skipped. A reply to a
        request that was bought elsewhere meanwhile is paid for too: it gets a key of its own.

        Raises:
            StoreError: it could not be written; then nothing was.
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
            paid = [
                replace(ready[key], key=f"{key}+{job}") if key in twice else ready[key]
                for key, job in jobs.items()
            ]
            _insert_calls(connection, paid)
            delete_where(connection, BATCH_REQUESTS.c.key, jobs)

    def close(
        self, job_id: str, ending: BatchEnding, *, at: float, detail: str | None = None
    ) -> dict[str, int]:
        """Close a job and release the requests without a reply.

        Returns:
            The released keys, with the number of jobs each has been in. A job that never ran does
            not count.
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
            delete_where(connection, BATCH_REQUESTS.c.key, keys)

    def _set(self, job_id: str, state: BatchState, values: dict[str, Any]) -> bool:
        with self._connections.write() as connection:
            changed = connection.execute(
                update(BATCH_JOBS)
                .where(BATCH_JOBS.c.id == job_id, BATCH_JOBS.c.state == state.value)
                .values(values)
            )
        return changed.rowcount == 1


def _insert_calls(connection: Connection, calls: Sequence[StoredCall]) -> None:
    """Insert calls; one whose key is taken gets a key of its own."""
    common = {"created_at": now()}
    # In one order, so that two writers of the same keys do not wait for each other.
    for call in sorted(calls, key=attrgetter("key")):
        row = call_columns(call) | common
        if not insert_one_missing(connection, MODEL_CALLS, row, key="key"):
            other = f"{call.key}+{secrets.token_hex(4)}"
            insert_rows(connection, MODEL_CALLS, [row | {"key": other}])


def _free(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of `keys` that are in no open job and have no recorded reply, in order."""
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
    """Those of `keys` whose replies are in the ledger."""
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
