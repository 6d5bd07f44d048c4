"""Votes to verdicts: when voting ends, what a majority is, what becomes of a split. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.config import JudgeConfig
from judge.rag_judge import (
    CastVote,
    Decision,
    decide,
    decide_escalated,
    verdict_or_reason,
    votes_needed,
)
from traces.errors import InputError
from traces.evidence import Quote
from traces.labels import (
    MISSING_FIRST_ERROR,
    Abstention,
    AbstentionReason,
    FirstError,
    StepLabel,
    TraceLabel,
    Verdict,
    Vote,
    abstained,
    first_error,
)

C, I, N = Verdict.CORRECT, Verdict.INCORRECT, Verdict.NEUTRAL  # noqa: E741
SILENT = AbstentionReason.NO_EVIDENCE
Word = Verdict | AbstentionReason


def cast(*words: Word, index: int = 0, quoted: bool = False) -> CastVote:
    steps = tuple(
        StepLabel(word, reasoning=f"vote {index}", quote=Quote("q", 1, quoted))
        if isinstance(word, Verdict)
        else StepLabel(abstention=Abstention(word, f"vote {index}"))
        for word in words
    )
    label = TraceLabel("t", steps, meta={"grounded": True, "quotes": {}})
    return CastVote(Vote("t", index, "m", None, words, first_error(label), ("k",)), label)


def failed(reason: AbstentionReason = AbstentionReason.BLOCKED, index: int = 0) -> CastVote:
    label = abstained("t", reason, "why")
    return CastVote(
        Vote("t", index, "m", None, (), MISSING_FIRST_ERROR, ("k",), label.abstention), label
    )


def config(votes: int, agree: int = 2, escalate: str | None = None) -> JudgeConfig:
    return JudgeConfig(votes=votes, agree=agree, escalate=escalate, temperature=0.7)


ONE, TWO, NONE, OPEN = cast(I, C, C), cast(C, I, C), cast(C, C, C), cast(SILENT, C, C)


@pytest.mark.parametrize(
    ("votes", "agree", "so_far", "needed"),
    [
        (1, 2, [], 1),
        (1, 2, [ONE], 0),
        (1, 2, [OPEN], 0),
        (3, 2, [], 2),
        (3, 2, [ONE], 1),
        (3, 2, [ONE, ONE], 0),  # 2 of 2
        (3, 2, [NONE, NONE], 0),
        (3, 2, [ONE, TWO], 1),
        (3, 2, [ONE, TWO, ONE], 0),
        (5, 2, [ONE, TWO], 3),  # never unanimous again: up to N
        (5, 2, [ONE, NONE, ONE], 2),
        (5, 3, [], 3),
        (5, 3, [ONE, ONE], 1),
        (5, 3, [ONE, ONE, ONE], 0),  # 3 of 3
        (5, 3, [ONE, ONE, TWO], 2),
        (5, 2, [OPEN, ONE], 1),  # a vote without a first error does not count
        (5, 2, [OPEN, ONE, ONE], 0),
        (5, 2, [failed(), failed(), failed(), failed()], 1),
        (5, 2, [failed()] * 5, 0),
        (2, 3, [ONE, ONE], 0),
        (2, 3, [ONE], 1),
    ],
)
def test_when_voting_ends(votes: int, agree: int, so_far: list[CastVote], needed: int) -> None:
    assert votes_needed([one.vote for one in so_far], config(votes, agree)) == needed


@pytest.mark.parametrize(
    ("votes", "index", "agreeing", "share"),
    [
        ([ONE, ONE], 0, 2, 1.0),
        ([ONE, TWO, ONE], 0, 2, 2 / 3),
        ([NONE, TWO, NONE], None, 2, 2 / 3),
        ([ONE, TWO, TWO, NONE, TWO], 1, 3, 3 / 5),
        ([failed(), TWO, TWO], 1, 2, 1.0),
        ([OPEN, TWO, TWO], 1, 2, 1.0),
    ],
)
def test_majority(votes: list[CastVote], index: int | None, agreeing: int, share: float) -> None:
    decision = decide("t", votes, config(5))
    assert not decision.is_split
    assert first_error(decision.label) == FirstError(False, index)
    counted = decision.label.meta["votes"]
    assert (counted["cast"], counted["agreeing"]) == (len(votes), agreeing)
    assert counted["share"] == pytest.approx(share)


@pytest.mark.parametrize(
    "votes",
    [[ONE, TWO], [ONE, TWO, NONE], [ONE, ONE, TWO, TWO], [ONE, TWO, failed()],
     [ONE, ONE, TWO, TWO, NONE]],
)  # fmt: skip
def test_split_is_uncertain_and_says_how_it_was_split(votes: list[CastVote]) -> None:
    decision = decide("t", votes, config(5))
    assert decision.is_split
    abstention = decision.label.abstention
    assert abstention is not None
    assert abstention.reason is AbstentionReason.UNCERTAIN
    assert "step 1, step" in abstention.detail
    assert decision.label.step_labels == ()
    assert decision.label.meta["votes"]["share"] <= 0.5


@pytest.mark.parametrize("votes", [[failed()] * 3, [failed(), ONE, failed()], [OPEN, OPEN, ONE]])
def test_too_few_words_have_the_reason_of_the_first_silent_vote(votes: list[CastVote]) -> None:
    decision = decide("t", votes, config(3))
    assert not decision.is_split, "an outage is nothing to escalate"
    silent = next(one for one in votes if one.vote.first_error.missing)
    expected = SILENT if silent.vote.abstention is None else silent.vote.abstention.reason
    assert decision.label.abstention is not None
    assert decision.label.abstention.reason is expected
    assert "of 3 votes" in decision.label.abstention.detail


def test_a_single_vote_is_the_label_itself() -> None:
    for one in (ONE, OPEN, failed()):
        assert decide("t", [one], config(1)) == Decision(one.label)


def test_steps_follow_the_agreeing_votes_and_nobody_else() -> None:
    others = [cast(C, C, I, I, index=n) for n in (0, 1)]
    agreeing = [
        cast(N, I, C, N, index=2),
        cast(C, I, I, N, index=3),
        cast(C, I, C, C, index=4),
    ]
    label = decide("t", [*others, *agreeing], config(5)).label
    assert [verdict_or_reason(step) for step in label.step_labels] == [C, I, C, N]
    assert [step.reasoning for step in label.step_labels] == [
        "vote 3",
        "vote 2",
        "vote 2",
        "vote 2",
    ]


def test_a_tie_behind_the_first_error_is_uncertain_and_before_it_no_error() -> None:
    label = decide("t", [cast(N, I, C, C), cast(C, I, I, C, index=1)], config(2)).label
    assert [verdict_or_reason(step) for step in label.step_labels] == [
        N,
        I,
        AbstentionReason.UNCERTAIN,
        C,
    ]
    tied = label.step_labels[2].abstention
    assert tied is not None
    assert "correct, incorrect" in tied.detail
    assert first_error(label) == FirstError(False, 1)


def test_the_quote_that_stands_in_the_evidence_is_preferred() -> None:
    label = decide("t", [cast(I, C, index=0), cast(I, C, index=1, quoted=True)], config(2)).label
    assert [step.reasoning for step in label.step_labels] == ["vote 1", "vote 1"]
    assert label.meta["quotes"] == {"verified": 2, "unverified": 0, "absent": 0}


def test_escalation_decides_with_its_share_of_all() -> None:
    asked = config(3, escalate="openai:big")
    label = decide_escalated("t", [ONE, TWO, NONE], TWO, asked)
    assert first_error(label) == FirstError(False, 1)
    assert label.meta["votes"] == {
        "cast": 4, "counting": 4, "agreeing": 2, "share": 0.5, "escalated": "openai:big",
    }  # fmt: skip
    silent = decide_escalated("t", [ONE, TWO, NONE], failed(), asked)
    assert silent.abstention is not None
    assert silent.abstention.reason is AbstentionReason.UNCERTAIN
    assert "openai:big: blocked" in silent.abstention.detail


WORDS = st.lists(st.sampled_from([C, I, N, SILENT]), min_size=3, max_size=3)


@given(st.lists(WORDS, min_size=2, max_size=5))
def test_a_verdict_needs_two_votes_and_more_than_half(ballots: list[list[Word]]) -> None:
    """Held against a count written another way."""
    votes = [cast(*words, index=n) for n, words in enumerate(ballots)]
    named = [v.vote.first_error.index for v in votes if not v.vote.first_error.missing]
    winners = [e for e, n in Counter(named).items() if n >= 2 and n > len(named) - n]
    decision = decide("t", votes, replace(config(5), votes=len(votes)))
    assert decision.is_split == (len(named) >= 2 and not winners)
    if winners:
        assert decision.label.first_error_given
        assert decision.label.first_error_index == winners[0]
        before = decision.label.step_labels[: winners[0]]
        assert all(step.verdict in (C, N) for step in before)
        if winners[0] is not None:
            assert decision.label.step_labels[winners[0]].verdict is I
    else:
        assert decision.label.abstention is not None


@given(st.lists(WORDS, min_size=5, max_size=5), st.integers(1, 5), st.integers(2, 3))
def test_voting_always_ends_and_never_buys_more_than_was_allowed(
    ballots: list[list[Word]], votes: int, agree: int
) -> None:
    supply = [cast(*words, index=n).vote for n, words in enumerate(ballots)]
    asked = config(votes, agree) if votes > 1 else JudgeConfig()
    so_far: list[Vote] = []
    while needed := votes_needed(so_far, asked):
        so_far += supply[len(so_far) : len(so_far) + needed]
    assert 1 <= len(so_far) <= votes
    named = {vote.first_error for vote in so_far if not vote.first_error.missing}
    counting = sum(not vote.first_error.missing for vote in so_far)
    assert len(so_far) == votes or (len(named) == 1 and counting == agree)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"votes": 0}, "--votes is 0"),
        ({"votes": 3, "agree": 1}, "--agree is 1"),
        ({"votes": 3, "temperature": 0.0}, "temperature 0"),
        ({"votes": 1, "escalate": "openai:big"}, "at least two votes"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as fault:
        JudgeConfig(**settings)  # type: ignore[arg-type]
    assert said in fault.value.what
    assert fault.value.remedy


def test_configuration_as_it_is_stored_and_read_again() -> None:
    asked = JudgeConfig(votes=3, temperature=0.7, granularity="step", require_quotes=True)
    stored = asked.as_dict()
    assert {k: stored[k] for k in ("votes", "agree", "escalate", "granularity")} == {
        "votes": 3, "agree": 2, "escalate": None, "granularity": "step",
    }  # fmt: skip
    assert JudgeConfig.from_dict({**stored, "retrieval": "x"}, asked.template) == asked
    assert JudgeConfig.from_dict(JudgeConfig().as_dict(), asked.template) == JudgeConfig()
    with pytest.raises(InputError, match="another prompt"):
        JudgeConfig.from_dict({**stored, "prompt_sha256": "x"}, asked.template)
