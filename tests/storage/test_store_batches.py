"""Batch jobs in the store: a request is in one job at a time and leaves it with its reply."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from storage import Store
from traces.errors import InputError
from traces.records import (
    BatchEnding,
    BatchJob,
    BatchRow,
    BatchState,
    ModelReply,
    StoredCall,
    Usage,
)

JOB = BatchJob("j1", "gemini:m", "https://service", 1000.0)
REPLY = ModelReply("Yes.", "stop", "gemini:m", "m-1", Usage(10, 2, 3, 4), 0.25, "2026-11-01", "{}")


def row(key: str, **changes: object) -> BatchRow:
    """A request of 100 tokens that costs a quarter dollar at most."""
    return replace(BatchRow(key, "Is it?", 100, 0.25, {"trace_id": key}), **changes)  # type: ignore[arg-type]


def call(key: str) -> StoredCall:
    """Its reply."""
    return StoredCall(key, "Is it?", REPLY, {"trace_id": key})


def test_a_job_is_known_before_it_is_sent_and_from_then_on(store: Store) -> None:
    jobs = store.replies.batch_jobs
    assert jobs.open(JOB, [row("a"), row("b")]) == {"a", "b"}
    [prepared] = jobs.alive()
    assert (prepared.state, prepared.name) == (BatchState.PREPARED, None)
    assert (prepared.tokens, prepared.usd, prepared.outstanding) == (200, 0.5, 2)
    assert prepared.display_name == "stepgold-j1"

    assert jobs.submitted("j1", "batches/x", progress="PENDING", at=1001.0)
    jobs.progressed("j1", "RUNNING", at=1002.0)
    jobs.cancelling("j1", at=1003.0)
    [sent] = jobs.alive("gemini:m")
    assert (sent.state, sent.name) == (BatchState.SUBMITTED, "batches/x")
    assert (sent.progress, sent.progress_at, sent.cancelled_at) == ("RUNNING", 1002.0, 1003.0)
    assert jobs.alive("gemini:other") == []
    assert jobs.rows("j1") == {"a": row("a"), "b": row("b")}
    assert jobs.keys("gemini:m") == {"a", "b"}
    assert jobs.keys("gemini:other") == set()


def test_a_reply_takes_its_request_off_the_job_in_one_transaction(store: Store) -> None:
    store.replies.batch_jobs.open(JOB, [row("a"), row("b")])
    store.replies.batch_jobs.record([call("a")])
    assert store.replies.get("a") == replace(REPLY, cached=True)
    assert set(store.replies.batch_jobs.rows("j1")) == {"b"}
    broken = replace(call("b"), reply=replace(REPLY, usd=-1.0))
    with pytest.raises(InputError, match="cost"):
        store.replies.batch_jobs.record([broken])
    assert set(store.replies.batch_jobs.rows("j1")) == {"b"}
    assert store.replies.totals().sent == 1


def test_a_request_that_was_bought_elsewhere_meanwhile_is_paid_twice_in_the_ledger(
    store: Store,
) -> None:
    store.replies.batch_jobs.open(JOB, [row("a")])
    store.replies.put(call("a"))
    store.replies.batch_jobs.record([replace(call("a"), reply=replace(REPLY, text="No."))])
    assert store.replies.totals().usd == 0.5
    kept = store.replies.get("a")
    assert kept is not None
    assert kept.text == "Yes."
    # the results are read once more after a kill: nothing new was paid
    store.replies.batch_jobs.record([call("a"), call("unknown")])
    assert store.replies.totals().sent == 2


def test_a_request_is_in_one_job_at_a_time(store: Store) -> None:
    jobs = store.replies.batch_jobs
    store.replies.put(call("c"))
    assert jobs.open(JOB, [row("a"), row("c")]) == {"a"}
    second = replace(JOB, id="j2")
    assert jobs.open(second, [row("a"), row("b")]) == {"b"}
    assert jobs.open(replace(JOB, id="j3"), [row("a"), row("c")]) == set()
    assert [job.id for job in jobs.alive()] == ["j1", "j2"]

    assert jobs.close("j1", BatchEnding.EXPIRED, at=1.0) == {"a": 1}
    assert jobs.open(replace(JOB, id="j4"), [row("a")]) == {"a"}
    assert jobs.close("j4", BatchEnding.FAILED, at=2.0, detail="why") == {"a": 2}
    assert [job.id for job in jobs.alive()] == ["j2"]


@pytest.mark.parametrize("ending", [BatchEnding.NEVER_SENT, BatchEnding.REFUSED])
def test_a_job_that_never_ran_does_not_count(store: Store, ending: BatchEnding) -> None:
    jobs = store.replies.batch_jobs
    jobs.open(JOB, [row("a")])
    jobs.close("j1", BatchEnding.EXPIRED, at=1.0)
    jobs.open(replace(JOB, id="j2"), [row("a"), row("b")])
    assert jobs.close("j2", ending, at=2.0) == {"a": 1, "b": 0}
    jobs.open(replace(JOB, id="j3"), [row("a"), row("b")])
    assert jobs.close("j3", BatchEnding.LOST, at=3.0) == {"a": 2, "b": 1}


def test_a_job_that_was_closed_meanwhile_is_not_entered(store: Store) -> None:
    jobs = store.replies.batch_jobs
    jobs.open(JOB, [row("a")])
    jobs.close("j1", BatchEnding.NEVER_SENT, at=1.0)
    assert not jobs.submitted("j1", "batches/x", progress="", at=2.0)
    assert jobs.alive() == []


def test_a_forgotten_request_counts_anew(store: Store) -> None:
    jobs = store.replies.batch_jobs
    jobs.open(JOB, [row("a")])
    jobs.close("j1", BatchEnding.EXPIRED, at=1.0)
    jobs.forget(["a", "unknown"])
    jobs.open(replace(JOB, id="j2"), [row("a")])
    assert jobs.close("j2", BatchEnding.EXPIRED, at=2.0) == {"a": 1}


def test_many_requests_and_texts_that_no_utf8_can_hold(store: Store) -> None:
    odd = "half \ud83d and \0"
    rows = [row(f"k{number}", request=odd, usd=None) for number in range(2500)]
    assert len(store.replies.batch_jobs.open(JOB, rows)) == 2500
    [job] = store.replies.batch_jobs.alive()
    assert (job.requests, job.outstanding, job.tokens, job.usd) == (2500, 2500, 250_000, 0.0)
    assert store.replies.batch_jobs.rows("j1")["k7"].request == odd
    assert len(store.replies.batch_jobs.close("j1", BatchEnding.LOST, at=1.0)) == 2500


@pytest.mark.parametrize("broken", [{"tokens": -1}, {"usd": float("nan")}, {"meta": {1: 2}}])
def test_what_is_no_number_or_json_is_refused(store: Store, broken: dict[str, object]) -> None:
    with pytest.raises(InputError):
        store.replies.batch_jobs.open(JOB, [row("a"), row("b", **broken)])
    assert store.replies.batch_jobs.alive() == []


def test_two_processes_share_out_the_requests(url: str) -> None:
    barrier = threading.Barrier(4)
    with Store.open(url) as store, Store.open(url) as other:

        def work(worker: int) -> set[str]:
            barrier.wait(timeout=30)
            jobs = (store, other)[worker % 2].replies.batch_jobs
            mine = replace(JOB, id=f"j{worker}")
            return jobs.open(mine, [row(f"k{number}") for number in range(50)])

        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(work, range(4)))
    assert sorted(map(len, taken)) == [0, 0, 0, 50]
