"""Which step an expert is asked next."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from review.queue import Queue, QueueSettings, StepQuestion
from stepgold.reviewing import has_fallen, returned_answers, review_figures
from storage import Store
from tests.storage.builders import row, source
from traces import (
    ExpertAnswer,
    InputError,
    Labeler,
    LabelerKind,
    ReviewAnswer,
    ReviewPurpose,
    StepLabel,
    TraceLabel,
    Verdict,
)

RIGHT, WRONG = ExpertAnswer.CORRECT, ExpertAnswer.INCORRECT
BAYES = Labeler("agreed", LabelerKind.CONSENSUS, {"rule": "bayes"})
_number = iter(range(10**6))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Twelve traces of three steps; the later ones are less certain."""
    with Store.open(f"sqlite:///{tmp_path / 'a.db'}") as opened:
        ids = [f"t{number:02}" for number in range(12)]
        opened.traces.import_file("d", source(), [row(one) for one in ids])
        label(opened, {one: 0.9 - 0.03 * place for place, one in enumerate(ids)})
        yield opened


def label(store: Store, sure: dict[str, float]) -> None:
    """A `bayes` consensus that is this sure that there is no error."""
    store.labels.declare("d", BAYES)
    steps = (StepLabel(Verdict.CORRECT, score=0.9),) * 3
    store.labels.put(
        "d",
        "agreed",
        [
            TraceLabel(
                one,
                steps,
                first_error_given=True,
                meta={"rule": "bayes", "posterior": [0, (1 - p) / 2, (1 - p) / 2, p]},
            )
            for one, p in sure.items()
        ],
    )


def queue(store: Store, **settings: Any) -> Queue:
    """A queue without extras unless they are given."""
    plain: dict[str, Any] = {"audit": 0.0, "double": 0.0, "repeat": 0.0}
    return Queue(store, "d", QueueSettings(**plain | settings))


def reply(asked: Queue, question: StepQuestion, expert: str, answer: ExpertAnswer = RIGHT) -> None:
    """Answer a question."""
    asked.answer(
        ReviewAnswer(
            trace_id=question.trace_id,
            step_index=question.step_index,
            expert=expert,
            answer=answer,
            token=f"n{next(_number)}",
            purpose=question.purpose,
            seconds=3.0,
        ),
        at=0.0,
    )


def through(asked: Queue, expert: str, count: int = 1000) -> list[tuple[str, int, str]]:
    """Answer so many questions, all with correct; what was asked."""
    found: list[tuple[str, int, str]] = []
    while len(found) < count and (question := asked.next(expert, at=0.0)) is not None:
        found.append((question.trace_id, question.step_index, question.purpose.value))
        reply(asked, question, expert)
    return found


def test_the_least_certain_trace_comes_first_from_its_first_step_on(store: Store) -> None:
    asked = queue(store)
    assert asked.next("A", at=0.0) == asked.next("A", at=1.0)
    found = through(asked, "A")
    assert found[:4] == [("t11", 0, "queue"), ("t11", 1, "queue"), ("t11", 2, "queue"), ("t10", 0, "queue")]  # fmt: skip
    assert len(found) == 36
    assert asked.next("A", at=0.0) is None
    assert asked.progress("A").traces_done == 12


def test_first_error_mode_ends_a_trace_at_its_first_error(store: Store) -> None:
    asked = queue(store)
    for answer in (RIGHT, WRONG):
        question = asked.next("A", at=0.0)
        assert question is not None
        reply(asked, question, "A", answer)
    after = asked.next("A", at=0.0)
    assert after is not None
    assert (after.trace_id, after.step_index) == ("t10", 0)
    every = queue(store, mode="every-step").next("A", at=0.0)
    assert every is not None
    assert (every.trace_id, every.step_index) in {("t11", 2), ("t10", 0)}


def test_new_labels_reorder_the_queue(store: Store) -> None:
    asked = queue(store)
    assert asked.order()[0] == "t11"
    label(store, {"t05": 0.4})
    asked.next("A", at=100.0)
    assert asked.order()[0] == "t05"
    label(store, {"t11": 0.9})  # SQLite uses the key of the last label again
    asked.next("A", at=200.0)
    assert asked.order()[:2] == ["t05", "t10"]
    assert asked.order()[-1] in ("t00", "t11")


def test_two_experts_never_get_one_step_by_accident(store: Store) -> None:
    asked = queue(store, audit=0.2)
    steps: list[tuple[str, int]] = []
    questions = {code: asked.next(code, at=0.0) for code in "AB"}
    while any(questions.values()):
        for code, question in questions.items():
            if question is not None:
                steps.append((question.trace_id, question.step_index))
                reply(asked, question, code)
                questions[code] = asked.next(code, at=0.0)
        held = [q and (q.trace_id, q.step_index) for q in questions.values()]
        assert held[0] is None or held[0] != held[1]
    assert len(steps) == len(set(steps)) == 36


def test_a_share_is_labeled_twice_and_no_step_three_times(store: Store) -> None:
    asked = queue(store, double=0.4)
    found = {code: through(asked, code) for code in "ABC"}
    twice = [one for code in "BC" for one in found[code]]
    assert len(found["A"]) == 36
    assert 0 < len(twice) < 36
    assert {purpose for _, _, purpose in twice} == {"double"}
    assert found["C"] == []


def test_audits_are_a_share_and_follow_one_random_order(store: Store) -> None:
    found = through(queue(store, audit=0.25), "A", 24)
    audits = [one for one in found if one[2] == "audit"]
    assert len(audits) in (5, 6)  # between two traces only
    figures = review_figures(store, "d")
    assert figures is not None
    accuracy = figures.accuracy["agreed"]
    # Steps that the queue reached before the audit are part of the sample.
    assert 5 <= accuracy.checked < 24
    assert accuracy.tuned.value == 1.0
    assert figures.hours_left == pytest.approx(0.0, abs=0.02)


def test_the_queue_goes_on_where_a_killed_server_left_it(store: Store) -> None:
    first = queue(store, audit=0.25)
    through(first, "A", 3)
    asked = first.next("A", at=0.0)
    assert asked is not None
    assert asked.purpose is ReviewPurpose.AUDIT
    again = queue(store, audit=0.25)
    other = again.next("B", at=1.0)
    assert other is not None
    assert other.trace_id != asked.trace_id
    assert again.next("A", at=1.0) == asked


def test_undo_asks_the_step_again_and_a_flag_ends_its_problem(store: Store) -> None:
    asked = queue(store)
    through(asked, "A", 3)
    reply(asked, StepQuestion(trace_id="t11", step_index=2, purpose=ReviewPurpose.QUEUE), "A", ExpertAnswer.UNDO)  # fmt: skip
    question = asked.next("A", at=0.0)
    assert question is not None
    assert (question.trace_id, question.step_index) == ("t11", 2)
    reply(asked, question, "A", ExpertAnswer.FLAG)
    after = asked.next("A", at=0.0)
    assert after is not None
    assert after.trace_id == "t10"


def test_a_skipped_step_goes_to_another_expert(store: Store) -> None:
    asked = queue(store)
    question = asked.next("A", at=0.0)
    assert question is not None
    reply(asked, question, "A", ExpertAnswer.SKIP)
    assert all(one[:2] != ("t11", 0) for one in through(asked, "A"))
    assert through(asked, "B") == [("t11", 0, "queue")]


def test_training_comes_first_and_changes_no_label(store: Store) -> None:
    gold = Labeler("gold", LabelerKind.GOLD, {})
    store.labels.declare("d", gold)
    store.labels.put("d", "gold", [TraceLabel(one, first_error_given=True, first_error_index=1) for one in ("t01", "t02")])  # fmt: skip
    asked = queue(store, training=2)
    found = through(asked, "A", 3)
    assert [one[2] for one in found] == ["training", "training", "queue"]
    assert {one[0] for one in found[:2]} == {"t01", "t02"}
    figures = review_figures(store, "d")
    assert figures is not None
    assert figures.experts[0].training[1] == 2
    assert figures.experts[0].steps == 1


def test_a_step_is_asked_again_after_fifty_answers(store: Store) -> None:
    rows = [row(f"u{number:02}") for number in range(20)]
    store.traces.import_file("d", source("b.json"), rows)
    found = through(queue(store, repeat=0.04), "A")
    again = [one for one in found if one[2] == "repeat"]
    assert [one[:2] for one in again] == [one[:2] for one in found[:3]]
    figures = review_figures(store, "d")
    assert figures is not None
    assert figures.experts[0].with_self == (3, 3)


def test_agreement_that_falls_is_a_drift() -> None:
    assert has_fallen([True] * 60 + [False] * 8 + [True] * 22)
    assert not has_fallen([True] * 60 + [False] + [True] * 29)
    assert not has_fallen([True] * 30 + [False] * 29)


def test_experts_are_compared_with_each_other_and_with_labelers(store: Store) -> None:
    asked = queue(store, double=1.0)
    through(asked, "A")
    for _ in range(4):
        question = asked.next("B", at=0.0)
        assert question is not None
        reply(asked, question, "B", WRONG if question.step_index == 1 else RIGHT)
    figures = review_figures(store, "d")
    assert figures is not None
    [pair] = figures.between
    assert (pair.a, pair.b, pair.n_steps, pair.agreement) == ("expert:A", "expert:B", 4, 0.5)
    assert {one.a for one in figures.against} == {"expert:A", "expert:B"}
    assert figures.disputed == 2
    assert any("kappa" in line for line in figures.lines())
    assert figures.as_json()["experts"][0]["code"] == "A"


def flag(asked: Queue, question: StepQuestion, expert: str) -> None:
    reply(asked, question, expert, ExpertAnswer.FLAG)


@pytest.mark.parametrize("purpose", ["audit", "training"])
def test_a_flagged_step_is_not_asked_again_whatever_it_was_for(store: Store, purpose: str) -> None:
    gold = Labeler("gold", LabelerKind.GOLD, {})
    store.labels.declare("d", gold)
    steps = (StepLabel(Verdict.CORRECT),) * 3
    store.labels.put("d", "gold", [TraceLabel(f"t{n:02}", steps) for n in range(12)])
    asked = queue(store, **({"audit": 1.0} if purpose == "audit" else {"training": 2}))
    first = asked.next("A", at=0.0)
    assert first is not None
    assert first.purpose.value == purpose
    flag(asked, first, "A")
    after = asked.next("A", at=0.0)
    assert after is not None
    assert after.trace_id != first.trace_id
    last = asked.last("A")
    assert last is not None
    assert last.answer is ExpertAnswer.FLAG


def test_a_flag_closes_all_traces_of_its_problem(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'b.db'}") as store:
        rows = [row("a", problem_id="p"), row("b", problem_id="p"), row("c", problem_id="q")]
        store.traces.import_file("d", source(), rows)
        asked = queue(store)
        first = asked.next("A", at=0.0)
        assert first is not None
        flag(asked, first, "A")
        closed = [True, True, False] if first.trace_id in "ab" else [False, False, True]
        assert asked.done() == closed
        assert queue(store).done() == closed


def test_a_dataset_that_is_imported_again_is_read_again(store: Store) -> None:
    asked = queue(store)
    assert len(asked.ids) == 12
    rows = [row(f"n{number}") for number in range(5)]
    store.traces.import_file("d", source(content="2"), rows, replace=True)
    found = asked.next("A", at=10.0)
    assert found is not None
    assert found.trace_id.startswith("n")
    assert len(asked.ids) == 5


def test_a_returned_split_is_one_entry_of_all_or_nothing(store: Store) -> None:
    asked = queue(store)
    through(asked, "A", 6)
    log = list(store.reviews.answers("d"))
    undone = returned_answers({"t11", "t10"}, log, note="returned")
    bad = dataclasses.replace(undone[-1], step_index=99)
    with pytest.raises(InputError):
        asked.take_back([*undone[:-1], bad])
    assert len(store.reviews.log("d")) == 6
    asked.take_back(undone)
    assert asked.progress("A").answered == 0
    assert asked.next("B", at=0.0) is not None
