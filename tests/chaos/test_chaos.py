"""`make chaos`: commands are killed at random moments, and nothing is lost, doubled or left behind.

CHAOS_KILLS is how often in all (200), CHAOS_SEED draws the moments.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.scenarios import SCENARIOS, Scenario
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

KILLS = int(os.environ.get("CHAOS_KILLS", "200"))
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
        self.code, _ = world.run(self.home, *scenario.argv)
        self.takes_s = time.monotonic() - began
        self.price = world.billed() - billed
        assert self.code in (0, 1)
        self.wanted, self.files = content_of(self.home), files_of(self.home)
        self.reset()

    def reset(self) -> None:
        """Begin again with the workspace as it was prepared."""
        self.home = self.world.copied(self.template)
        self.before = self.stored()
        self.billed, self.lost = self.world.billed(), 0
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
            assert code in (self.code, 2, 130, -signal.SIGKILL, -how), err
        died = ends[victim][0] in (130, -how)
        self.check(died=died, polite=how != signal.SIGKILL)
        if any(code == self.code for code, _, _ in ends.values()):
            self.check_end()
            self.reset()
        return died

    def check(self, *, died: bool, polite: bool) -> None:
        """What holds at any moment."""
        now = self.stored()
        assert now.calls >= self.before.calls, "a recorded reply is gone"
        if self.scenario.labels:
            for labeler, count in self.before.labels.items():
                assert now.labels.get(labeler, 0) >= count, "a label is gone"
        lost = self.world.billed() - self.billed - (now.sent - self.sent)
        fresh = lost - self.lost
        assert 0 <= fresh <= (CONCURRENCY if died and not polite else 0), "paid, and not recorded"
        self.lost, self.before = lost, now
        self.world.lost += fresh

    def check_end(self) -> None:
        """What holds once a run has ended by itself."""
        now = content_of(self.home)
        assert now.claims == 0
        for table, rows in self.wanted.rows.items():
            assert now.rows[table] == rows, f"{table} differs from the undisturbed run"
        assert files_of(self.home) == self.files, "files were left behind"
        assert list((self.world.folder / "scratch").iterdir()) == []
        spent = self.world.billed() - self.billed
        assert spent <= self.price + self.lost, "what was recorded was paid for again"

    def finish(self) -> None:
        """Let the command end."""
        code, said = self.world.run(self.home, *self.scenario.argv)
        assert code in (self.code, 2), said  # what is removed cannot be removed again
        self.check(died=False, polite=False)
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
    world.kills += kills
