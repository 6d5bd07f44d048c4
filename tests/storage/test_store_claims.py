"""Claims on work: who has what, until when, and what happens to those of the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from storage import Claimant, Store, Workload
from storage.claims import WATCH_S
from tests.storage.builders import fill
from traces import InputError, StoreError

WORK = Workload("d", "judge")
IDS = ["t0", "t1", "t2"]


def elsewhere(token: str) -> Claimant:
    """A command on another machine: only its lease says whether it lives."""
    return Claimant(token, "judge", "other", 1, None, 0.0)


def test_what_one_command_has_no_other_one_gets(store: Store) -> None:
    fill(store)
    one, other = elsewhere("a"), elsewhere("b")
    assert store.claims.take(one, WORK, IDS[:2], at=0.0, until=60.0) == {"t0", "t1"}
    assert store.claims.take(other, WORK, IDS, at=1.0, until=61.0) == {"t2"}
    assert store.claims.held(WORK, at=1.0) == dict.fromkeys(IDS, "pid 1 on other")
    problems = replace(WORK, unit="problem")
    assert store.claims.take(other, problems, IDS, at=1.0, until=61.0) == set(IDS)
    assert store.claims.settle(one, WORK, ["t0", "t2"]) == {"t0"}, "t2 is not its own"
    store.claims.leave(one)
    assert store.claims.take(other, WORK, IDS, at=2.0, until=62.0) == set(IDS)


def test_a_lease_that_ran_out_is_taken_over_and_one_that_is_renewed_is_not(store: Store) -> None:
    fill(store)
    one, other = elsewhere("a"), elsewhere("b")
    store.claims.take(one, WORK, IDS, at=0.0, until=60.0)
    store.claims.renew(one, until=90.0)
    assert store.claims.take(other, WORK, IDS, at=61.0, until=121.0) == set()
    assert store.claims.live(at=91.0) == []
    assert store.claims.held(WORK, at=91.0).keys() == set(IDS), "it is watched first"
    assert store.claims.take(other, WORK, IDS, at=90.0 + WATCH_S, until=160.0) == set()
    assert store.claims.held(WORK, at=91.0 + WATCH_S) == {}
    assert store.claims.take(other, WORK, IDS, at=91.0 + WATCH_S, until=160.0) == set(IDS)
    assert store.claims.settle(one, WORK, IDS) == set(), "it must not store what another one has"
    store.claims.renew(one, until=200.0)
    [claim] = store.claims.live(at=100.0)
    assert (claim.items, claim.labeler, claim.unit, claim.pid) == (3, "judge", "trace", 1)


def test_a_clock_that_jumps_takes_nothing_from_a_command_that_lives(store: Store) -> None:
    fill(store)
    one, other = elsewhere("a"), elsewhere("b")
    store.claims.take(one, WORK, IDS, at=0.0, until=120.0)
    hour = 3600.0
    for later in range(0, 600, 15):  # the clock of the second one, or of both, is an hour ahead
        assert store.claims.take(other, WORK, IDS, at=hour + later, until=hour + 120) == set()
        if later % 30 == 0:
            store.claims.renew(one, until=120.0 + later)
    assert store.claims.settle(one, WORK, IDS) == set(IDS)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_claims_of_a_process_that_ended_here_are_free_at_once(store: Store) -> None:
    fill(store)
    here = Claimant.here("judge", at=0.0)
    script = "import storage.claims as c; print(c.Claimant.here('judge', at=0.0).process)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    dead = replace(here, token="dead", pid=os.getpid(), process=ended.stdout.strip())
    store.claims.take(dead, WORK, IDS, at=0.0, until=60.0)
    assert store.claims.take(here, WORK, IDS, at=1.0, until=61.0) == set(IDS)
    assert store.claims.take(elsewhere("b"), WORK, IDS, at=1.0, until=61.0) == set()


def test_claims_go_with_their_dataset(store: Store) -> None:
    fill(store)
    store.claims.take(elsewhere("a"), WORK, IDS, at=0.0, until=60.0)
    store.traces.remove_dataset("d")
    assert store.claims.live(at=0.0) == []
    with pytest.raises(InputError, match="dataset"):
        store.claims.take(elsewhere("a"), WORK, IDS, at=0.0, until=60.0)


@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_database_that_vanishes_is_noticed_at_the_next_commit(
    store: Store, tmp_path: Path, how: str
) -> None:
    fill(store)
    path = tmp_path / "store.db"
    path.rename(tmp_path / "kept.db")
    if how == "replaced":
        path.write_bytes((tmp_path / "kept.db").read_bytes())
    with pytest.raises(StoreError, match="replaced or removed"):
        store.claims.renew(elsewhere("a"), until=60.0)
