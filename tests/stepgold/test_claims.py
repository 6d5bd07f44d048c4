"""Sharing a workload: waiting for others, and taking over what they gave up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from stepgold.claims import LEASE_S, Share
from stepgold.console import session
from storage import Claimant, Store, Workload
from storage.claims import WATCH_S
from tests.storage.builders import fill

WORK = Workload("d", "judge")
IDS = ["t0", "t1", "t2"]
OTHER = Claimant("other", "judge", "far", 7, None, 0.0)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: Callable[[], object] | None = None
        """What happens during the first sleep."""

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'stepgold.db'}") as opened:
        fill(opened)
        yield opened


class Done:
    """What is done, by whom it may be."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def still_open(self, ids: Sequence[str]) -> list[str]:
        return [each for each in ids if each not in self.ids]


def work_through(share: Share, done: Done, *, settle: bool = True) -> list[list[str]]:
    """Do all rounds; what was claimed in each."""
    rounds = []
    for ids in share.rounds(IDS):
        claimed = [each for chunk in share.chunks([each] for each in ids) for each in chunk]
        if settle:
            done.ids |= share.settle(claimed)
        rounds.append(claimed)
    return rounds


def test_what_another_one_does_is_waited_for_and_not_done_again(store: Store) -> None:
    clock, done = Clock(), Done()
    store.claims.take(OTHER, WORK, ["t1"], at=clock.now, until=clock.now + LEASE_S)

    def other_ends() -> None:
        done.ids.add("t1")
        store.claims.leave(OTHER)

    clock.meanwhile = other_ends
    with (
        session(shown=False) as notes,
        Share(store, "judge", WORK, done.still_open, clock=clock) as share,
    ):
        assert work_through(share, done) == [["t0", "t2"]]
        assert share.done_by_others(IDS) == 1
    assert notes == ["Waiting for 1 trace that another command is working on: pid 7 on far."]


def test_a_lease_that_runs_out_is_taken_over(store: Store) -> None:
    clock, done = Clock(), Done()
    store.claims.take(OTHER, WORK, ["t1"], at=clock.now, until=clock.now + LEASE_S)
    with Share(store, "judge", WORK, done.still_open, clock=clock) as share:
        assert work_through(share, done) == [["t0", "t2"], ["t1"]]
        assert share.done_by_others(IDS) == 0
    assert LEASE_S + WATCH_S <= clock.now - 1000.0 < LEASE_S + WATCH_S + 5


def test_what_a_stage_leaves_out_is_tried_once(store: Store) -> None:
    done = Done()
    with Share(store, "judge", WORK, done.still_open, clock=Clock()) as share:
        assert work_through(share, done, settle=False) == [IDS]
        assert share.done_by_others(IDS) == 0
    assert store.claims.live(at=0.0) == []


def test_a_result_after_the_lease_is_refused_and_the_trace_done_again(store: Store) -> None:
    clock, done = Clock(), Done()
    with Share(store, "judge", WORK, done.still_open, clock=clock) as share:
        rounds = share.rounds(["t0"])
        assert [*share.chunks([next(rounds)])] == [["t0"]]
        clock.now += LEASE_S + 1
        store.claims.held(WORK, at=clock.now)
        clock.now += WATCH_S
        store.claims.take(OTHER, WORK, ["t0"], at=clock.now, until=clock.now + LEASE_S)
        assert share.settle(["t0"]) == set()
        clock.meanwhile = lambda: store.claims.leave(OTHER)
        assert list(next(rounds)) == ["t0"]
