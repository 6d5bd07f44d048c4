"""A process that is killed at any moment leaves jobs that the next one takes over, paid once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.protocol import request_key
from storage import Store
from tests.inference.batches import SPEC, Clock, answered, requests, running
from tests.loopback.gemini_batch_jobs import BatchWorld, Plan
from tests.loopback.gemini_batch_server import GeminiBatchServer
from traces.records import ModelReply

TOTAL = 60

RUN = """
import os, signal, sys
from inference.batch.jobs import BatchLimits
from inference.batch.runner import BatchRunner
from inference.gemini.model import GeminiModel
from inference.gemini.batch import GeminiBatches
from storage import Store
from tests.inference.batches import NAME
from tests.inference.test_batch_kill import TOTAL, RECORDED_AT_ONCE
from tests.inference import batches
from inference.batch import runner as batch_runner

batch_runner.RECORDED_AT_ONCE = RECORDED_AT_ONCE
kill_after = int(sys.argv[2])
with Store.open("sqlite:///" + sys.argv[1]) as store:
    limits = BatchLimits(1_000_000, poll_s=0.01, requests_per_job=40)
    service = GeminiBatches(GeminiModel(NAME))
    with BatchRunner(service, store.replies.batch_jobs, store.replies, limits) as runner:
        for number, _ in enumerate(runner.run(batches.requests(TOTAL))):
            if number == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
"""
RECORDED_AT_ONCE = 7


@pytest.fixture
def killed(database: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that no test may leave behind."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(server: GeminiBatchServer, database: Path, kill_after: int) -> subprocess.Popen[bytes]:
    """The same work in a process of its own."""
    environ = os.environ | {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
    command = [sys.executable, "-c", RUN, str(database), str(kill_after)]
    return subprocess.Popen(command, env=environ, cwd=Path(__file__).parents[2])


def finish(server: GeminiBatchServer, database: Path) -> None:
    """Run again: every request is answered, and none was in two jobs."""
    now = Clock(time.time())  # the killed process had the real one
    with running(server, database, clock=now, limits={"requests_per_job": 40}) as (runner, store):
        outcomes = answered(runner, requests(TOTAL))
        assert store.replies.batch_jobs.alive() == []
        assert store.replies.batch_jobs.keys(SPEC) == set()
        assert store.replies.totals().sent == TOTAL
    assert all(isinstance(outcome, ModelReply) for outcome in outcomes.values())
    keys = {request_key(SPEC, request) for request in requests(TOTAL)}
    assert dict(server.world.bought) == dict.fromkeys(keys, 1)
    assert dict(server.world.sent) == dict.fromkeys(keys, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["upload after", "create before", "create after", "look after", "download after"]
)
def test_killed_while_it_waits_for_the_service(
    database: Path, killed: list[subprocess.Popen[bytes]], moment: str
) -> None:
    with GeminiBatchServer(BatchWorld([Plan(looks=2)])) as server:
        with server.holding(moment) as hold:
            process = start(server, database, kill_after=-1)
            killed.append(process)
            assert hold.reached.wait(timeout=60)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if moment == "create before":  # the request dies with its connection
                server.create_script = ["lost"]
        finish(server, database)


@pytest.mark.slow
@pytest.mark.parametrize("answers", [0, 17])
def test_killed_while_it_takes_results(
    database: Path, killed: list[subprocess.Popen[bytes]], answers: int
) -> None:
    with GeminiBatchServer() as server:
        process = start(server, database, kill_after=answers)
        killed.append(process)
        assert process.wait(timeout=60) == -signal.SIGKILL
        with Store.open(f"sqlite:///{database}") as store:
            recorded = store.replies.totals().sent
        # whole groups are recorded before the first of them is seen
        assert recorded >= answers + 1
        assert recorded % RECORDED_AT_ONCE == 0 or recorded == 40
        finish(server, database)
