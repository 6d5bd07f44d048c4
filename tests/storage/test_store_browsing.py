"""What pages over all traces read: labels as they arrive, rows, texts, failures."""

from __future__ import annotations

from storage import Store
from tests.storage.builders import JUDGE, fill, judged
from traces import AbstentionReason, Failure


def test_a_commit_is_noticed(store: Store) -> None:
    before = store.browsing.version()
    assert store.browsing.version() == before
    fill(store)
    if store._connections.where != ":memory:":
        assert store.browsing.version() != before


def test_labels_are_read_in_the_order_in_which_they_were_stored(store: Store) -> None:
    fill(store)
    store.labels.declare("d", JUDGE)
    store.labels.put("d", JUDGE.name, [judged("t1"), judged("t0")])
    ((key, stored),) = [
        each for each in store.browsing.labelers().items() if each[1].labeler.name == JUDGE.name
    ]
    assert (stored.dataset, stored.rows) == ("d", 2)
    sizes = store.browsing.traces()
    assert [(each.dataset, each.rows) for each in sizes] == [
        ("d", len(list(store.traces.ids("d"))))
    ]
    part = store.browsing.labels_after(0, until=stored.last, labeler=key)
    assert part is not None
    assert part.last == stored.last
    assert part.labelers.tolist() == [key, key]
    rows = store.browsing.rows(part.labels.keys.tolist())
    assert [row.id for row in rows] == ["t1", "t0"]
    assert store.browsing.made_at(part.last) is not None
    assert store.browsing.made_at(part.last + 1) is None
    assert store.browsing.labels_after(part.last, until=part.last + 9) is None
    one = store.browsing.labels_after(0, until=stored.last, labeler=key, limit=1)
    assert one is not None
    assert len(one.labels.keys) == 1


def test_a_text_is_found_in_question_and_steps(store: Store) -> None:
    fill(store)
    keys = [key for part in store.traces.columns("d") for key in part.keys.tolist()]
    context = next(iter(store.traces.contexts("d")))
    for text in (context.trace.id, context.trace.steps[-1].upper(), context.problem.question):
        assert keys[0] in store.browsing.containing(keys, text)
    assert store.browsing.containing(keys, "%") == set()
    assert store.browsing.containing([], "t") == set()
    assert store.browsing.problem("d", context.problem.id) == ((), False)
    assert store.browsing.problem("d", "nope") is None


def test_failures_outside_the_labels_are_listed(store: Store) -> None:
    fill(store)
    failure = Failure("p0", "retrieve", AbstentionReason.UNREADABLE, retryable=True, detail="why")
    store.labels.failures.put("d", [failure])
    assert store.browsing.failures(5) == [("d", failure)]
    assert store.browsing.failures(0) == []
    assert store.browsing.rejected(5) == []
