"""Strict and hybrid agreement, quality filters, and the table of what labelers cover."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import labeling.consensus
from labeling import analyze_labelers
from labeling.consensus import ConsensusConfig, agree, agree_among
from traces.errors import InputError
from traces.evidence import Quote
from traces.labels import (
    Abstention,
    AbstentionReason,
    StepLabel,
    TraceLabel,
    Verdict,
    abstained,
    first_error,
)
from traces.problem import Problem, Trace, TraceInContext

C, I, N = Verdict.CORRECT, Verdict.INCORRECT, Verdict.NEUTRAL  # noqa: E741
SILENT = Abstention(AbstentionReason.UNPARSED, "nothing read")


def context(steps: int = 3, right: bool | None = None) -> TraceInContext:
    names = tuple(f"s{n}" for n in range(steps))
    trace = Trace("t", "p", names, final_answer_correct=right)
    return TraceInContext(Problem("p", "q"), trace)


def judged(*verdicts: Verdict | None, quoted: tuple[int, ...] = ()) -> TraceLabel:
    steps = tuple(
        StepLabel(
            verdict,
            abstention=SILENT if verdict is None else None,
            quote=Quote("q", 1, True, 0, 1, "exact") if n in quoted else None,
        )
        for n, verdict in enumerate(verdicts)
    )
    return TraceLabel("t", steps)


def measured(*scores: float | None) -> TraceLabel:
    steps = tuple(
        StepLabel(abstention=SILENT) if s is None else StepLabel(C if s > 0 else I, score=s)
        for s in scores
    )
    return TraceLabel("t", steps)


def reason_of(label: TraceLabel) -> AbstentionReason | None:
    return label.abstention.reason if label.abstention else None


# strict ------------------------------------------------------------------------------------------


def test_same_first_error_is_kept_and_later_steps_stay_open() -> None:
    label = agree(context(4), judged(C, I, C, I), measured(0.5, 0.0, 0.0, 0.9))
    assert label.abstention is None
    assert label.first_error_given
    assert label.first_error_index == 1
    assert [step.verdict for step in label.step_labels] == [C, I, None, None]
    assert [step.abstention and step.abstention.reason for step in label.step_labels] == [
        None, None, AbstentionReason.NOT_MEASURED, AbstentionReason.NOT_MEASURED,
    ]  # fmt: skip
    assert first_error(label).index == 1


def test_no_error_on_both_sides_is_kept() -> None:
    label = agree(context(), judged(C, N, C), measured(0.1, 0.2, 1.0))
    assert label.first_error_given
    assert label.first_error_index is None
    assert [step.verdict for step in label.step_labels] == [C, C, C]


@pytest.mark.parametrize(
    ("judge", "scores"),
    [((C, I, C), (1, 1, 0)), ((C, C, C), (1, 1, 0)), ((I, C, C), (1, 1, 1))],
)
def test_different_first_errors_are_a_disagreement(
    judge: tuple[Verdict, ...], scores: tuple[float, ...]
) -> None:
    label = agree(context(), judged(*judge), measured(*scores))
    assert reason_of(label) is AbstentionReason.DISAGREEMENT
    assert label.abstention is not None
    assert "judge: " in label.abstention.detail
    assert label.step_labels == ()


def test_the_missing_labeler_gives_its_reason() -> None:
    fine = judged(C, C, C)
    blocked = abstained("t", AbstentionReason.BLOCKED, "safety")
    assert reason_of(agree(context(), blocked, measured(1, 1, 1))) is AbstentionReason.BLOCKED
    assert reason_of(agree(context(), fine, measured(1, None, 1))) is AbstentionReason.UNPARSED
    assert (
        reason_of(agree(context(), judged(C, None, I), measured(1, 1, 0)))
        is AbstentionReason.UNPARSED
    )
    assert reason_of(agree(context(), None, fine)) is AbstentionReason.NOT_MEASURED
    assert reason_of(agree(context(), fine, None)) is AbstentionReason.NOT_MEASURED
    assert reason_of(agree(context(), fine, TraceLabel("t"))) is AbstentionReason.NOT_MEASURED
    said = agree(context(), fine, abstained("t", AbstentionReason.NO_ANSWER, "no gold answer"))
    assert said.abstention == Abstention(AbstentionReason.NO_ANSWER, "mc: no gold answer")


def test_an_open_step_behind_the_first_error_does_not_matter() -> None:
    label = agree(context(), judged(C, I, None), measured(1, 0, None))
    assert label.first_error_index == 1


WORDS = st.lists(st.sampled_from([C, I, N, None]), min_size=3, max_size=3)


@given(WORDS, WORDS)
def test_strict_keeps_exactly_what_both_name(
    one: list[Verdict | None], other: list[Verdict | None]
) -> None:
    judge, mc = judged(*one), judged(*other)
    label = agree(context(), judge, mc)
    named = first_error(judge), first_error(mc)
    agreed = not any(error.missing for error in named) and named[0] == named[1]
    assert (label.abstention is None) is agreed
    if agreed:
        assert first_error(label) == named[0]


# hybrid ------------------------------------------------------------------------------------------

HYBRID = ConsensusConfig(rule="hybrid")


@pytest.mark.parametrize(
    ("verdict", "score", "expected", "confidence"),
    [
        (C, 0.71, C, 0.71),
        (C, 1.0, C, 0.95),
        (C, 0.7, None, 0.5),
        (C, 0.2, None, 0.5),
        (I, 0.29, I, 0.71),
        (I, 0.0, I, 0.95),
        (I, 0.3, None, 0.5),
        (I, 0.9, None, 0.5),
        (N, 0.9, None, 0.5),
        (N, 0.1, None, 0.5),
    ],
)
def test_hybrid_rule_of_the_design(
    verdict: Verdict, score: float, expected: Verdict | None, confidence: float
) -> None:
    label = agree(context(1), judged(verdict), measured(score), HYBRID)
    (step,) = label.step_labels
    assert step.verdict is expected
    assert label.meta["confidence"] == [pytest.approx(confidence)]
    if expected is None:
        assert step.score is None
        assert step.abstention is not None
        assert step.abstention.reason is AbstentionReason.UNCERTAIN
    else:
        assert step.score is not None
        assert step.score == pytest.approx(confidence if expected is C else 1 - confidence)
        assert (step.score >= 0.5) is (expected is C)


def test_hybrid_passes_a_silent_labeler_on() -> None:
    label = agree(context(2), judged(C, None), measured(None, 0.9), HYBRID)
    assert [step.abstention and step.abstention.detail for step in label.step_labels] == [
        "mc: nothing read",
        "judge: nothing read",
    ]
    assert label.meta["confidence"] == [None, None]


def test_an_expert_decides_only_what_hybrid_leaves_open() -> None:
    answers = TraceLabel("t", (StepLabel(I), StepLabel(I, reasoning="No."), StepLabel(C)))
    judge, mc = judged(C, C, None), measured(0.9, 0.5, 0.9)
    label = agree_among(context(), {"judge": judge, "mc": mc}, HYBRID, expert=("dr-a", answers))
    assert [step.verdict for step in label.step_labels] == [C, I, C]
    assert label.step_labels[1].reasoning == "No."
    assert label.meta["expert"] == "dr-a"
    assert label.meta["expert_verified_steps"] == [1, 2]
    assert label.meta["confidence"] == [0.9, 0.5, 0.5]
    bare = TraceLabel("t", first_error_given=True, first_error_index=1)
    label = agree_among(context(), {"judge": judge, "mc": mc}, HYBRID, expert=("dr-a", bare))
    assert [step.verdict for step in label.step_labels] == [C, I, None]
    silent = abstained("t", AbstentionReason.UNPARSED)
    untouched = agree_among(context(), {"judge": judge, "mc": mc}, HYBRID, expert=("dr-a", silent))
    assert untouched == agree_among(context(), {"judge": judge, "mc": mc}, HYBRID)


def test_hybrid_needs_step_labels() -> None:
    bare = TraceLabel("t", first_error_given=True, first_error_index=1)
    assert (
        reason_of(agree(context(), bare, measured(1, 1, 1), HYBRID))
        is AbstentionReason.NOT_MEASURED
    )


def test_rules_by_name() -> None:
    with pytest.raises(InputError, match="'vote'"):
        ConsensusConfig(rule="vote")  # type: ignore[arg-type]
    assert ConsensusConfig().as_dict() == {"rule": "strict"}
    assert HYBRID.as_dict() == {"rule": "hybrid", "high": 0.7, "low": 0.3, "most_confident": 0.95}
    filters: dict[str, Any] = {"min_steps": 3, "require_verified_quote": True}
    assert ConsensusConfig(**filters).as_dict() == {
        "rule": "strict", "min_steps": 3, "require_verified_quote": True,
    }  # fmt: skip


# filters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "steps", "right", "error_at", "quoted", "said"),
    [
        ({}, 2, True, 0, (), None),
        ({"min_steps": 3}, 2, None, None, (), "2 steps, fewer than 3"),
        ({"min_steps": 3}, 3, None, None, (), None),
        ({"max_steps": 9}, 10, None, None, (), "10 steps, more than 9"),
        ({"max_steps": 9}, 9, None, None, (), None),
        ({"no_error_before_right_answer": True}, 3, True, 1, (), "answer is right"),
        ({"no_error_before_right_answer": True}, 3, True, None, (), None),
        ({"no_error_before_right_answer": True}, 3, None, 1, (), None),
        ({"error_before_wrong_answer": True}, 3, False, None, (), "answer is wrong"),
        ({"error_before_wrong_answer": True}, 3, False, 2, (), None),
        ({"error_before_wrong_answer": True}, 3, None, None, (), None),
        ({"require_verified_quote": True}, 3, None, 1, (0, 2), "no verified quote"),
        ({"require_verified_quote": True}, 3, None, 1, (1,), None),
        ({"require_verified_quote": True}, 3, None, None, (2,), None),
        ({"require_verified_quote": True}, 3, None, None, (), "no verified quote"),
    ],
)
@pytest.mark.parametrize("rule", ["strict", "hybrid"])
def test_filters_say_what_they_take_out(
    rule: Any,
    filters: dict[str, Any],
    steps: int,
    right: bool | None,
    error_at: int | None,
    quoted: tuple[int, ...],
    said: str | None,
) -> None:
    verdicts = [I if n == error_at else C for n in range(steps)]
    scores = [0.0 if n == error_at else 1.0 for n in range(steps)]
    label = agree(
        context(steps, right),
        judged(*verdicts, quoted=quoted),
        measured(*scores),
        ConsensusConfig(rule=rule, **filters),
    )
    if said is None:
        assert label.abstention is None
    else:
        assert reason_of(label) is AbstentionReason.FILTERED
        assert label.abstention is not None
        assert said in label.abstention.detail


def test_disagreement_is_not_renamed_by_a_filter() -> None:
    config = ConsensusConfig(min_steps=9)
    label = agree(context(), judged(C, I, C), measured(1, 1, 1), config)
    assert reason_of(label) is AbstentionReason.DISAGREEMENT


def test_filter_sees_an_error_behind_an_uncertain_step() -> None:
    filters: dict[str, Any] = {"no_error_before_right_answer": True}
    config = ConsensusConfig(rule="hybrid", **filters)
    label = agree(context(2, right=True), judged(C, I), measured(0.5, 0.0), config)
    assert reason_of(label) is AbstentionReason.FILTERED


# the table ---------------------------------------------------------------------------------------


def says(trace_id: str, index: int | None) -> TraceLabel:
    return TraceLabel(trace_id, first_error_given=True, first_error_index=index)


def test_documented_example_runs() -> None:
    assert doctest.testmod(labeling.consensus) == (0, 8)


def test_labeler_table_counts_classes_and_reasons() -> None:
    judge = {"a": says("a", 0), "b": says("b", None), "c": abstained("c", AbstentionReason.BLOCKED)}
    (row,) = analyze_labelers({"judge": judge}, ["a", "b", "c", "d"], consensus={}).rows
    assert (row.with_error.traces, row.without_error.traces) == (1, 1)
    assert row.coverage == 0.5
    assert row.overlap == row.conflict == 0
    assert row.abstained == {"blocked": 1}
    (empty,) = analyze_labelers({"judge": {}}, [], consensus={}).rows
    assert empty.coverage is None


def test_retention_is_counted_per_class() -> None:
    judge = {"a": says("a", 0), "b": says("b", 1), "c": says("c", None), "d": abstained("d", AbstentionReason.BLOCKED)}  # fmt: skip
    consensus = {"a": says("a", 0), "b": abstained("b", AbstentionReason.DISAGREEMENT), "c": says("c", None)}  # fmt: skip
    analysis = analyze_labelers({"judge": judge, "mc": {}}, "abcd", consensus=consensus)
    by_judge, by_mc = analysis.rows
    assert (by_judge.with_error.traces, by_judge.with_error.kept) == (2, 1)
    assert by_judge.with_error.share == 0.5
    assert by_judge.without_error.share == 1.0
    assert by_mc.with_error.share is None
    assert analysis.table().splitlines()[1:] == [
        "judge        0.75     0.00      0.00  1/2 (0.50)     1/1 (1.00)",
        "mc           0.00     0.00      0.00           -              -",
    ]


# any number of labelers --------------------------------------------------------------------------


def named(index: int | None) -> TraceLabel:
    return TraceLabel("t", first_error_given=True, first_error_index=index)


MAJORITY = ConsensusConfig(rule="majority")


def test_strict_needs_all_labelers() -> None:
    three = {"a": named(1), "b": named(1), "c": named(1)}
    assert agree_among(context(), three).first_error_index == 1
    apart = agree_among(context(), {**three, "c": named(2)})
    assert reason_of(apart) is AbstentionReason.DISAGREEMENT
    assert apart.abstention is not None
    assert "c: first error at step 3" in apart.abstention.detail
    assert reason_of(agree_among(context(), {**three, "c": None})) is AbstentionReason.NOT_MEASURED


def test_majority_is_more_than_half_of_those_that_name_a_first_error() -> None:
    label = agree_among(context(), {"a": named(1), "b": named(None), "c": named(1)}, MAJORITY)
    assert (label.first_error_index, label.meta["votes"]) == (1, [2, 3])
    silent = agree_among(
        context(), {"a": named(None), "b": measured(None, 0.5, 1.0), "c": named(None)}, MAJORITY
    )
    assert silent.first_error_given
    assert silent.first_error_index is None


@pytest.mark.parametrize("indices", [(1, 2), (1, 1, 2, 2), (0, 1, 2)])
def test_half_is_no_majority(indices: tuple[int, ...]) -> None:
    labels = {str(n): named(index) for n, index in enumerate(indices)}
    assert reason_of(agree_among(context(), labels, MAJORITY)) is AbstentionReason.DISAGREEMENT


def test_one_labeler_is_no_majority() -> None:
    alone = agree_among(context(), {"a": named(1), "b": None}, MAJORITY)
    assert reason_of(alone) is AbstentionReason.NOT_MEASURED


def test_bayes_keeps_the_most_probable_first_error_and_scores_its_steps() -> None:
    config = ConsensusConfig(rule="bayes", min_posterior=0.9)
    label = agree_among(context(), {"a": named(1)}, config, posterior=[0.02, 0.95, 0.01, 0.02])
    assert label.first_error_index == 1
    assert [step.score for step in label.step_labels] == [0.98, 0.03, None]
    assert label.meta["posterior"] == [0.02, 0.95, 0.01, 0.02]
    clean = agree_among(context(), {"a": named(1)}, config, posterior=[0.0, 0.01, 0.01, 0.98])
    assert clean.first_error_index is None
    assert [step.score for step in clean.step_labels] == [1.0, 0.99, 0.98]


def test_bayes_leaves_what_is_uncertain_to_an_expert_with_its_posterior() -> None:
    config = ConsensusConfig(rule="bayes", min_posterior=0.9)
    label = agree_among(context(), {"a": named(1)}, config, posterior=[0.1, 0.6, 0.1, 0.2])
    assert reason_of(label) is AbstentionReason.UNCERTAIN
    assert label.abstention is not None
    assert label.abstention.detail == "first error at step 2 has posterior 0.60"
    assert label.meta["posterior"] == [0.1, 0.6, 0.1, 0.2]
    everything = ConsensusConfig(rule="bayes", min_posterior=0)
    kept = agree_among(context(), {"a": named(1)}, everything, posterior=[0.1, 0.6, 0.1, 0.2])
    assert kept.first_error_index == 1


def test_an_expert_decides_an_uncertain_trace_and_the_steps_after_a_first_error() -> None:
    config = ConsensusConfig(rule="bayes", min_posterior=0.9)
    bare = TraceLabel("t", first_error_given=True, first_error_index=2)
    label = agree_among(
        context(), {"a": named(1)}, config, posterior=[0.1, 0.6, 0.1, 0.2], expert=("dr-a", bare)
    )
    assert (label.abstention, label.first_error_index) == (None, 2)
    assert [step.verdict for step in label.step_labels] == [C, C, I]
    assert label.meta["expert_verified_steps"] == [0, 1, 2]
    answers = TraceLabel("t", (StepLabel(C), StepLabel(C), StepLabel(C)))
    likely = [0.02, 0.95, 0.01, 0.02]
    label = agree_among(
        context(), {"a": named(1)}, config, posterior=likely, expert=("dr-a", answers)
    )
    assert label.first_error_index == 1
    assert [step.verdict for step in label.step_labels] == [C, I, C]
    assert label.meta["expert_verified_steps"] == [2]


def test_bayes_does_not_label_a_trace_on_which_all_labelers_are_silent() -> None:
    config = ConsensusConfig(rule="bayes", min_posterior=0.9)
    silent = {"a": abstained("t", AbstentionReason.UNPARSED), "b": None}
    label = agree_among(context(), silent, config, posterior=[0.02, 0.02, 0.01, 0.95])
    assert reason_of(label) is AbstentionReason.NOT_MEASURED
    anchored = agree_among(context(), silent, config, posterior=[0.0, 0.0, 0.0, 1.0])
    assert (anchored.first_error_given, anchored.first_error_index) == (True, None)


def test_min_posterior_is_for_bayes_and_stored_with_it() -> None:
    assert ConsensusConfig(rule="bayes").as_dict() == {"rule": "bayes", "min_posterior": 0.9}
    assert "min_posterior" not in ConsensusConfig(rule="majority").as_dict()
