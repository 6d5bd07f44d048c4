"""Sharing a labeler between commands: each takes the next items that no other one works on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from stepgold.console import note
from traces import StoreError, uninterrupted

if TYPE_CHECKING:
    from storage import Store, Workload

LEASE_S = 120.0
"""How long a command that no longer answers keeps what it works on."""
RENEW_S = 30.0
"""How often a running command renews its lease."""
POLL_S = (0.05, 2.0)
"""The first and the longest pause between two looks at what others work on."""
FEWEST, MOST = 8, 32
"""Items claimed at once: few, so that commands end together, unless items take next to no time."""
FAST_S = 0.5
"""A stage that asks for more within this time gets twice as many."""


class SystemTime(Protocol):
    """Where the time comes from."""

    def time(self) -> float:
        """Seconds since 1970."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Share:
    """One command's share of a workload; a context manager that gives all claims back at its end.

    A thread renews the lease, so that a long forward pass does not lose it.
    """

    def __init__(
        self,
        store: Store,
        command: str,
        work: Workload,
        still_open: Callable[[Sequence[str]], Collection[str]],
        *,
        clock: SystemTime = time,
    ) -> None:
        """Nothing is claimed yet.

        Args:
            store: where claims are.
            command: the name of the command, for `status`.
            work: what is shared out.
            still_open: those of some items that still have to be done; asked in the transaction
                that claims them.
            clock: where the time comes from.
        """
        from storage import Claimant

        self.store = store
        self._work, self._still_open, self._clock = work, still_open, clock
        self._claimant = Claimant.here(command, at=clock.time())
        self._tried: set[str] = set()
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None

    def __enter__(self) -> Share:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._renewing is None:
            return
        with uninterrupted():
            self._ended.set()
            self._renewing.join()
        self._renewing = None
        try:
            self.store.claims.leave(self._claimant)
        except StoreError:
            if error is None:
                raise
            # The database cannot be written, which is what `error` says; the lease runs out.

    def rounds(self, items: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yield all items, then, as often as needed, those that another command gave up.

        Returns when every item is done or was tried here; waits while others work on the rest.
        """
        left = items
        while left:
            yield left
            left = self._given_up(items)

    def chunks(
        self, groups: Iterable[Sequence[str]], *, fewest: int = FEWEST
    ) -> Iterator[list[str]]:
        """Claim what is still open, some groups at a time, and yield what was got, in order.

        Args:
            groups: items that are claimed together.
            fewest: items claimed at once, at first and when they take long.
        """
        size, since, chunk = fewest, self._clock.time(), list[str]()
        for group in groups:
            if chunk and len(chunk) + len(group) > size:
                yield from self._take(chunk)
                now = self._clock.time()
                size = min(2 * size, MOST) if now - since < FAST_S else max(size // 2, fewest)
                since, chunk = now, []
            chunk += group
        if chunk:
            yield from self._take(chunk)

    def settle(self, items: Sequence[str]) -> set[str]:
        """Give up claims in the transaction that stores the results.

        Returns:
            The items that were still held: a result for another one must not be stored, because
            the lease ran out and another command may have done it.
        """
        held = self.store.claims.settle(self._claimant, self._work, items)
        self._tried -= set(items) - held
        return held

    def done_by_others(self, items: Sequence[str]) -> int:
        """How many of the items were done by other commands meanwhile."""
        rest = [item for item in items if item not in self._tried]
        return len(rest) - len(self._open(rest))

    def others(self) -> str:
        """The commands that work on the same workload (`pid N on HOST`); empty without any."""
        held = self.store.claims.held(self._work, at=self._clock.time())
        return ", ".join(sorted(set(held.values())))

    def _take(self, chunk: Sequence[str]) -> Iterator[list[str]]:
        with self.store.transaction():
            wanted = self._open(chunk)
            got: set[str] = set()
            if wanted:
                at = self._clock.time()
                got = self.store.claims.take(
                    self._claimant, self._work, wanted, at=at, until=at + LEASE_S
                )
        self._tried |= got
        if self._renewing is None:
            with uninterrupted():
                self._renewing = threading.Thread(
                    target=self._renew, name="stepgold-claims", daemon=True
                )
                self._renewing.start()
        if got:
            yield [item for item in wanted if item in got]

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                self.store.claims.renew(self._claimant, until=self._clock.time() + LEASE_S)
            except StoreError:
                # Busy: the next try is soon enough. Else the run itself fails at its next write.
                continue

    def _open(self, items: Sequence[str]) -> list[str]:
        found = set(self._still_open(items))
        return [item for item in items if item in found]

    def _given_up(self, items: Sequence[str]) -> list[str]:
        """Wait until no command works on some open items; return them, none if all are done."""
        pause, told = POLL_S[0], False
        while True:
            left = self._open([item for item in items if item not in self._tried])
            held = self.store.claims.held(self._work, at=self._clock.time())
            free = [item for item in left if item not in held]
            if free or not left:
                return free
            if not told:
                who = ", ".join(sorted({held[item] for item in left}))
                unit = self._work.unit if len(left) == 1 else f"{self._work.unit}s"
                note(f"Waiting for {len(left)} {unit} that another command is working on: {who}.")
                told = True
            self._clock.sleep(pause)
            pause = min(2 * pause, POLL_S[1])
