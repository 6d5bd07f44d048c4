"""Reading: order, selection, pages, and reading while labels are written."""

from __future__ import annotations

import pytest

from storage import Store
from tests.storage.builders import JUDGE, fill, ids, judged, row, source
from traces.errors import InputError

MANY = [f"t{number:04}" for number in range(1100)]


def test_a_selection_comes_in_the_order_of_import(store: Store) -> None:
    fill(store, "c", "a", "b", "d")
    picked = [context.trace.id for context in store.traces.contexts("d", trace_ids={"d", "a", "c"})]
    assert picked == ["c", "a", "d"]
    limited = [
        context.trace.id for context in store.traces.contexts("d", trace_ids=["d", "a"], limit=1)
    ]
    assert limited == ["a"]
    assert (
        list(store.traces.contexts("d", limit=0))
        == list(store.traces.contexts("d", trace_ids=[]))
        == []
    )
    with pytest.raises(InputError, match="-1 is negative"):
        store.traces.contexts("d", limit=-1)


def test_more_than_a_page_comes_whole_and_in_order(store: Store) -> None:
    fill(store, *MANY)
    assert ids(store) == MANY
    assert [problem.id for problem in store.traces.problems("d")] == MANY
    most = [context.trace.id for context in store.traces.contexts("d", trace_ids=set(MANY[1:]))]
    assert most == MANY[1:]


@pytest.mark.parametrize("place", ["memory", "file"])
def test_labels_may_be_written_while_traces_are_read(place: str, url: str) -> None:
    with Store.open("sqlite://" if place == "memory" else url) as store:
        fill(store, *MANY[:600])
        for number, context in enumerate(store.traces.contexts("d")):
            if number % 30 == 0:
                store.labels.put("d", "judge", [judged(context.trace.id)])
        assert number == 599
        assert list(store.labels.load("d", "judge")) == MANY[:600:30]


def test_a_trace_that_is_removed_meanwhile_does_not_come(store: Store) -> None:
    fill(store, *MANY)
    reading = store.traces.contexts("d")
    assert next(reading).trace.id == MANY[0]
    rows = [row(name) for name in MANY[:600]]
    store.traces.import_file("d", source(content="2"), rows, replace=True)
    assert len(list(reading)) == 599


def test_a_read_in_a_transaction_sees_what_it_wrote(url: str) -> None:
    with Store.open(url) as store, Store.open(url) as other:
        with store.transaction():
            fill(store)
            assert ids(store) == ["t0", "t1", "t2"]
            assert other.traces.datasets() == {}
        assert ids(other) == ["t0", "t1", "t2"]


@pytest.mark.slow
def test_a_thousand_labelled_traces_are_read(url: str) -> None:
    with Store.open(url) as store:
        steps = tuple(f"Step {number}." for number in range(10))
        store.traces.import_file("d", source(), [row(name, steps=steps) for name in MANY[:1000]])
        store.labels.declare("d", JUDGE)
        store.labels.put("d", "judge", [judged(name, n_steps=10) for name in MANY[:1000]])
        labels = store.labels.load("d", "judge")
    assert sum(len(label.step_labels) for label in labels.values()) == 10_000
