"""What one run of batch jobs was asked for and has not answered: who waits, and for what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from inference.batch_waves import PendingRequest
from inference.protocol import GenerationRequest


class BatchQueue:
    """Requests by key: those that wait for a job, and all that wait for a reply."""

    def __init__(self, requests: Iterable[GenerationRequest]) -> None:
        """Nothing is drawn yet."""
        self._source = iter(requests)
        self._pending: dict[str, PendingRequest] = {}
        self._tokens = 0
        self._size = 0
        self.askers: dict[str, list[GenerationRequest]] = {}
        """Who waits for the reply of a key, in a job or before one."""
        self.is_drawn = False
        """Whether no further requests are to be drawn."""
        self.fatal: Exception | None = None
        """Why no further job is sent; None while all is well."""

    @property
    def pending(self) -> Iterator[PendingRequest]:
        """Those that wait for a job, longest first."""
        return iter(self._pending.values())

    def draw(self) -> GenerationRequest | None:
        """The next request; None if there is none or none is wanted."""
        request = None if self.is_drawn else next(self._source, None)
        self.is_drawn = request is None
        return request

    def is_full(self, tokens: int, size: int, requests: int) -> bool:
        """Whether what waits for a job fills one of these bounds."""
        return self._tokens >= tokens or self._size >= size or len(self._pending) >= requests

    def push(self, pending: PendingRequest) -> None:
        """Let a request wait for a job, behind the others."""
        self._pending[pending.row.key] = pending
        self._tokens += pending.row.tokens
        self._size += pending.size

    def put_back(self, wave: Iterable[PendingRequest]) -> None:
        """Let these wait again, before the others."""
        others = list(self._pending.values())
        self._pending, self._tokens, self._size = {}, 0, 0
        for each in (*wave, *others):
            self.push(each)

    def take(self, wave: Iterable[PendingRequest]) -> None:
        """These do not wait for a job any more."""
        for each in wave:
            del self._pending[each.row.key]
            self._tokens -= each.row.tokens
            self._size -= each.size

    def in_jobs(self) -> set[str]:
        """Keys whose askers wait and that are in no queue: they ought to be in a job."""
        return self.askers.keys() - self._pending.keys()

    def stop(self, error: Exception) -> None:
        """Send nothing more; whoever waits for a job gets no answer in this run."""
        self.fatal = self.fatal or error
        self.is_drawn = True
        for key in self._pending:
            del self.askers[key]
        self._pending, self._tokens, self._size = {}, 0, 0
