"""Counting continuations: every kind of ending has its own place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling import MonteCarloConfig
from labeling.answers import AnswerChecker
from labeling.monte_carlo import mc_label
from traces.labels import Abstention, AbstentionReason, TraceLabel, Verdict, first_error
from traces.problem import PolicyText, Problem, Trace, TraceContinuations, TraceInContext
from traces.records import Continuation

RIGHT, WRONG, SILENT = "So.\nThe answer is 300 mg.", "The answer is 720 mg.", "I do not know."
STEPS = ("Zentide cap is 300 mg.", "720 is above 300, so 720 mg.", "The answer is 720 mg.")


def context(steps: tuple[str, ...] = STEPS, answer: str = "300 mg") -> TraceInContext:
    return TraceInContext(Problem("p", "Which dose?", answer=answer), Trace("t", "p", steps))


def label_of(
    *by_step: list[str | tuple[str, str]],
    threshold: int = 0,
    asked: TraceInContext | None = None,
) -> tuple[TraceLabel, tuple[Continuation, ...]]:
    """Label a trace whose step i was continued by the texts given (or (text, finish reason))."""
    asked = asked or context()
    texts = tuple(
        PolicyText(step, index, *((text, "stop") if isinstance(text, str) else text), tokens=7)
        for step, drawn in enumerate(by_step)
        for index, text in enumerate(drawn)
    )
    checker = AnswerChecker.for_problem(asked.problem)
    config = MonteCarloConfig(k=4, threshold=threshold)
    labeled = mc_label(asked, TraceContinuations("t", texts), checker, config)
    return labeled.label, labeled.continuations


def test_counts_soft_and_hard_labels() -> None:
    label, continuations = label_of(
        [RIGHT, RIGHT, WRONG, SILENT], [WRONG, WRONG, WRONG, RIGHT], ["", "", WRONG, SILENT]
    )
    first, second, third = label.step_labels
    assert (first.successes, first.continuations, first.unparsed, first.unfinished) == (2, 4, 1, 0)
    assert (first.score, first.verdict) == (0.5, Verdict.CORRECT)
    assert (second.score, second.verdict) == (0.25, Verdict.CORRECT)
    assert (third.score, third.verdict) == (0.0, Verdict.INCORRECT)
    assert first_error(label).index == 2
    assert label.meta == {"rule": "successes > 0", "k": 4, "answer_tolerance": 1e-6}
    assert len(continuations) == 12
    assert [c.answer for c in continuations[:4]] == ["300 mg", "300 mg", "720 mg", None]
    assert [c.correct for c in continuations[:4]] == [True, True, False, None]
    assert all(c.tokens == 7 and c.trace_id == "t" for c in continuations)


def test_threshold_moves_the_hard_label_only() -> None:
    drawn: list[list[str | tuple[str, str]]] = [[RIGHT, WRONG], [RIGHT, RIGHT], [WRONG, WRONG]]
    label, _ = label_of(*drawn, threshold=1)
    verdicts = [step.verdict for step in label.step_labels]
    assert verdicts == [Verdict.INCORRECT, Verdict.CORRECT, Verdict.INCORRECT]
    assert [step.score for step in label.step_labels] == [0.5, 1.0, 0.0]
    assert first_error(label).index == 0


def test_finished_trace_is_continued_by_nothing() -> None:
    label, continuations = label_of([RIGHT], [RIGHT], [""])
    assert continuations[-1].answer == "720 mg"
    assert label.step_labels[2].verdict is Verdict.INCORRECT
    right = context((*STEPS[:2], "The answer is 300 mg."))
    label, _ = label_of([RIGHT], [RIGHT], ["", "The answer is 720 mg."], asked=right)
    assert label.step_labels[2].score == 0.5  # the last mention wins


def test_cut_continuations_are_counted_apart_and_take_no_answer_from_the_prefix() -> None:
    label, continuations = label_of(
        [RIGHT], [("The answer is 30", "length"), RIGHT], [("and then", "length"), WRONG]
    )
    assert [c.answer for c in continuations[1:]] == [None, "300 mg", None, "720 mg"]
    second, third = label.step_labels[1:]
    assert (second.unfinished, second.unparsed, second.successes, second.score) == (1, 1, 1, 0.5)
    assert (third.unfinished, third.unparsed) == (1, 1)


def test_cut_after_its_answer_counts() -> None:
    label, _ = label_of([("The answer is 300 mg. Then we", "length")], [WRONG], [WRONG])
    assert label.step_labels[0].successes == 1
    assert label.step_labels[0].unfinished == 1


def test_step_without_any_answer_abstains() -> None:
    label, _ = label_of([RIGHT], [SILENT], [WRONG], asked=context(("a", "b", "c")))
    step = label.step_labels[1]
    assert step.abstention is not None
    assert step.abstention.reason is AbstentionReason.UNPARSED
    assert step.verdict is None
    assert step.score is None
    assert (step.continuations, step.unparsed, step.successes) == (1, 1, 0)
    assert first_error(label).missing


def test_nothing_parsed_at_all_is_an_abstention_of_the_trace() -> None:
    plain = context(("a", "b"))
    label, continuations = label_of([SILENT], [("cut", "length")], asked=plain)
    assert label.abstention is not None
    assert label.abstention.reason is AbstentionReason.UNPARSED
    assert "2 continuations, 1 of them cut" in label.abstention.detail
    assert len(continuations) == 2


def test_not_measured_is_not_zero() -> None:
    label, _ = label_of([RIGHT], [], [WRONG])
    step = label.step_labels[1]
    assert step.abstention is not None
    assert step.abstention.reason is AbstentionReason.NOT_MEASURED
    assert step.continuations is None
    none_at_all, continuations = label_of([], [], [])
    assert none_at_all.abstention is not None
    assert none_at_all.abstention.reason is AbstentionReason.NOT_MEASURED
    assert continuations == ()


def test_policy_that_could_not_continue() -> None:
    gone = Abstention(AbstentionReason.OVER_LENGTH, "5000 tokens")
    checker = AnswerChecker.for_problem(context().problem)
    labeled = mc_label(
        context(), TraceContinuations("t", (), "m-1", gone), checker, MonteCarloConfig()
    )
    assert labeled.label == TraceLabel("t", abstention=gone)
    assert labeled.continuations == ()
    assert labeled.resolved_model == "m-1"


@given(
    st.lists(
        st.lists(st.sampled_from([RIGHT, WRONG, SILENT]), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 3),
)
def test_counts_always_add_up(by_step: list[list[str]], threshold: int) -> None:
    asked = context(tuple(f"step {n}" for n in range(len(by_step))))
    label, continuations = label_of(*by_step, threshold=threshold, asked=asked)  # type: ignore[arg-type]
    assert len(continuations) == sum(map(len, by_step))
    for drawn, step in zip(by_step, label.step_labels, strict=bool(label.step_labels)):
        assert step.successes == drawn.count(RIGHT)
        assert step.unparsed == drawn.count(SILENT)
        if step.abstention is None:
            assert step.score == drawn.count(RIGHT) / len(drawn)
            assert (step.verdict is Verdict.CORRECT) == (drawn.count(RIGHT) > threshold)


def test_config_is_what_is_stored() -> None:
    assert MonteCarloConfig(k=4).as_dict() == {"k": 4, "threshold": 0, "seed": 0}


def test_blocked_continuation_takes_no_answer_from_the_prefix() -> None:
    label, _ = label_of([RIGHT], [RIGHT], [("", "blocked"), WRONG])
    assert label.step_labels[2].unparsed == 1


@pytest.mark.parametrize("step", [3, 17])
def test_continuation_of_a_step_that_does_not_exist_is_a_defect(step: int) -> None:
    checker = AnswerChecker.for_problem(context().problem)
    stray = TraceContinuations("t", (PolicyText(step, 0, RIGHT, "stop"),))
    with pytest.raises(IndexError):
        mc_label(context(), stray, checker, MonteCarloConfig())
