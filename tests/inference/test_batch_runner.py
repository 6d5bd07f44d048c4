"""Requests through batch jobs, with the real client against a Gemini on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.budget import input_bound
from inference.dispatch import Dispatcher
from inference.gemini.model import GeminiModel
from inference.protocol import request_key
from tests.inference.batches import NAME, SPEC, answered, interrupted_at, requests, running
from tests.loopback import gemini_answers
from tests.loopback.gemini_batch_jobs import BatchWorld, Plan
from tests.loopback.gemini_batch_server import GeminiBatchServer
from traces.errors import ModelChanged, ModelUnavailable
from traces.records import BatchEnding, BatchJob, BatchRow, ModelReply, Usage

TOO_LONG = "The input token count (9) exceeds the maximum number of tokens allowed (8)."


def right_text(world: BatchWorld, key: str) -> str:
    """What the service answered to the request of that key."""
    bodies = {name: body for job in world.jobs.values() for name, body in job.rows}
    reply = gemini_answers.full_reply(bodies[key], NAME)
    return str(reply["candidates"][0]["content"]["parts"][0]["text"])


@pytest.mark.slow
def test_two_hundred_requests_in_several_waves(database: Path) -> None:
    asked = requests(200)
    cap = 2500
    with (
        GeminiBatchServer() as server,
        running(server, database, limits={"enqueued_tokens": cap}) as (runner, store),
    ):
        outcomes = answered(runner, asked)
        assert store.replies.batch_jobs.alive() == []
        assert store.replies.totals().sent == runner.counters.sent == 200
    world = server.world
    assert len(world.jobs) > 3
    per_request = input_bound(asked[-1])
    assert all(len(job.rows) * (per_request - 2) <= cap for job in world.jobs.values())
    keys = [request_key(SPEC, request) for request in asked]
    assert dict(world.sent) == dict.fromkeys(keys, 1)
    # results come shuffled: a reply belongs to the request of its key
    texts = [right_text(world, key) for key in keys]
    assert len(set(texts)) > 50
    assert [getattr(outcomes[n], "text", None) for n in range(200)] == texts
    assert store.replies.batch_jobs.keys(SPEC) == set()


@pytest.mark.slow
def test_a_row_is_what_a_single_call_sends(database: Path) -> None:
    [asked] = requests(1)
    asked = replace(asked, stop=("\n\n",), top_p=0.5, seed=3)
    schema = {"type": "object", "properties": {"b": {"type": "null"}, "a": {"default": None}}}
    asked = replace(asked, response_json_schema=schema)
    with GeminiBatchServer() as server, running(server, database) as (runner, _):
        answered(runner, [asked])
        [job] = server.world.jobs.values()
        model = GeminiModel(NAME, base_url=server.url, environ={"GEMINI_API_KEY": "k"})
        with Dispatcher(model, None) as dispatcher:
            assert len(list(dispatcher.run([asked]))) == 1
        [single] = server.bodies
    assert job.rows[0][1] == single
    assert job.rows[0][1]["generationConfig"]["responseJsonSchema"] == schema


@pytest.mark.parametrize("ending", ["SUCCEEDED", "EXPIRED", "CANCELLED", "FAILED"])
def test_partial_results_are_taken_and_the_rest_is_sent_again(database: Path, ending: str) -> None:
    world = BatchWorld([Plan(ending=ending, share=0.9)])
    with GeminiBatchServer(world) as server, running(server, database) as (runner, store):
        outcomes = answered(runner, requests(20))
        assert all(isinstance(outcome, ModelReply) for outcome in outcomes.values())
        assert [len(job.rows) for job in world.jobs.values()] == [20, 2]
        assert set(world.bought.values()) == {1}
        assert store.replies.totals().sent == 20
        assert store.replies.totals().usd == pytest.approx(float(world.usd), abs=1e-12)
    assert len(outcomes) == 20


def test_a_job_that_never_works_is_sent_three_times_and_then_given_up(database: Path) -> None:
    world = BatchWorld([Plan(ending="EXPIRED", share=0)] * 9)
    with GeminiBatchServer(world) as server, running(server, database) as (runner, store):
        outcomes = answered(runner, requests(5))
        assert store.replies.batch_jobs.alive() == []
    assert len(world.jobs) == 3
    assert {type(outcome) for outcome in outcomes.values()} == {ModelUnavailable}
    assert "3 batch jobs" in str(outcomes[0])
    assert runner.counters.failed == 5


def test_the_number_of_jobs_is_counted_over_processes(database: Path) -> None:
    world = BatchWorld([Plan(looks=2, ending="EXPIRED", share=0)] * 9)
    with GeminiBatchServer(world) as server:
        with (
            running(server, database, sleep=interrupted_at(2)) as (runner, _),
            pytest.raises(KeyboardInterrupt),
        ):
            answered(runner, requests(5))
        assert len(world.jobs) == 2
        with running(server, database) as (runner, _):
            assert len(answered(runner, requests(5))) == 5
    assert len(world.jobs) == 3


def test_errors_of_rows_are_outcomes_and_not_sent_again(database: Path) -> None:
    world, said = BatchWorld([Plan(errors=3)]), list[str]()
    with (
        GeminiBatchServer(world) as server,
        running(server, database, said=said) as (runner, store),
    ):
        outcomes = answered(runner, requests(10))
        failed = [each for each in outcomes.values() if isinstance(each, ModelUnavailable)]
        assert (len(failed), store.replies.totals().sent) == (3, 7)
        assert "13 Internal." in str(failed[0])
        assert said[-1] == "batches/b0: succeeded, 7 replies, 3 errors."
        # what is decided counts no jobs any more
        keys = {request_key(SPEC, request) for request in requests(10)}
        again = BatchJob("again", SPEC, server.url, 0.0)
        store.replies.batch_jobs.open(again, [BatchRow(key, "", 1, 0.0) for key in keys])
        closed = store.replies.batch_jobs.close("again", BatchEnding.LOST, at=0.0)
        assert list(closed.values()) == [1, 1, 1]
        store.replies.batch_jobs.forget(closed)
        assert len(world.jobs) == 1
        # asked again, it is only these three that are bought
        assert all(isinstance(each, ModelReply) for each in answered(runner, requests(10)).values())
    assert [len(job.rows) for job in world.jobs.values()] == [10, 3]


def test_a_prompt_beyond_the_window_is_recorded_as_such(database: Path) -> None:
    world = BatchWorld([Plan(errors=1, error={"code": 3, "message": TOO_LONG})])
    with GeminiBatchServer(world) as server, running(server, database) as (runner, _):
        outcomes = answered(runner, requests(2))
        words = sorted(getattr(each, "finish_reason", "?") for each in outcomes.values())
        assert words == ["over_length", "stop"]
        assert answered(runner, requests(2)).keys() == {0, 1}
    assert len(world.jobs) == 1


@pytest.mark.parametrize("plan", [Plan(twice=True), Plan(torn=True)])
def test_repeated_torn_and_foreign_lines_change_nothing(database: Path, plan: Plan) -> None:
    world = BatchWorld([plan])
    with GeminiBatchServer(world) as server, running(server, database) as (runner, store):
        asked = requests(6)
        outcomes = answered(runner, asked)
        assert store.replies.totals().sent == 6
    texts = [right_text(world, request_key(SPEC, request)) for request in asked]
    assert [getattr(outcomes[n], "text", None) for n in range(6)] == texts
    assert len(world.jobs) == 1


def test_equal_requests_are_sent_once(database: Path) -> None:
    asked = [
        *requests(3),
        *(replace(each, meta={"n": 3 + n}) for n, each in enumerate(requests(3))),
    ]
    with GeminiBatchServer() as server, running(server, database) as (runner, store):
        outcomes = answered(runner, asked)
        assert store.replies.totals().sent == 3
        assert store.replies.totals().cached == runner.counters.cached == 3
    assert [getattr(outcomes[n], "text", None) for n in range(3)] == [
        getattr(outcomes[n], "text", None) for n in range(3, 6)
    ]
    assert set(server.world.sent.values()) == {1}


def test_batch_and_single_calls_share_their_replies(database: Path) -> None:
    with GeminiBatchServer() as server, running(server, database) as (runner, store):
        model = GeminiModel(NAME, base_url=server.url, environ={"GEMINI_API_KEY": "k"})
        with Dispatcher(model, store.replies) as dispatcher:
            list(dispatcher.run(requests(2)))
            assert len(answered(runner, requests(4))) == 4
            list(dispatcher.run(requests(4)))
            assert dispatcher.counters.sent == 2
        assert sum(server.billed.values()) == 2
    assert sum(server.world.sent.values()) == 2


@pytest.mark.parametrize(
    "usage",
    [
        {"promptTokenCount": 5000, "candidatesTokenCount": 400},
        {"promptTokenCount": 5000, "candidatesTokenCount": 400, "thoughtsTokenCount": 1500},
        {"promptTokenCount": 5000, "candidatesTokenCount": 4, "cachedContentTokenCount": 4096},
        {"promptTokenCount": 7},
    ],
)
def test_the_ledger_is_the_servers_own_count(database: Path, usage: dict[str, Any]) -> None:
    world = BatchWorld([Plan(share=0.5)], usage=usage)
    with GeminiBatchServer(world) as server, running(server, database) as (runner, store):
        outcomes = answered(runner, requests(10))
        assert abs(store.replies.totals().usd - float(world.usd)) < 1e-9
        assert abs(runner.counters.usd - float(world.usd)) < 1e-9
    [counted] = {reply.usage for reply in outcomes.values() if isinstance(reply, ModelReply)}
    assert counted == Usage(
        usage["promptTokenCount"],
        usage.get("cachedContentTokenCount", 0),
        usage.get("candidatesTokenCount", 0),
        usage.get("thoughtsTokenCount", 0),
    )


def test_another_version_ends_the_run_and_loses_nothing(database: Path) -> None:
    def refuse(_: ModelReply) -> None:
        raise ModelChanged("Another version answers.")

    with GeminiBatchServer() as server:
        with running(server, database, inspect=refuse) as (runner, store):
            with pytest.raises(ModelChanged):
                answered(runner, requests(3))
            assert store.replies.totals().sent == 3
        with running(server, database) as (runner, _):
            assert len(answered(runner, requests(3))) == 3
    assert set(server.world.sent.values()) == {1}


def test_a_request_that_no_job_can_hold_says_so(database: Path) -> None:
    with (
        GeminiBatchServer() as server,
        running(server, database, limits={"enqueued_tokens": 5}) as (runner, _),
    ):
        outcomes = answered(runner, requests(2))
    assert {type(outcome) for outcome in outcomes.values()} == {ModelUnavailable}
    assert "--enqueued-tokens" in str(outcomes[0])
    assert not server.world.jobs
