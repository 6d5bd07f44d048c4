"""The ledger of model calls, which is the response store too: a paid reply is never bought twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sqlalchemy import bindparam, func, select, update

from storage.bulk import insert_missing, now
from storage.codecs.ledger import call_columns, call_from, reply_from
from storage.connection import Connections
from storage.outcomes import CallTotals, Spending
from storage.tables import MODEL_CALLS
from traces.errors import InputError
from traces.records import ModelReply, StoredCall, Usage

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
