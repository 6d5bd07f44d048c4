"""`make chaos`: commands are killed at random moments, and nothing is lost, doubled or left behind.

CHAOS_KILLS is how often in all (60), CHAOS_SEED draws the moments.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.scenarios import JUDGE, SCENARIOS, Scenario
from tests.chaos.world import (
    CONCURRENCY,
    Content,
    World,
    children_of,
    close,
    content_of,
    files_of,
    is_running,
    opened,
)
from tests.commands.many_processes import until
from tests.commands.test_judge_chaos import many_traces

KILLS = int(os.environ.get("CHAOS_KILLS", "60"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
SHARES = sum(each.share for each in SCENARIOS)
POLITE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = opened(tmp_path_factory.mktemp("chaos"))
    yield world
    close(world)


class Attack:
    """One scenario: its undisturbed run, and kills that have to end in the same place."""

    def __init__(self, world: World, scenario: Scenario, draw: random.Random) -> None:
        self.world, self.scenario, self.draw = world, scenario, draw
        for name in ("template", "beside", "work"):
            shutil.rmtree(world.folder / name, ignore_errors=True)
        (world.folder / "beside").mkdir()
        scenario.prepare(world, world.folder / "template", world.folder / "beside")
        self.template = world.folder / "template"
        self.home = world.copied(self.template)
        began, billed = time.monotonic(), world.billed()
        code, said = world.run(self.home, *scenario.argv)
        self.takes_s = time.monotonic() - began
        self.price = world.billed() - billed
        assert code in (0, 1), said
        # What is removed cannot be removed again.
        self.codes = {code, 2} if "remove" in scenario.argv else {code}
        if not scenario.repeatable:
            self.codes |= {0, 1}
        self.wanted, self.files = content_of(self.home), files_of(self.home)
        self.reset()

    def reset(self) -> None:
        """Begin again with the workspace as it was prepared."""
        self.home = self.world.copied(self.template)
        self.before = self.stored()
        self.billed, self.lost, self.deaths = self.world.billed(), 0, 0
        self.sent = self.before.sent

    def stored(self) -> Content:
        """What is in the database, which may not exist yet."""
        return content_of(self.home) if (self.home / "stepgold.db").exists() else Content()

    def life(self) -> bool:
        """Start the command and kill one process; whether it was still running."""
        children = [
            self.world.start(self.home, *self.scenario.argv) for _ in range(self.scenario.processes)
        ]
        victim = self.draw.choice(children)
        how = self.draw.choice(POLITE) if self.draw.random() < 0.2 else signal.SIGKILL
        time.sleep(self.draw.random() * self.takes_s)
        workers = children_of(victim)
        os.kill(victim, how)
        ends = {child: self.world.many.ended(child) for child in children}
        until(lambda: not any(map(is_running, workers)))
        self.world.quiet()
        for code, _, err in ends.values():
            assert "Traceback" not in err, err
            assert code in (*self.codes, 130, -signal.SIGKILL, -how), err
        died = ends[victim][0] in (130, -how)
        self.deaths += ends[victim][0] == -signal.SIGKILL
        self.check()
        if any(code in self.codes for code, _, _ in ends.values()):
            self.check_end()
            self.reset()
        return died

    def check(self) -> None:
        """What holds at any moment."""
        now = self.stored()
        assert now.calls >= self.before.calls, "a recorded reply is gone"
        if self.scenario.labels:
            for labeler, count in self.before.labels.items():
                assert now.labels.get(labeler, 0) >= count, "a label is gone"
        # What was in flight at a kill -9; a signal that can be heard loses nothing.
        self.lost = self.world.billed() - self.billed - (now.sent - self.sent)
        assert 0 <= self.lost <= CONCURRENCY * self.deaths, "paid, and not recorded"
        self.before = now

    def check_end(self) -> None:
        """What holds once a run has ended by itself."""
        now = content_of(self.home)
        # Of two processes, one may be killed after the other has looked for claims the last time.
        assert now.claims <= (self.deaths if self.scenario.processes > 1 else 0)
        for table, rows in self.wanted.rows.items() if self.scenario.repeatable else ():
            assert now.rows[table] == rows, f"{table} differs from the undisturbed run"
        assert files_of(self.home) == self.files, "files were left behind"
        assert list((self.world.folder / "scratch").iterdir()) == []
        spent = self.world.billed() - self.billed
        if self.scenario.repeatable:
            assert spent <= self.price + self.lost, "what was recorded was paid for again"

    def finish(self) -> None:
        """Let the command end."""
        code, said = self.world.run(self.home, *self.scenario.argv)
        assert code in self.codes, said
        self.check()
        self.check_end()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name.replace(" ", "-"))
def test_killed_at_random(world: World, scenario: Scenario) -> None:
    draw = random.Random(f"{SEED} {scenario.name}")
    attack = Attack(world, scenario, draw)
    wanted = max(1, round(KILLS * scenario.share / SHARES))
    kills = lives = 0
    while kills < wanted:
        kills += attack.life()
        lives += 1
        assert lives < 20 * wanted + 50, "nearly no kill met the command at work"
    attack.finish()


def judged(world: World, home: Path, count: int) -> tuple[int, int]:
    """Import so many traces into `home`; what was billed and recorded before."""
    traces = many_traces(world.folder / "many.jsonl", count)
    code, said = world.run(home, "import", "traces", traces, "--dataset", "d", "--json")
    assert code == 0, said
    return world.billed(), content_of(home).sent


def test_a_disk_that_is_full_at_ten_random_moments(world: World) -> None:
    draw, place, count = random.Random(f"{SEED} full"), world.folder / "small", 400
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    home = place / "w"
    try:
        before, _ = judged(world, home, count)
        # So slow that none of the runs ends before its disk is full.
        lost, quick, world.gemini.delay_ms = 0, world.gemini.delay_ms, 150
        for moment in range(10):
            child, goal = world.start(home, *JUDGE), world.billed() + draw.randint(1, 20)
            until(lambda goal=goal: world.billed() >= goal)  # type: ignore[misc]
            # Half of the times some space is left, as much as no call is sent with.
            fill(place / "filler", leave=(moment % 2) * 8 * 1024**2)
            code, out, err = world.many.ended(child)
            (place / "filler").unlink()
            world.quiet()
            assert code == 2, f"it did not stop by itself: {out} {err}"
            assert "Traceback" not in err
            assert "disk" in out or "operating system" in out, out
            now = world.billed() - before - content_of(home).sent
            assert 0 <= now - lost <= CONCURRENCY, "more than what was in flight is lost"
            lost = now
        world.gemini.delay_ms = quick
        code, said = world.run(home, *JUDGE)
        assert code in (0, 1), said
        after = content_of(home)
        assert after.labels == {"judge": count}
        assert len(after.calls) + lost == world.billed() - before
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(path: Path, *, leave: int) -> None:
    """Take all space of a disk but `leave` bytes."""
    with path.open("wb", buffering=0) as filler:
        while (free := shutil.disk_usage(path.parent).free - leave) > 0:
            try:
                filler.write(bytes(min(free, 1024**2)))
            except OSError:
                return


def test_clock_jumps(world: World) -> None:
    draw, home, count = random.Random(f"{SEED} clock"), world.folder / "jumping", 200
    before, _ = judged(world, home, count)
    children = [world.start(home, *JUDGE) for _ in range(2)]
    try:
        for _ in range(12):
            seconds = draw.choice((-1, 1)) * 10 ** draw.uniform(0, 9)
            world.clock.write_text(str(seconds))
            goal = world.billed() + 5
            until(lambda goal=goal: world.billed() >= goal or done(home) == count)  # type: ignore[misc]
        for child in children:
            code, _, err = world.many.ended(child)
            assert code in (0, 1), err
            assert "Traceback" not in err
    finally:
        world.clock.unlink()
    world.quiet()
    after = content_of(home)
    assert (after.labels, after.claims) == ({"judge": count}, 0)
    assert after.sent == world.billed() - before, "the ledger differs from the server"


def done(home: Path) -> int:
    """Traces that the judge has labeled."""
    return content_of(home).labels.get("judge", 0)
