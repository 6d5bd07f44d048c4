"""`stepgold judge --service batch` against OpenAI's batch API on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.openai.wire import read_body
from tests.commands.conftest import Called, Cli
from tests.loopback.openai_batch_server import OpenAIBatchServer

TRACES = 6
STEP = {"step": 1, "document": None, "quote": None, "reasoning": "r", "verdict": "correct"}
JUDGED = json.dumps({"steps": [STEP]})
Judge = Callable[..., Called]


@pytest.fixture
def server() -> Iterator[OpenAIBatchServer]:
    with OpenAIBatchServer(JUDGED) as running:
        yield running


@pytest.fixture
def judge(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: OpenAIBatchServer
) -> Judge:
    """The command, on six traces of one step."""
    rows = [
        json.dumps({"id": f"t{n}", "problem": f"{n}?", "steps": ["One."]}) for n in range(TRACES)
    ]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(rows))
    assert cli("import", "traces", file, "--dataset", "d").code == 0
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-that-must-not-be-kept")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)

    def call(*more: str) -> Called:
        batch = ("--service", "batch", "--poll-seconds", "0.1", "--json")
        return cli("judge", "--dataset", "d", "--judge", "openai:m", *batch, *more)

    return call


def test_a_batch_job_labels_every_trace(judge: Judge, server: OpenAIBatchServer) -> None:
    done = judge()
    assert (done.code, done.document["done"]) == (0, TRACES)
    (job,) = server.jobs.values()
    assert job["endpoint"] == "/v1/chat/completions"
    assert list(server.sent.values()) == [1] * TRACES
    assert not server.calls, "no single call"
    again = judge()
    assert (again.document["unchanged"], len(server.jobs)) == (TRACES, 1)


def test_fields_of_the_user_are_in_the_rows(judge: Judge, server: OpenAIBatchServer) -> None:
    assert judge("--reasoning-effort", "low").code == 0
    row = json.loads(server.files["file-0"].splitlines()[0])
    assert row["body"]["reasoning_effort"] == "low"
    assert row["body"]["response_format"]["type"] == "json_schema"


def test_rows_with_errors_can_be_retried(cli: Cli, judge: Judge, server: OpenAIBatchServer) -> None:
    server.failing = 2
    done = judge()
    assert done.code == 1
    assert done.document["abstained"] == {"model_error": 2}
    assert cli("retry").code == 0


def test_a_row_read_wrongly_costs_itself_alone(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = iter(range(TRACES))

    def failing_once(body: str) -> Any:
        if next(rows) == 0:
            raise ZeroDivisionError("boom")
        return read_body(body)

    monkeypatch.setattr("inference.openai.batch.read_body", failing_once)
    done = judge()
    assert done.document["done"] == TRACES - 1
    assert done.document["abstained"] == {"model_error": 1}


def test_a_job_whose_reply_was_lost_is_found_and_not_made_again(
    judge: Judge, server: OpenAIBatchServer
) -> None:
    server.create_script = [299]
    assert judge().code == 0
    assert len(server.jobs) == 1


def test_a_service_without_room_is_waited_for(judge: Judge, server: OpenAIBatchServer) -> None:
    server.create_script = [429]
    assert judge().code == 0
    assert set(server.sent.values()) == {1}


def test_a_job_that_would_fail_again_ends_the_run(judge: Judge, server: OpenAIBatchServer) -> None:
    server.ending = "failed"
    done = judge()
    assert done.code == 2
    assert "model_not_found" in done.document["error"]["what"]


def test_an_expired_job_is_sent_again(judge: Judge, server: OpenAIBatchServer) -> None:
    server.ending = "expired"
    server.answer = lambda path, body: (500, {}, {})  # type: ignore[method-assign]
    done = judge()
    assert done.code == 1
    assert done.document["abstained"] == {"model_error": TRACES}


def test_a_server_without_batches_is_named(
    cli: Cli, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.loopback.openai_server import OpenAIServer

    with OpenAIServer(JUDGED) as plain:
        done = judge("--base-url", plain.url)
    assert done.code == 2
    assert "no such path" in done.document["error"]["what"]


def test_jobs_run_on_one_server(judge: Judge) -> None:
    done = judge("--base-url", "http://127.0.0.1:9/v1", "--base-url", "http://127.0.0.1:10/v1")
    assert done.code == 2
    assert "one server" in done.document["error"]["what"]
