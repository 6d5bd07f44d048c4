"""Votes, quotes by verdict and prompts: kept behind the labels they belong to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage import Store, VoteTotals
from tests.storage.builders import JUDGE, fill, judged, refused
from traces import Abstention, AbstentionReason, Quote, StepLabel, TraceLabel, Verdict
from traces.errors import InputError
from traces.labels import MISSING_FIRST_ERROR, FirstError, Vote

YES, NO = Verdict.CORRECT, Verdict.INCORRECT
VOTE = Vote(
    "t0",
    0,
    "gemini:m",
    "m-001",
    (YES, AbstentionReason.NO_EVIDENCE, NO),
    MISSING_FIRST_ERROR,
    ("k1",),
)
OTHER = replace(VOTE, index=1, words=(YES, NO, YES), first_error=FirstError(False, 1))
ESCALATED = Vote(
    "t0",
    0,
    "openai:big",
    None,
    (),
    MISSING_FIRST_ERROR,
    ("k2", "k3", "k4"),
    Abstention(AbstentionReason.BLOCKED, "half \ud800"),
    escalated=True,
)


def test_votes_come_back_in_order_with_the_escalation_last(store: Store) -> None:
    fill(store)
    store.labels.put("d", "judge", [judged("t0"), judged("t2")])
    on_t2 = replace(VOTE, trace_id="t2")
    assert store.labels.votes.put("d", "judge", [ESCALATED, OTHER, VOTE, on_t2]) == 4
    assert store.labels.votes.load("d", "judge") == {"t0": (VOTE, OTHER, ESCALATED), "t2": (on_t2,)}
    assert store.labels.votes.totals("d", "judge") == VoteTotals(traces=2, cast=4, escalated=1)


def test_a_new_label_drops_the_votes_behind_the_old_one(store: Store) -> None:
    fill(store)
    store.labels.put("d", "judge", [judged("t0")])
    store.labels.votes.put("d", "judge", [VOTE])
    store.labels.put("d", "judge", [refused("t0")])
    assert store.labels.votes.load("d", "judge") == {}
    assert store.labels.votes.totals("d", "judge") == VoteTotals(0, 0, 0)
    store.labels.votes.put("d", "judge", [VOTE])
    store.labels.remove_labeler("d", "judge")
    store.labels.declare("d", JUDGE)
    assert store.labels.votes.load("d", "judge") == {}


def test_votes_without_their_label_are_refused_all_together(store: Store) -> None:
    fill(store)
    store.labels.put("d", "judge", [judged("t0")])
    with pytest.raises(InputError, match="'t1'"):
        store.labels.votes.put("d", "judge", [VOTE, replace(VOTE, trace_id="t1")])
    assert store.labels.votes.load("d", "judge") == {}


@pytest.mark.parametrize(
    ("vote", "said"),
    [
        (replace(VOTE, words=(YES, NO)), "2 verdicts for 3 steps"),
        (replace(VOTE, words=()), "0 verdicts"),
        (replace(VOTE, first_error=FirstError(False, 3)), "step 3"),
        (replace(VOTE, first_error=FirstError(True, 1)), "step 1"),
        (replace(VOTE, index=-1), "negative"),
        (replace(VOTE, model="a\0b"), "NUL"),
    ],
)
def test_a_vote_that_cannot_be_right_is_refused(store: Store, vote: Vote, said: str) -> None:
    fill(store)
    store.labels.put("d", "judge", [judged("t0")])
    with pytest.raises(InputError) as caught:
        store.labels.votes.put("d", "judge", [vote])
    assert said in caught.value.what


def test_quotes_are_counted_by_what_is_said_of_the_step(store: Store) -> None:
    fill(store)
    found, made_up = Quote("5 mg", 1, True, 0, 4, "exact"), Quote("9 mg", 1, False)
    silent = Abstention(AbstentionReason.NO_EVIDENCE, "")
    store.labels.put(
        "d",
        "judge",
        [
            TraceLabel(
                "t0",
                (
                    StepLabel(YES, quote=found),
                    StepLabel(NO, quote=made_up),
                    StepLabel(abstention=silent, quote=made_up),
                ),
            ),
            TraceLabel("t1", (StepLabel(NO, quote=found), StepLabel(NO), StepLabel(NO))),
            refused("t2"),
        ],
    )
    none = {"verified": 0, "unverified": 0, "absent": 0}
    assert store.labels.votes.quotes("d", "judge") == {
        "correct": none | {"verified": 1},
        "incorrect": {"verified": 1, "unverified": 1, "absent": 2},
        "neutral": none,
        "no_evidence": none | {"unverified": 1},
    }


def test_a_prompt_is_read_back_by_its_hash(store: Store) -> None:
    store.replies.put_prompt("abc", "Judge: {steps}\n")
    store.replies.put_prompt("abc", "Judge: {steps}\n")
    assert store.replies.prompt("abc") == "Judge: {steps}\n"
    assert store.replies.prompt("abd") is None
    with pytest.raises(InputError, match="NUL"):
        store.replies.put_prompt("x", "a\0")


def test_a_step_whose_call_went_wrong_is_a_failure_of_its_trace(store: Store) -> None:
    fill(store)
    torn = StepLabel(abstention=Abstention(AbstentionReason.TRUNCATED, "cut"))
    open_step = StepLabel(abstention=Abstention(AbstentionReason.NO_EVIDENCE, "nothing"))
    labels = [
        TraceLabel("t0", (StepLabel(YES), torn, torn)),
        TraceLabel("t1", (StepLabel(YES), open_step, open_step)),
        refused("t2"),
    ]
    store.labels.put("d", "judge", labels)
    assert [
        (failure.id, failure.reason, failure.detail)
        for _, failure in store.labels.failures.load("d")
    ] == [
        ("t2", AbstentionReason.BLOCKED, "no"),
        ("t0", AbstentionReason.TRUNCATED, "step 2: cut"),
    ]
    assert store.labels.failures.load() == store.labels.failures.load("d")
