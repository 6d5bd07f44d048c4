"""The ledger of model calls: a paid reply is kept once, whole, and found again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from storage import CallTotals, Store
from traces.errors import InputError, StoreError
from traces.records import ModelReply, StoredCall, Usage

REPLY = ModelReply(
    "Yes.", "stop", "gemini:m", "m-001", Usage(10, 2, 3, 4), 0.25, "2026-11-01", '{"a": 1}'
)
CALL = StoredCall("k1", '{"prompt": "Is it?"}', REPLY, {"trace_id": "t0"})


def test_a_reply_is_found_under_its_key_and_marked_as_cached(store: Store) -> None:
    assert store.replies.get("k1") is None
    store.replies.put(CALL)
    assert store.replies.get("k1") == replace(REPLY, cached=True)
    [audited] = store.replies.calls()
    assert (audited.request, audited.meta) == (CALL.request, CALL.meta)


def test_the_first_reply_of_a_key_stays_and_later_ones_are_paid_for_too(store: Store) -> None:
    store.replies.put(CALL)
    store.replies.put(replace(CALL, reply=replace(REPLY, text="No.", usd=9.0)))
    assert store.replies.get("k1") == replace(REPLY, cached=True)
    assert store.replies.totals() == CallTotals(sent=2, cached=0, usd=9.25)


def test_the_totals(store: Store) -> None:
    assert store.replies.totals() == CallTotals(0, 0, 0.0, 0)
    store.replies.put(CALL)
    store.replies.put(replace(CALL, key="k2", reply=replace(REPLY, usd=0.5)))
    store.replies.put(replace(CALL, key="k3", reply=replace(REPLY, usd=None)))
    for key in ("k1", "k1", "k3"):
        store.replies.count_hit(key)
    assert store.replies.totals() == CallTotals(
        sent=3, cached=3, usd=0.75, unpriced=1, saved_usd=0.5
    )
    with pytest.raises(InputError, match="'k9'"):
        store.replies.count_hit("k9")


def test_spending_is_summed_by_model_purpose_and_version(store: Store) -> None:
    other = replace(REPLY, resolved_model="v2", usd=None)
    store.replies.put_all(
        [
            replace(CALL, meta={"purpose": "judge"}),
            replace(CALL, key="k2", meta={"purpose": "judge"}),
            replace(CALL, key="k3", reply=other, meta={"purpose": 7}),
        ]
    )
    store.replies.count_hit("k2")
    rows = {(row.purpose, row.resolved_model): row for row in store.replies.spending()}
    judged = rows["judge", REPLY.resolved_model]
    assert (judged.sent, judged.cached, judged.usd, judged.saved_usd) == (2, 1, 0.5, 0.25)
    assert judged.usage.input_tokens == 2 * REPLY.usage.input_tokens
    assert (rows[None, "v2"].sent, rows[None, "v2"].unpriced) == (1, 1)
    assert store.replies.versions(REPLY.model) == {REPLY.resolved_model, "v2"}
    assert store.replies.versions("nobody") == set()


def test_a_reply_is_found_in_the_transaction_that_records_it_and_not_from_outside(
    store: Store,
) -> None:
    with store.transaction():
        store.replies.put(CALL)
        assert store.replies.get("k1") == replace(REPLY, cached=True)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(store.replies.get, "k1").result() is None
    assert store.replies.get("k1") is not None


def test_looking_up_replies_leaves_no_lock_behind(store: Store) -> None:
    store.replies.put(CALL)
    for key in ("k1", "k9") * 20:  # more often than there are connections
        store.replies.get(key)
    store.replies.put(replace(CALL, key="k2"))
    assert store.replies.get("k2") is not None


def test_replies_put_together_are_all_kept_or_none(store: Store) -> None:
    bad = replace(CALL, key="k2", reply=replace(REPLY, usd=-1.0))
    with pytest.raises(InputError):
        store.replies.put_all([CALL, bad])
    assert store.replies.totals().sent == 0


def test_paid_replies_stay_when_their_dataset_goes(store: Store) -> None:
    from tests.storage.builders import fill

    fill(store)
    store.replies.put(CALL)
    store.traces.remove_dataset("d")
    assert store.replies.totals().sent == 1


@pytest.mark.parametrize("usd", [float("nan"), -1.0, float("inf")])
def test_a_cost_that_is_none_is_refused(store: Store, usd: float) -> None:
    with pytest.raises(InputError, match="cost"):
        store.replies.put(replace(CALL, reply=replace(REPLY, usd=usd)))


def test_a_reply_is_there_for_others_when_put_returns(url: str) -> None:
    with Store.open(url) as store, Store.open(url) as other:
        store.replies.put(CALL)
        assert other.replies.get("k1") is not None


@pytest.mark.slow
@pytest.mark.parametrize("place", ["memory", "file"])
def test_threads_share_a_store(place: str, url: str) -> None:
    barrier = threading.Barrier(8)
    with Store.open("sqlite://" if place == "memory" else url) as store:

        def work(worker: int) -> int:
            barrier.wait(timeout=30)
            found = 0
            for number in range(20):
                # Every key is put by two workers.
                key = f"{worker // 2}-{number}"
                store.replies.put(replace(CALL, key=key))
                found += store.replies.get(key) is not None
                store.replies.count_hit(key)
            return found

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [20] * 8
        assert store.replies.totals() == CallTotals(160, 160, usd=40.0, saved_usd=40.0)


def test_the_transaction_of_a_thread_is_its_own(url: str) -> None:
    with Store.open(url) as store, ThreadPoolExecutor(1) as pool:
        with store.transaction():
            store.replies.put(CALL)
            assert pool.submit(store.replies.get, "k1").result(timeout=30) is None
        assert pool.submit(store.replies.get, "k1").result(timeout=30) is not None


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_disk_that_is_almost_full_is_told_before_a_call(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.replies.check()
    monkeypatch.setattr("storage.database.SPARE_BYTES", 1 << 62)
    with pytest.raises(StoreError, match="almost full"):
        store.replies.check()
