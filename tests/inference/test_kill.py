"""A run that is killed buys nothing twice but what was on the wire, and loses nothing recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference.protocol import GenerationRequest, Message
from storage import Store
from tests.loopback.gemini_server import GeminiServer

TOTAL, CONCURRENCY = 400, 8

RUN = f"""
import sys
from inference.dispatch import Dispatcher
from inference.gemini.model import GeminiModel
from storage import Store
from tests.inference.test_kill import requests
with Store.open("sqlite:///" + sys.argv[1]) as store:
    model = GeminiModel("gemini-3.5-flash-lite", concurrency={CONCURRENCY})
    with Dispatcher(model, store.replies) as dispatcher:
        outcomes = [outcome for _, outcome in dispatcher.run(requests())]
        texts = sum(getattr(outcome, "text", None) is not None for outcome in outcomes)
        print(texts, dispatcher.counters.sent, dispatcher.counters.cached)
"""


def requests() -> list[GenerationRequest]:
    """The work: as many different prompts."""
    return [
        GenerationRequest((Message("user", f"Step 1: number {number}"),), 200, meta={"n": number})
        for number in range(TOTAL)
    ]


@pytest.mark.slow
def test_kill_in_the_middle_and_run_again(tmp_path: Path) -> None:
    database = tmp_path / "stepgold.db"
    with GeminiServer(fault_rate=0.05, delay_ms=5) as server:
        environ = os.environ | {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
        command = [sys.executable, "-c", RUN, str(database)]
        root = Path(__file__).parents[2]
        first = subprocess.Popen(command, env=environ, cwd=root, start_new_session=True)
        deadline = time.monotonic() + 120
        while sum(server.billed.values()) < TOTAL // 3:
            assert first.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(0.1)  # what the server was still answering is billed by now
        bought = server.billed
        with Store.open(f"sqlite:///{database}") as store:
            recorded = store.replies.totals().sent
        assert 0 < recorded <= len(bought) <= recorded + CONCURRENCY

        second = subprocess.run(
            command, env=environ, cwd=root, capture_output=True, text=True, check=True, timeout=120
        )
        assert second.stdout.split() == [str(TOTAL), str(TOTAL - recorded), str(recorded)]
        twice = [key for key, times in server.billed.items() if times > 1]
        assert len(twice) == len(bought) - recorded, "only what was on the wire at the kill"
        assert set(server.billed.values()) <= {1, 2}
        assert len(server.billed) == TOTAL
