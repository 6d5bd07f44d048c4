"""Takes what an ended job left: replies into the ledger, errors and gaps to whoever asked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from inference.batch_desk import OUT_OF_REACH, BatchDesk
from inference.batch_service import RemoteJob, RowOutcome
from traces.batches import BatchEnding, BatchJob, BatchRow
from traces.errors import ModelRefused, ModelUnavailable
from traces.records import ModelReply, StoredCall

RECORDED_AT_ONCE = 200
"""Replies of one transaction."""


class Harvest:
    """One ended job: first its `replies`, then what `close` finds left."""

    def __init__(self, desk: BatchDesk, job: BatchJob, remote: RemoteJob | None) -> None:
        """Nothing is fetched yet.

        Args:
            desk: the service and the store.
            job: the job as we know it.
            remote: the job as the service describes it; None if it does not know it.
        """
        self._desk = desk
        self._job = job
        self._remote = remote
        self._ending = BatchEnding.LOST if remote is None else remote.ending or BatchEnding.LOST
        if self._ending is BatchEnding.CANCELLED and job.cancelled_at is not None:
            self._ending = BatchEnding.STUCK
        self._detail = "the service does not know it" if remote is None else remote.error
        self._recorded = 0
        self.rows: dict[str, BatchRow] = {}
        """Requests of the job that have no reply (yet)."""
        self.errors: dict[str, ModelUnavailable] = {}
        """Of these, the ones that the service answered with an error."""
        self.is_out_of_reach = False
        """Whether its results could not be fetched now: it stays open."""

    def replies(self) -> Iterator[tuple[BatchRow, ModelReply]]:
        """Yield the replies, each recorded before; a repeated or foreign key is passed over."""
        self.rows = self._desk.store.rows(self._job.id)
        if self._remote is None or self._remote.results is None:
            return
        with TemporaryDirectory(prefix="stepgold-") as folder:
            file = Path(folder) / "replies.jsonl"
            try:
                fetched = self._desk.call(self._desk.service.fetch(self._remote.results, file))
            except OUT_OF_REACH as error:
                self.is_out_of_reach = True
                self._desk.missed(error)
                return
            if not fetched:
                self._ending, self._detail = BatchEnding.LOST, "its results are gone"
                return
            with file.open("rb") as lines:
                outcomes = self._desk.service.outcomes(lines)
                while group := list(islice(outcomes, RECORDED_AT_ONCE)):
                    yield from self._record(group)

    def close(self) -> dict[str, int]:
        """Close the job; return the keys without reply and error, with their numbers of jobs.

        Raises:
            ModelRefused: it failed as a whole, and the same job must fail again.
        """
        left = self._desk.store.close(
            self._job.id, self._ending, at=self._desk.clock(), detail=self._detail
        )
        self._desk.store.forget(self.errors)
        for key in self.errors:
            left.pop(key, None)
        self._desk.report(self._summary(len(left)))
        untouched = not self._recorded and self._job.outstanding == self._job.requests
        if self._remote is not None and self._remote.hopeless and untouched:
            raise ModelRefused(
                f'"{self._desk.spec}" gave up the batch job {self._job.name}: {self._detail}',
                remedy="check the model's limits and the options given; "
                "--service flex has the same price",
            )
        return left

    def _record(self, group: list[RowOutcome]) -> Iterator[tuple[BatchRow, ModelReply]]:
        answered: list[tuple[BatchRow, ModelReply]] = []
        for each in group:
            row = self.rows.get(each.key)
            if row is None:
                continue
            if isinstance(each.outcome, ModelReply):
                answered.append((self.rows.pop(each.key), each.outcome))
                self.errors.pop(each.key, None)
            else:
                self.errors[each.key] = each.outcome
        self._desk.store.record(
            [StoredCall(row.key, row.request, reply, row.meta) for row, reply in answered]
        )
        self._recorded += len(answered)
        yield from answered

    def _summary(self, missing: int) -> str:
        counts = [f"{self._recorded} replies"]
        if self.errors:
            counts.append(f"{len(self.errors)} errors")
        if missing:
            counts.append(f"{missing} without an answer")
        why = f" ({self._detail})" if self._detail else ""
        name = self._job.name or self._job.display_name
        return f"{name}: {self._ending.value}, {', '.join(counts)}{why}."
