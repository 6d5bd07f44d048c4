"""Records replies durably; those that arrive while one write runs go into the next one together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from inference.protocol import ResponseStore
from traces.records import StoredCall


@runtime_checkable
class PutsMany(Protocol):
    """A response store that records several replies in one durable write."""

    def put_all(self, calls: Sequence[StoredCall]) -> None:
        """Record the replies durably, all or none."""


class Recorder:
    """Between the calls on an event loop and a store that blocks. Used on one loop."""

    def __init__(self, responses: ResponseStore) -> None:
        """Nothing is written yet."""
        self._responses = responses
        self._waiting: list[tuple[StoredCall, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, call: StoredCall) -> None:
        """Return when the reply is durable.

        Raises:
            StoreError: it could not be written (nor could those that were to be written with it).
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((call, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            calls = [call for call, _ in batch]
            try:
                # in a worker thread: a store that waits for its lock must not stop the network
                await asyncio.to_thread(self._put, calls)
            except Exception as error:  # handed to every call that waits for this write
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)

    def _put(self, calls: Sequence[StoredCall]) -> None:
        if isinstance(self._responses, PutsMany):
            self._responses.put_all(calls)
            return
        for call in calls:
            self._responses.put(call)
