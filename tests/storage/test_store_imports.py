"""Import: idempotent, atomic, row by row, and what --replace keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from storage import DatasetCounts, ImportOutcome, ImportSummary, Store
from storage.tables import METADATA
from tests.storage.builders import (
    GOLD,
    JUDGE,
    evidence,
    gold,
    ids,
    judged,
    refused,
    row,
    source,
)
from traces import AbstentionReason, Labeler, LabelerKind, StepLabel, TraceLabel, Verdict
from traces.errors import InputError, TraceFormatError
from traces.records import ImportedTrace, RejectedRow, SourceFile


def test_rows_come_back_in_order_with_their_counts(store: Store) -> None:
    rows = [row("b", problem_id="p"), row("a", problem_id="p"), row("c")]
    assert store.traces.import_file("d", source(), rows) == ImportOutcome(done=3, unchanged=0)
    assert ids(store) == ["b", "a", "c"]
    assert store.traces.datasets() == {"d": DatasetCounts(problems=2, traces=3, steps=9)}
    assert [context.problem.id for context in store.traces.contexts("d")] == ["p", "p", "c"]


def test_the_same_file_again_is_not_read(store: Store) -> None:
    rejected = RejectedRow("a.json", 2, None, "no steps")
    store.traces.import_file("d", source(), [row("a"), rejected])

    def unread() -> Iterator[ImportedTrace]:
        raise AssertionError("the rows were read")
        yield

    outcome = store.traces.import_file("d", source(), unread())
    assert outcome == ImportOutcome(done=0, unchanged=1, rejected=(rejected,))


def test_the_rejected_rows_are_those_of_the_last_import(store: Store) -> None:
    old, new = (RejectedRow("a.json", line, None, "bad") for line in (2, 3))
    store.traces.import_file("d", source(), [row("a"), old])
    store.traces.import_file("d", source(content="2"), [row("a"), new], replace=True)
    assert store.traces.import_file("d", source(content="2"), []).rejected == (new,)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (SourceFile("a.json", "sha-2", "traces"), "other content"),
        (SourceFile("a.json", "sha-1", "trl"), "the format 'traces'"),
        (SourceFile("a.json", "sha-1", "traces", {"subset": "s"}), 'subset was not set, now "s"'),
    ],
    ids=["content", "format", "options"],
)
def test_a_changed_file_is_refused_unless_replaced(
    store: Store, changed: SourceFile, said: str
) -> None:
    store.traces.import_file("d", source(), [row("a")])
    with pytest.raises(InputError) as caught:
        store.traces.import_file("d", changed, [row("b")])
    assert said in caught.value.what
    assert "--replace" in str(caught.value.remedy)
    assert ids(store) == ["a"]
    store.traces.import_file("d", changed, [row("b")], replace=True)
    assert ids(store) == ["b"]
    assert store.traces.import_file("d", changed, []).unchanged == 1


def test_options_are_compared_by_value(store: Store) -> None:
    store.traces.import_file("d", SourceFile("a", "1", "f", {"x": (1, 2), "y": None}), [row("a")])
    again = store.traces.import_file("d", SourceFile("a", "1", "f", {"y": None, "x": [1, 2]}), [])
    assert again.unchanged == 1


def test_replace_keeps_the_labels_of_unchanged_traces(store: Store) -> None:
    first = [row(name, labels=[(GOLD, gold(name))]) for name in ("same", "changed", "gone")]
    store.traces.import_file("d", source(), first)
    store.labels.declare("d", JUDGE)
    store.labels.put("d", "judge", [judged(name) for name in ("same", "changed", "gone")])

    second = [
        row("new"),
        row("changed", steps=("Another.",)),
        row("same", labels=[(GOLD, gold("same", 1))]),
    ]
    outcome = store.traces.import_file("d", source(content="2"), second, replace=True)

    assert outcome == ImportOutcome(done=2, unchanged=1, removed=1)
    assert ids(store) == ["new", "changed", "same"], "the order is that of the new file"
    assert store.labels.load("d", "judge") == {"same": judged("same")}
    assert store.labels.load("d", "gold") == {"same": gold("same", 1)}, "gold follows the file"
    assert store.traces.datasets()["d"].problems == 3


def test_replace_drops_labels_that_the_file_no_longer_has(store: Store) -> None:
    store.traces.import_file("d", source(), [row("a", labels=[(GOLD, gold("a"))])])
    store.traces.import_file("d", source(content="2"), [row("a")], replace=True)
    assert store.labels.load("d", "gold") == {}


def test_an_imported_label_takes_the_place_of_one_that_was_put(store: Store) -> None:
    store.traces.import_file("d", source(), [row("a", labels=[(GOLD, gold("a"))])])
    store.labels.put("d", "gold", [gold("a", 2)])
    changed = [row("a", labels=[(GOLD, gold("a", 1))])]
    store.traces.import_file("d", source(content="2"), changed, replace=True)
    assert store.labels.load("d", "gold") == {"a": gold("a", 1)}


def test_a_changed_question_drops_the_labels_and_the_retrieved_evidence(store: Store) -> None:
    store.traces.import_file("d", source(), [row("a"), row("b")])
    store.labels.declare("d", JUDGE)
    store.labels.put("d", "judge", [judged("a"), judged("b")])
    store.evidence.put("d", [("a", (evidence(),)), ("b", (evidence(),))])

    changed = [row("a", question="How little?"), row("b")]
    store.traces.import_file("d", source(content="2"), changed, replace=True)

    assert list(store.labels.load("d", "judge")) == ["b"]
    assert [problem.question for problem in store.evidence.missing_problems("d")] == ["How little?"]


def test_a_problem_shared_with_another_file_cannot_change_alone(store: Store) -> None:
    store.traces.import_file("d", source("a"), [row("a", problem_id="p")])
    store.traces.import_file("d", source("b"), [row("b", problem_id="p")])
    changed = [row("a", problem_id="p", question="Other?"), row("c")]
    outcome = store.traces.import_file("d", source("a", "2"), changed, replace=True)
    assert [rejected.id for rejected in outcome.rejected] == ["a"]
    assert {problem.question for problem in store.traces.problems("d")} == {"How much?"}


def test_other_files_of_the_dataset_stay_when_one_is_replaced(store: Store) -> None:
    store.traces.import_file("d", source("a"), [row("a")])
    store.traces.import_file("d", source("b"), [row("b")])
    store.traces.import_file("d", source("a", "2"), [row("c")], replace=True)
    assert ids(store) == ["c", "b"]


def test_bad_rows_are_listed_and_the_others_imported(store: Store) -> None:
    twice = row("a", line=7)
    rows: list[ImportedTrace | RejectedRow] = [
        row("a", line=1),
        RejectedRow("a.json", 2, None, "not an object"),
        row("nul", steps=("x\0y",), line=3),
        row("half", question="\ud83d", line=4),
        row("none", steps=(), line=5),
        row(" ", line=6),
        twice,
        row("other", problem_id="a", question="Else?", line=8),
        row("long", labels=[(GOLD, gold("long", 3))], line=9),
        row("foreign", labels=[(GOLD, gold("a"))], line=10),
        row("z", line=11),
    ]
    outcome = store.traces.import_file("d", source(), rows)

    assert ids(store) == ["a", "z"]
    said = {rejected.line: rejected for rejected in outcome.rejected}
    assert sorted(said, key=str) == sorted(range(2, 11), key=str)
    assert "NUL" in said[3].reason
    assert "surrogate" in said[4].reason
    assert "no steps" in said[5].reason
    assert "blank" in said[6].reason
    assert said[7] == RejectedRow("a.json", 7, "a", "The id 'a' occurs twice in the file.")
    assert "other content" in said[8].reason
    assert "names step 3, but the trace has 3 steps" in said[9].reason
    assert "two labels of" in said[10].reason
    assert store.traces.datasets()["d"].problems == 2, "a rejected row leaves no problem behind"


def test_an_id_of_another_file_is_rejected_with_its_name(store: Store) -> None:
    store.traces.import_file("d", source("a.json"), [row("a")])
    outcome = store.traces.import_file("d", source("b.json"), [row("a", line=3), row("b")])
    assert outcome.rejected == (
        RejectedRow("b.json", 3, "a", "The id 'a' was already imported from file 'a.json'."),
    )
    assert store.traces.import_file("e", source("b.json"), [row("a")]).done == 1


@pytest.mark.parametrize(
    "rows",
    [[], [RejectedRow("a.json", 1, "x", "bad")], [row("a", steps=())]],
    ids=["no rows", "reader", "store"],
)
def test_if_not_one_row_can_be_used_nothing_is_kept(
    store: Store, rows: list[ImportedTrace | RejectedRow]
) -> None:
    with pytest.raises(InputError) as caught:
        store.traces.import_file("d", source(), rows)
    assert str(caught.value.where).startswith("a.json")
    assert store.traces.datasets() == {}


def test_a_replacement_without_usable_rows_keeps_the_old_ones(store: Store) -> None:
    store.traces.import_file("d", source(), [row("a")])
    with pytest.raises(InputError):
        store.traces.import_file("d", source(content="2"), [row("b", steps=())], replace=True)
    assert ids(store) == ["a"]
    assert store.traces.import_file("d", source(), []).unchanged == 1


def test_a_file_that_breaks_in_the_middle_leaves_nothing(store: Store) -> None:
    def rows() -> Iterator[ImportedTrace]:
        for number in range(1200):
            yield row(f"t{number}")
        raise TraceFormatError("the file ends in the middle of a row")

    with pytest.raises(TraceFormatError):
        store.traces.import_file("d", source(), rows())
    assert store.traces.datasets() == {}


def test_two_files_of_one_call_are_kept_together_or_not_at_all(store: Store) -> None:
    def both(second: str) -> None:
        with store.transaction():
            store.traces.import_file("d", source("a"), [row("a")])
            store.traces.import_file("d", source("b"), [row(second)])

    with pytest.raises(InputError):
        both("a")
    assert store.traces.datasets() == {}
    both("b")
    assert ids(store) == ["a", "b"]


def test_a_caught_error_inside_a_transaction_undoes_its_own_part_only(store: Store) -> None:
    with store.transaction():
        store.traces.import_file("d", source("a"), [row("a")])
        with pytest.raises(InputError):
            store.traces.import_file("d", source("b"), [row("a"), row("b", steps=())])
    assert ids(store) == ["a"]


def test_a_labeler_that_is_known_otherwise_stops_the_import(store: Store) -> None:
    store.traces.import_file("d", source("a"), [row("a", labels=[(GOLD, gold("a"))])])
    other = Labeler("gold", LabelerKind.GOLD, {"from": "elsewhere"})
    with pytest.raises(InputError, match="another configuration") as caught:
        store.traces.import_file("d", source("b"), [row("b", labels=[(other, gold("b"))])])
    assert "remove labeler" in str(caught.value.remedy)
    assert ids(store) == ["a"]


def test_the_summary_counts_what_gold_says(store: Store) -> None:
    verdicts = (
        StepLabel(Verdict.CORRECT),
        StepLabel(Verdict.INCORRECT),
        StepLabel(Verdict.CORRECT),
    )
    words = {
        "error": gold("error", 0),
        "right": gold("right"),
        "verdicts": TraceLabel("verdicts", verdicts),
        "unusable": refused("unusable", AbstentionReason.GOLD_UNUSABLE),
    }
    rows = [row(name, labels=[(GOLD, word)]) for name, word in words.items()] + [row("none")]
    store.traces.import_file("d", source(), rows)
    assert store.traces.import_summary("d") == ImportSummary(5, 2, 1, 2)


def test_the_labeler_called_gold_is_the_one_that_counts(store: Store) -> None:
    other = Labeler("second", LabelerKind.GOLD)
    labels = [(other, gold("a", 0)), (GOLD, gold("a"))]
    store.traces.import_file("d", source(), [row("a", labels=labels)])
    assert store.traces.import_summary("d") == ImportSummary(1, 0, 1, 0)
    store.labels.remove_labeler("d", "gold")
    assert store.traces.import_summary("d") == ImportSummary(1, 1, 0, 0)


def test_labels_of_other_kinds_are_not_gold(store: Store) -> None:
    hard = Labeler("math_shepherd", LabelerKind.MC)
    store.traces.import_file("d", source(), [row("a", labels=[(hard, judged("a"))])])
    assert store.traces.import_summary("d") == ImportSummary(1, 0, 0, 1)
    assert store.labels.load("d", "math_shepherd") == {"a": judged("a")}


def test_evidence_that_came_with_a_row_gives_way_to_retrieved_evidence(store: Store) -> None:
    came = (evidence("came", 0, "imported"), evidence("also", 1, "imported"))
    rows = [row("a", problem_id="p", evidence=came), row("b", problem_id="p"), row("c")]
    store.traces.import_file("d", source(), rows)
    assert [context.evidence for context in store.traces.contexts("d")] == [came, (), ()]
    assert [context.evidence for context in store.traces.contexts("d", with_evidence=False)] == [
        ()
    ] * 3
    assert [problem.id for problem in store.evidence.missing_problems("d")] == ["p", "c"]

    store.evidence.put("d", [("p", (evidence("found"),)), ("c", ())])
    found = [context.evidence for context in store.traces.contexts("d")]
    assert found == [(evidence("found"),), (evidence("found"),), ()]
    assert store.evidence.missing_problems("d") == []


def test_replaced_evidence_leaves_no_copies_behind(store: Store) -> None:
    store.traces.import_file("d", source(), [row("a", evidence=(evidence("old"),))])
    changed = [row("a", evidence=(evidence("new"),))]
    assert store.traces.import_file("d", source(content="2"), changed, replace=True).unchanged == 1
    assert [context.evidence for context in store.traces.contexts("d")] == [(evidence("new"),)]
    with store._connections.read() as connection:
        copies = connection.exec_driver_sql("SELECT text FROM evidence_passages").scalars().all()
    assert copies == ["new"]


def test_bad_evidence_rejects_its_row(store: Store) -> None:
    outcome = store.traces.import_file(
        "d", source(), [row("a", evidence=(evidence("x\0"),)), row("b")]
    )
    assert [rejected.id for rejected in outcome.rejected] == ["a"]


def test_removing_a_dataset_removes_everything_that_hangs_on_it(store: Store) -> None:
    rows = [row("a", labels=[(GOLD, gold("a"))], evidence=(evidence(),))]
    for dataset in ("d", "other"):
        store.traces.import_file(dataset, source(), rows)
        store.labels.declare(dataset, JUDGE)
        store.labels.put(dataset, "judge", [refused("a")])
        store.evidence.put(dataset, [("a", (evidence("mine " + dataset),))])
    store.traces.remove_dataset("d")
    assert list(store.traces.datasets()) == ["other"]
    assert [name for name, _ in store.labels.failures.load()] == ["other"]
    assert [context.evidence for context in store.traces.contexts("other")] == [
        (evidence("mine other"),)
    ]
    store.traces.remove_dataset("other")
    with store._connections.read() as connection:
        left = {
            name
            for name in METADATA.tables
            if connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()
        }
    assert left == set()


@pytest.mark.slow
def test_processbench_is_imported_whole(real_data: Path, url: str) -> None:
    from formats import read_file

    path = real_data / "processbench" / "gsm8k.json"
    rows = list(read_file("processbench", path))
    with Store.open(url) as store:
        outcome = store.traces.import_file("pb", source(path.name), rows)
        assert (outcome.done, outcome.rejected) == (400, ())
        assert store.traces.import_summary("pb") == ImportSummary(400, 207, 193, 0)


def many(n: int, fault: BaseException | None = None) -> Iterator[ImportedTrace]:
    """Rows for several transactions, then a fault."""
    yield from (row(f"t{number}") for number in range(n))
    if fault is not None:
        raise fault


def test_others_read_and_write_while_a_long_file_is_imported(store: Store) -> None:
    seen: list[int] = []
    url = store._connections.engine.url.render_as_string(hide_password=False)

    def rows() -> Iterator[ImportedTrace]:
        for number, one in enumerate(many(1200)):
            if number == 1100:
                with Store.open(url, create=False) as other:
                    seen.append(len(ids(other)))
                    other.labels.declare("d", JUDGE)
            yield one

    assert store.traces.import_file("d", source(), rows()).done == 1200
    assert seen == [1000]
    assert [summary.labeler.name for summary in store.labels.labelers("d")] == [JUDGE.name]


def test_a_fault_after_some_transactions_keeps_nothing(store: Store) -> None:
    store.traces.import_file("other", source(), [row("a", labels=((GOLD, gold("a")),))])
    rows = many(1200, TraceFormatError("The file is cut off."))
    with pytest.raises(TraceFormatError):
        store.traces.import_file("d", source(), rows)
    assert list(store.traces.datasets()) == ["other"]
    assert store.traces.unfinished() == []
    # What the dataset had stays.
    store.traces.import_file("d", source("b.json"), [row("b", labels=((GOLD, gold("b")),))])
    with pytest.raises(TraceFormatError):
        store.traces.import_file("d", source(), many(1200, TraceFormatError("cut off")))
    assert ids(store) == ["b"]
    assert [summary.labeler.name for summary in store.labels.labelers("d")] == [GOLD.name]
    assert store.traces.datasets()["d"] == DatasetCounts(problems=1, traces=1, steps=3)


def test_an_interrupted_import_goes_on(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        store.traces.import_file("d", source(), many(700, KeyboardInterrupt()))
    assert len(ids(store)) == 500
    assert store.traces.unfinished() == [("d", source().name)]
    outcome = store.traces.import_file("d", source(content="2"), many(600))
    assert (outcome.done, outcome.unchanged) == (100, 500)
    assert len(ids(store)) == 600
    assert store.traces.unfinished() == []


def test_a_kill_while_files_are_removed_leaves_none_that_counts_as_whole(store: Store) -> None:
    deletions = 0

    def kill(*call: Any) -> None:
        nonlocal deletions
        deletions += call[2].startswith("DELETE FROM traces")
        if deletions == 2:
            raise KeyboardInterrupt

    def both() -> None:
        with store.traces.importing("d", ["a.json", "b.json"]):
            store.traces.import_file("d", source("a.json"), many(1200))
            raise TraceFormatError("The second file is cut off.")

    event.listen(store._connections.engine, "before_cursor_execute", kill)
    with pytest.raises(KeyboardInterrupt):
        both()
    event.remove(store._connections.engine, "before_cursor_execute", kill)
    assert len(ids(store)) == 200
    assert store.traces.unfinished() == [("d", "a.json")]
    outcome = store.traces.import_file("d", source("a.json"), many(1200))
    assert (outcome.done, outcome.unchanged) == (1000, 200)


def test_a_replaced_file_comes_back_after_a_fault(store: Store) -> None:
    store.traces.import_file("d", source(), many(700))
    with pytest.raises(TraceFormatError):
        store.traces.import_file(
            "d", source(content="2"), many(600, TraceFormatError("cut off")), replace=True
        )
    assert len(ids(store)) == 700
    assert store.traces.import_file("d", source(), []).unchanged == 700
