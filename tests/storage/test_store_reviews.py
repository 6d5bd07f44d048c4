"""The log of experts' answers, and the labels that follow from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storage import Store, expert_labeler
from tests.storage.builders import fill, row, source
from traces import (
    Abstention,
    AbstentionReason,
    ExpertAnswer,
    InputError,
    Labeler,
    LabelerKind,
    ReviewAnswer,
    ReviewPurpose,
    StepLabel,
    Verdict,
)

RIGHT, WRONG = ExpertAnswer.CORRECT, ExpertAnswer.INCORRECT
UNDO, SKIP = ExpertAnswer.UNDO, ExpertAnswer.SKIP
OPEN = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, "not answered"))
_number = iter(range(10**6))


def said(
    step: int, answer: ExpertAnswer, expert: str = "A", trace: str = "t", **more: Any
) -> ReviewAnswer:
    """An answer with a token of its own."""
    fields = {"token": f"n{next(_number)}", **more}
    return ReviewAnswer(trace_id=trace, step_index=step, expert=expert, answer=answer, **fields)


def words(store: Store, labeler: str, trace: str = "t") -> list[str]:
    """What a labeler says of the steps of a trace; nothing without a label."""
    label = store.labels.load("d", labeler, [trace]).get(trace)
    steps = () if label is None else label.step_labels
    return [
        step.verdict.value if step.verdict else step.abstention.reason.value  # type: ignore[union-attr]
        for step in steps
    ]


def test_an_answer_is_a_label_at_once(store: Store) -> None:
    fill(store, "t", "u")
    assert store.reviews.add("d", [said(0, RIGHT, note="as written", seconds=2.5)]) == 1
    assert store.labels.load("d", "expert:A")["t"].step_labels == (
        StepLabel(Verdict.CORRECT, reasoning="as written"),
        OPEN,
        OPEN,
    )
    assert store.labels.labeler("d", "expert:A").kind is LabelerKind.EXPERT
    store.reviews.add("d", [said(1, WRONG), said(0, ExpertAnswer.NEUTRAL, trace="u")])
    assert words(store, "expert:A") == ["correct", "incorrect", "not_measured"]
    assert words(store, "experts", "u") == ["neutral", "not_measured", "not_measured"]
    [first, *_] = store.reviews.answers("d", trace_ids=["t"])
    assert (first.note, first.seconds, first.answer) == ("as written", 2.5, RIGHT)
    assert first.at.endswith("+00:00")


def test_a_repeated_token_changes_nothing(store: Store) -> None:
    fill(store, "t")
    once = said(0, RIGHT, token="same")
    assert store.reviews.add("d", [once, once]) == 1
    assert store.reviews.add("d", [said(0, WRONG, token="same")]) == 0
    assert words(store, "expert:A")[0] == "correct"
    assert len(store.reviews.log("d")) == 1


def test_undo_is_a_further_row_and_takes_the_label_back(store: Store) -> None:
    fill(store, "t")
    store.reviews.add("d", [said(0, RIGHT), said(1, WRONG)])
    store.reviews.add("d", [said(1, UNDO)])
    assert words(store, "expert:A") == ["correct", "not_measured", "not_measured"]
    store.reviews.add("d", [said(0, UNDO)])
    assert words(store, "expert:A") == words(store, "experts") == []
    assert [one.answer for one in store.reviews.log("d")] == [RIGHT, WRONG, UNDO, UNDO]


def test_experts_together_and_adjudication(store: Store) -> None:
    fill(store, "t")
    store.reviews.add("d", [said(0, RIGHT), said(0, RIGHT, "B")])
    store.reviews.add("d", [said(1, RIGHT), said(1, WRONG, "B"), said(2, SKIP)])
    store.reviews.add("d", [said(2, ExpertAnswer.CANNOT_TELL, "B")])
    assert words(store, "experts") == ["correct", "disagreement", "uncertain"]
    ruling = said(1, WRONG, "C", purpose=ReviewPurpose.ADJUDICATION, note="page 3")
    store.reviews.add("d", [ruling])
    assert words(store, "experts") == ["correct", "incorrect", "uncertain"]
    names = {row.labeler.name for row in store.labels.labelers("d")}
    assert names == {"judge", "experts", "expert:A", "expert:B"}
    assert words(store, "expert:A")[1] == "correct"


@pytest.mark.parametrize("purpose", ["training", "repeat", "check"])
def test_answers_that_are_no_labels(store: Store, purpose: str) -> None:
    fill(store, "t")
    store.reviews.add("d", [said(0, WRONG, purpose=ReviewPurpose(purpose))])
    assert words(store, "experts") == []
    assert [row.labeler.name for row in store.labels.labelers("d")] == ["judge", "experts"]


def test_a_changed_trace_keeps_its_log_and_loses_its_labels(store: Store) -> None:
    fill(store, "t")
    store.reviews.add("d", [said(0, RIGHT)])
    changed = [row("t", steps=("Something else.", "And so on."))]
    store.traces.import_file("d", source(content="2"), changed, replace=True)
    assert list(store.reviews.answers("d")) == []
    assert len(store.reviews.log("d")) == 1
    store.reviews.add("d", [said(1, WRONG)])
    assert words(store, "expert:A") == ["not_measured", "incorrect"]


def test_what_is_refused(store: Store) -> None:
    fill(store, "t")
    for wrong in (said(3, RIGHT), said(0, RIGHT, trace="x"), said(0, RIGHT, "Dr. Who")):
        with pytest.raises(InputError):
            store.reviews.add("d", [said(0, RIGHT), wrong])
    assert store.reviews.log("d") == []
    with pytest.raises(InputError, match="not an expert's code"):
        expert_labeler("a b")
    store.labels.declare("d", Labeler("experts", LabelerKind.JUDGE, {}))
    with pytest.raises(InputError, match="another configuration"):
        store.reviews.begin("d", ["A"])


def test_a_lease_is_held_until_it_runs_out(store: Store) -> None:
    fill(store, "t")
    take = store.reviews.take
    assert take("d", "t", "A", at=0.0, until=60.0)
    assert not take("d", "t", "B", at=1.0, until=61.0)
    assert take("d", "t", "B", at=1.0, until=61.0, most=2)
    assert take("d", "t", "A", at=2.0, until=90.0)
    assert store.reviews.leases("d", at=70.0) == {("t", "A"): 90.0}
    assert take("d", "t", "C", at=91.0, until=99.0)
    store.reviews.give_back("d", "t", "C")
    assert store.reviews.leases("d", at=0.0) == {}


def test_two_threads_do_not_get_one_item(store: Store) -> None:
    fill(store, "t")

    def take(code: int) -> bool:
        return store.reviews.take("d", "t", f"E{code}", at=0.0, until=60.0)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(12))) == 1
