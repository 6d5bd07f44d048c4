"""The parts of batch jobs by themselves: packing, lines, descriptions, and any mishap at random."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inference.batch.jobs import (
    UNLISTED_ENQUEUED_TOKENS,
    JobRoom,
    PendingRequest,
    batch_folder,
    enqueued_tokens,
    next_job,
)
from inference.gemini import batch as batch_wire
from inference.gemini.client import request_body
from inference.protocol import request_key
from inference.retries import TransientFault
from tests.inference.batches import SPEC, Clock, answered, requests, running
from tests.loopback.gemini_batch_jobs import BatchWorld, Plan
from tests.loopback.gemini_batch_server import GeminiBatchServer
from traces.errors import ModelUnavailable
from traces.records import BatchEnding, BatchRow, ModelReply

SIZES = st.lists(
    st.tuples(
        st.integers(1, 50), st.integers(1, 50), st.one_of(st.none(), st.floats(0, 1, width=16))
    ),
    max_size=12,
)


def test_folders_of_killed_processes_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with batch_folder() as first:
        (first / "requests.jsonl").touch()
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                               capture_output=True, text=True, check=True)  # fmt: skip
        machine = first.name.rpartition(f"-{os.getpid()}-")[0]
        left = tmp_path / f"{machine}-{ended.stdout.strip()}-abc"
        left.mkdir()
        (left / "requests.jsonl").touch()
        with batch_folder() as second:
            assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert list(tmp_path.iterdir()) == []


@given(sizes=SIZES, tokens=st.integers(0, 200), size=st.integers(0, 200), count=st.integers(0, 12))
@example(sizes=[(50, 1, None), (1, 1, None)], tokens=20, size=100, count=5)
def test_a_wave_is_the_longest_run_that_fits(
    sizes: list[tuple[int, int, float | None]], tokens: int, size: int, count: int
) -> None:
    [request] = requests(1)
    pending = [
        PendingRequest(request, BatchRow(str(n), "", own_tokens, usd), own_size)
        for n, (own_tokens, own_size, usd) in enumerate(sizes)
    ]
    wave = next_job(pending, JobRoom(tokens, size, count, 3.0))

    def fits(length: int) -> bool:
        chosen = sizes[:length]
        return (
            sum(each[0] for each in chosen) <= tokens
            and sum(each[1] for each in chosen) <= size
            and sum(each[2] or 0.0 for each in chosen) <= 3.0
            and length <= count
        )

    assert wave == pending[: len(wave)]
    assert fits(len(wave))
    assert len(wave) == len(pending) or not fits(len(wave) + 1)


def test_the_caps_by_model() -> None:
    assert enqueued_tokens("models/gemini-3.1-flash-lite") == 10_000_000
    assert enqueued_tokens("gemini-of-next-year") == UNLISTED_ENQUEUED_TOKENS


def described(**metadata: object) -> str:
    """A description of a job."""
    return json.dumps({"name": "batches/b", "metadata": metadata})


@pytest.mark.parametrize(
    ("state", "ending"),
    [
        ("BATCH_STATE_PENDING", None),
        ("BATCH_STATE_RUNNING", None),
        ("JOB_STATE_SUCCEEDED", BatchEnding.SUCCEEDED),
        ("JOB_STATE_PARTIALLY_SUCCEEDED", BatchEnding.SUCCEEDED),
        ("BATCH_STATE_FAILED", BatchEnding.FAILED),
        ("BATCH_STATE_CANCELLED", BatchEnding.CANCELLED),
        ("BATCH_STATE_EXPIRED", BatchEnding.EXPIRED),
        ("BATCH_STATE_OF_NEXT_YEAR", None),
        ("", None),
    ],
)
def test_states_of_jobs(state: str, ending: BatchEnding | None) -> None:
    assert batch_wire.read_job(described(state=state)).ending is ending


def test_a_description_without_a_state_ends_by_done() -> None:
    done = {"name": "batches/b", "done": True, "response": {"responsesFile": "files/r"}}
    job = batch_wire.read_job(json.dumps(done))
    assert (job.ending, job.results) == (BatchEnding.SUCCEEDED, "files/r")
    failed = batch_wire.read_job(json.dumps({**done, "error": {"code": 3, "message": "No."}}))
    assert (failed.ending, failed.error, failed.hopeless) == (BatchEnding.FAILED, "3 No.", True)
    busy = batch_wire.read_job(json.dumps({**done, "error": {"code": 14, "message": "Busy."}}))
    assert not busy.hopeless


@pytest.mark.parametrize("body", ["", "<html>", "[]", "{}", '{"name": 3}'])
def test_what_is_no_description_may_be_one_next_time(body: str) -> None:
    with pytest.raises(TransientFault, match="description"):
        batch_wire.read_job(body)


def test_signs_of_life_are_counts_state_and_time() -> None:
    base = {"state": "BATCH_STATE_RUNNING", "updateTime": "a", "batchStats": {"requestCount": "3"}}
    progress = batch_wire.read_job(described(**base)).progress
    assert batch_wire.read_job(described(**base)).progress == progress
    changes: tuple[dict[str, object], ...] = (
        {"state": "BATCH_STATE_PENDING"},
        {"updateTime": "b"},
        {"batchStats": {}},
    )
    for change in changes:
        assert batch_wire.read_job(described(**{**base, **change})).progress != progress


def test_lines_that_say_nothing_are_passed_over() -> None:
    lines = [
        b'{"key": "a", "response": {"x": 1}}\n',
        b'{"key": "b", "error": {"code": 13}}',
        b'{"metadata": {"key": "c"}, "status": {"code": 3}}',
        b'{"key": "d"}',
        b'{"key": 5, "response": {}}',
        b'{"response": {}}',
        b"[1]",
        b'"text"',
        b'{"key": "e", "respo',
        b"\xff\xfe",
        b"",
    ]
    read = [(line.key, line.response, line.error) for line in batch_wire.read_results(lines)]
    assert read == [("a", {"x": 1}, {}), ("b", None, {"code": 13}), ("c", None, {"code": 3})]


def test_a_line_that_goes_up_is_one_line_of_ascii() -> None:
    line = batch_wire.request_line("k", {"contents": [{"parts": [{"text": "ä\n\u2028\ud83d"}]}]})
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert json.loads(line)["request"]["contents"][0]["parts"][0]["text"] == "ä\n\u2028\ud83d"


def test_the_schema_goes_out_to_the_letter() -> None:
    schema = {"required": ["b", "a"], "properties": {"b": {"default": None}, "a": {}}}
    [asked] = requests(1)
    asked = replace(asked, response_json_schema=schema)
    written = batch_wire.request_line("k", request_body(asked, {}, model="gemini-3.5-flash-lite"))
    config = json.loads(written)["request"]["generationConfig"]
    assert list(config["responseJsonSchema"]["properties"]) == ["b", "a"]
    assert config["responseJsonSchema"] == schema
    assert config["maxOutputTokens"] == asked.max_tokens


PLANS = st.lists(
    st.builds(
        Plan,
        looks=st.integers(1, 3),
        ending=st.sampled_from(["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "STUCK"]),
        share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
        errors=st.integers(0, 2),
        twice=st.booleans(),
        torn=st.booleans(),
    ),
    max_size=5,
)
CREATES = st.lists(st.sampled_from(["ok", "429", "503 made", "503"]), max_size=4)


@pytest.mark.slow
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plans=PLANS, creates=CREATES, cap=st.sampled_from([400, 10_000]))
def test_whatever_happens_every_request_has_one_outcome_and_nothing_is_bought_twice(
    database: Path, plans: list[Plan], creates: list[str], cap: int
) -> None:
    world = BatchWorld(plans)
    with (
        tempfile.TemporaryDirectory() as folder,
        GeminiBatchServer(world, create_script=creates) as server,
    ):
        copy = Path(folder) / "stepgold.db"
        copy.write_bytes(database.read_bytes())
        limits = {"enqueued_tokens": cap, "poll_s": 7200.0}
        with running(server, copy, clock=Clock(), limits=limits) as (runner, store):
            outcomes = answered(runner, requests(15))
            assert store.replies.batch_jobs.alive() == []
            replies = [each for each in outcomes.values() if isinstance(each, ModelReply)]
            assert store.replies.totals().sent == len(replies)
            assert store.replies.totals().usd == pytest.approx(float(world.usd), abs=1e-12)
    assert set(outcomes) == set(range(15))
    assert {type(each) for each in outcomes.values()} <= {ModelReply, ModelUnavailable}
    keys = {request_key(SPEC, request) for request in requests(15)}
    assert set(world.sent) == keys
    assert max(world.sent.values()) <= 3
    assert set(world.bought.values()) <= {1}
