"""Batch jobs that are stuck, refused, lost or out of reach, and what they may cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.budget import input_bound
from tests.inference.batches import SPEC, Clock, answered, interrupted_at, requests, running
from tests.loopback.gemini_batch_jobs import BatchWorld, Plan
from tests.loopback.gemini_batch_server import GeminiBatchServer
from traces.errors import (
    BudgetExhausted,
    InputError,
    ModelRefused,
    ModelUnavailable,
    QuotaExhausted,
)
from traces.records import ModelReply

DAY = 24 * 3600.0


def test_a_stuck_job_is_cancelled_what_it_has_is_taken_the_rest_goes_again(
    database: Path,
) -> None:
    clock, said = Clock(), list[str]()
    world = BatchWorld([Plan(ending="STUCK", share=0.5)])
    with (
        GeminiBatchServer(world) as server,
        running(server, database, clock=clock, said=said, limits={"poll_s": 4 * 3600}) as (
            runner,
            _,
        ),
    ):
        start = clock.now
        outcomes = answered(runner, requests(10))
    assert all(isinstance(outcome, ModelReply) for outcome in outcomes.values())
    assert [len(job.rows) for job in world.jobs.values()] == [10, 5]
    assert DAY < clock.now - start <= DAY + 8 * 3600
    assert set(clock.slept) == {4 * 3600}
    assert any("not finished after 28" in line for line in said)
    assert set(world.bought.values()) == {1}


def test_a_job_that_cannot_even_be_cancelled_is_given_up(database: Path) -> None:
    clock = Clock()
    world = BatchWorld([Plan(ending="STUCK")])
    with (
        GeminiBatchServer(world) as server,
        running(server, database, clock=clock, limits={"poll_s": 4 * 3600}) as (runner, _),
    ):
        world.deaf_to_cancel = True
        assert len(answered(runner, requests(2))) == 2
    assert [job.state for job in world.jobs.values()] == ["PENDING", "SUCCEEDED"]


def test_signs_of_life_keep_a_job_alive_but_not_for_ever(database: Path) -> None:
    clock = Clock()
    world = BatchWorld([Plan(ending="STUCK", share=0, alive=True)])
    with (
        GeminiBatchServer(world) as server,
        running(server, database, clock=clock, limits={"poll_s": 4 * 3600}) as (runner, _),
    ):
        start = clock.now
        assert len(answered(runner, requests(2))) == 2
    assert 2 * DAY < clock.now - start <= 2 * DAY + 8 * 3600


def test_a_job_that_must_fail_again_is_one_clear_error(database: Path) -> None:
    error = {"code": 3, "message": "This model takes no batch jobs."}
    world = BatchWorld([Plan(ending="FAILED", share=0, error=error)] * 9)
    with GeminiBatchServer(world) as server, running(server, database) as (runner, store):
        with pytest.raises(ModelRefused, match="takes no batch jobs"):
            answered(runner, requests(5))
        assert store.replies.batch_jobs.alive() == []
    assert len(world.jobs) == 1


def test_a_failed_job_that_may_work_again_goes_again(database: Path) -> None:
    world = BatchWorld([Plan(ending="FAILED", share=0)])
    with GeminiBatchServer(world) as server, running(server, database) as (runner, _):
        outcomes = answered(runner, requests(5))
    assert all(isinstance(outcome, ModelReply) for outcome in outcomes.values())
    assert len(world.jobs) == 2


def test_a_wrong_key_is_one_clear_error_and_leaves_no_job(database: Path) -> None:
    with GeminiBatchServer(key="right") as server, running(server, database) as (runner, store):
        with pytest.raises(ModelRefused, match="GEMINI_API_KEY"):
            answered(runner, requests(2))
        assert store.replies.batch_jobs.alive() == []
    assert server.requests.count("create") == 1


def test_a_full_queue_is_met_with_smaller_jobs(database: Path) -> None:
    clock = Clock()
    with (
        GeminiBatchServer(create_script=["429", "429"]) as server,
        running(server, database, clock=clock) as (runner, store),
    ):
        assert len(answered(runner, requests(16))) == 16
        assert store.replies.batch_jobs.alive() == []
    sizes = [len(job.rows) for job in server.world.jobs.values()]
    assert sizes[0] == 4
    assert sum(sizes) == 16
    assert set(server.world.sent.values()) == {1}


def test_a_full_queue_is_given_the_time_it_asks_for(database: Path) -> None:
    clock = Clock()
    with (
        GeminiBatchServer(create_script=["429 3600"]) as server,
        running(server, database, clock=clock) as (runner, _),
    ):
        start = clock.now
        assert len(answered(runner, requests(4))) == 4
    assert 3600 <= clock.now - start < 3600 + 60
    assert server.requests.count("create") == 3  # refused, then in two halves


@pytest.mark.slow
def test_an_estimate_that_was_too_low_makes_smaller_jobs(database: Path) -> None:
    estimate = input_bound(requests(1)[0])
    world = BatchWorld(usage={"promptTokenCount": 5 * estimate, "candidatesTokenCount": 1})
    bounds = {"enqueued_tokens": 25 * estimate}
    with (
        GeminiBatchServer(world) as server,
        running(server, database, limits=bounds) as (runner, _),
    ):
        assert len(answered(runner, requests(60))) == 60
    first, *others = [len(job.rows) for job in world.jobs.values()]
    assert 23 <= first <= 25
    assert set(others[:-1]) <= {4, 5}


def test_a_queue_that_stays_full_ends_the_run_resumably(database: Path) -> None:
    with GeminiBatchServer(create_script=["429"] * 100) as server:
        with running(server, database, limits={"refusals": 4}) as (runner, store):
            with pytest.raises(QuotaExhausted, match="--enqueued-tokens"):
                answered(runner, requests(16))
            assert store.replies.batch_jobs.alive() == []
        assert server.requests.count("create") == 4
        server.create_script = []
        with running(server, database) as (runner, _):
            assert len(answered(runner, requests(16))) == 16


def test_a_job_whose_create_reply_was_lost_is_not_made_twice(database: Path) -> None:
    with (
        GeminiBatchServer(create_script=["503 made"]) as server,
        running(server, database) as (runner, _),
    ):
        assert len(answered(runner, requests(5))) == 5
    assert len(server.world.jobs) == 1
    assert "list" in server.requests


def test_a_job_of_which_nobody_knows_whether_it_was_made_is_looked_for_later(
    database: Path,
) -> None:
    with GeminiBatchServer(create_script=["503 made"]) as server:
        server.failing = {"list"}
        with running(server, database) as (runner, store):
            with pytest.raises(ModelUnavailable):
                answered(runner, requests(5))
            [job] = store.replies.batch_jobs.alive()
            assert (job.name, job.outstanding) == (None, 5)
        server.failing = set()
        # meanwhile the service made it once more: the younger one must not run
        [made] = server.world.jobs.values()
        server.world.create(made.model, made.display_name, "files/in0")
        with running(server, database) as (runner, store):
            assert len(answered(runner, requests(5))) == 5
            assert store.replies.totals().sent == 5
    assert [each.state for each in server.world.jobs.values()] == ["SUCCEEDED", "CANCELLED"]


def test_a_job_that_was_never_made_is_sent_by_the_next_run(database: Path) -> None:
    with GeminiBatchServer(create_script=["503"] * 5) as server:
        with running(server, database) as (runner, store):
            with pytest.raises(ModelUnavailable):
                answered(runner, requests(5))
            assert len(store.replies.batch_jobs.alive()) == 1
        with running(server, database) as (runner, store):
            assert len(answered(runner, requests(5))) == 5
            assert store.replies.batch_jobs.alive() == []
    assert set(server.world.sent.values()) == {1}


def test_who_stops_early_leaves_jobs_that_the_next_run_adopts(database: Path) -> None:
    said: list[str] = []
    world = BatchWorld([Plan(looks=3)])
    with GeminiBatchServer(world) as server:
        with running(server, database, said=said, sleep=interrupted_at(1)) as (runner, store):
            with pytest.raises(KeyboardInterrupt):
                answered(runner, requests(5))
            [job] = store.replies.batch_jobs.alive()
            assert (job.outstanding, job.name) == (5, "batches/b0")
        assert "5 requests" in said[-1]
        assert "Run the same command again" in said[-1]
        # next day, with more to do: the old ones are not sent again
        with running(server, database, clock=Clock(1_800_086_400.0)) as (runner, _):
            assert len(answered(runner, requests(8))) == 8
    assert [len(job.rows) for job in world.jobs.values()] == [5, 3]
    assert set(world.sent.values()) == {1}


def test_replies_nobody_asks_for_any_more_are_recorded_all_the_same(database: Path) -> None:
    with GeminiBatchServer(BatchWorld([Plan(looks=2)])) as server:
        with (
            running(server, database, sleep=interrupted_at(1)) as (runner, store),
            pytest.raises(KeyboardInterrupt),
        ):
            answered(runner, requests(5))
        assert store.replies.totals().sent == 0
        with running(server, database) as (runner, store):
            assert answered(runner, []) == {}
            assert store.replies.totals().sent == 5


def test_results_that_are_gone_are_bought_again(database: Path) -> None:
    world = BatchWorld()
    with GeminiBatchServer(world) as server, running(server, database) as (runner, _):
        world.forgetful = 1
        assert len(answered(runner, requests(5))) == 5
    assert [len(job.rows) for job in world.jobs.values()] == [5, 5]


def test_a_job_that_the_service_does_not_know_is_bought_again(database: Path) -> None:
    world = BatchWorld([Plan(looks=99)])
    clock = Clock()

    def vanish(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 1:
            world.jobs.clear()

    with (
        GeminiBatchServer(world) as server,
        running(server, database, clock=clock, sleep=vanish) as (runner, _),
    ):
        assert len(answered(runner, requests(5))) == 5
    assert set(world.sent.values()) == {2}


def test_a_service_that_was_restarted_is_asked_again(database: Path) -> None:
    world, clock, said = BatchWorld([Plan(looks=3)]), Clock(), list[str]()
    servers = [GeminiBatchServer(world).start()]

    def restart(seconds: float) -> None:
        clock.sleep(seconds)
        if len(servers) == 1 and len(said) == 1:
            servers[0].close()
        if len(servers) == 1 and len(said) == 2:
            servers.append(GeminiBatchServer(world, port=servers[0].port).start())

    with running(servers[0], database, clock=clock, said=said, sleep=restart) as (runner, _):
        assert len(answered(runner, requests(5))) == 5
    for server in servers:
        server.close()
    assert len(servers) == 2
    assert any("The batch jobs keep running" in line for line in said)
    assert set(world.sent.values()) == {1}


def test_a_service_that_stays_away_ends_the_run_and_the_job_goes_on(database: Path) -> None:
    clock = Clock()
    with GeminiBatchServer(BatchWorld([Plan(looks=99)])) as server:

        def vanish(seconds: float) -> None:
            clock.sleep(seconds)
            server.close()

        bounds = {"silent_polls": 3}
        with running(server, database, clock=clock, sleep=vanish, limits=bounds) as (runner, store):
            with pytest.raises(ModelUnavailable, match="gave no reply"):
                answered(runner, requests(5))
            assert [job.outstanding for job in store.replies.batch_jobs.alive()] == [5]


def test_a_service_that_fails_every_other_look_is_no_service_that_stays_away(
    database: Path,
) -> None:
    clock = Clock()
    with GeminiBatchServer(BatchWorld([Plan(looks=4)])) as server:

        def flicker(seconds: float) -> None:
            clock.sleep(seconds)
            server.failing = set() if server.failing else {"look"}

        bounds = {"silent_polls": 2}
        with running(server, database, clock=clock, sleep=flicker, limits=bounds) as (runner, _):
            assert len(answered(runner, requests(5))) == 5
    assert len(server.world.jobs) == 1


def test_jobs_at_another_endpoint_are_not_forgotten(database: Path) -> None:
    with GeminiBatchServer(BatchWorld([Plan(looks=99)])) as first:
        with (
            running(first, database, sleep=interrupted_at(1)) as (runner, _),
            pytest.raises(KeyboardInterrupt),
        ):
            answered(runner, requests(5))
        with GeminiBatchServer() as second:
            with (
                running(second, database) as (other, _),
                pytest.raises(InputError, match="5 requests") as caught,
            ):
                answered(other, requests(5))
            assert first.url in str(caught.value.remedy)
            # four days later no job of then is on its way
            late = Clock(1_800_000_000.0 + 4 * DAY)
            with running(second, database, clock=late) as (other, store):
                assert len(answered(other, requests(5))) == 5
                assert store.replies.batch_jobs.keys(SPEC) == set()


@pytest.mark.slow
@pytest.mark.parametrize("requests_per_job", [2, 100])
def test_the_budget_counts_what_is_on_its_way_at_its_most(
    database: Path, requests_per_job: int
) -> None:
    bounds = {"requests_per_job": requests_per_job}
    usage = {"promptTokenCount": 30, "candidatesTokenCount": 190}
    world = BatchWorld([Plan(looks=9)] * 50, usage=usage)
    one = 200 * 1.25e-6  # at most, without the input
    with GeminiBatchServer(world) as server:
        with running(server, database, budget_usd=10 * one, limits=bounds) as (runner, store):
            with pytest.raises(BudgetExhausted, match="larger --budget"):
                answered(runner, requests(40))
            spent = store.replies.totals().usd
        assert 8 * one < spent <= 10 * one
        assert spent == pytest.approx(float(world.usd), abs=1e-12)
        sizes = [len(job.rows) for job in world.jobs.values()]
        assert sizes[0] == min(9, requests_per_job)
        with running(server, database) as (runner, _):
            assert len(answered(runner, requests(40))) == 40
    assert set(world.sent.values()) == {1}


def test_a_budget_for_an_unpriced_model_is_refused(database: Path) -> None:
    from inference.batch.jobs import BatchBudget
    from tests.inference.scripted import ScriptedModel

    with pytest.raises(InputError, match="No price"):
        BatchBudget(1.0, ScriptedModel(spec="gemini:gemini-9"))
