"""Med-PRM's first-zero rule: an option of the consensus, never of what the labelers said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.consensus import ConsensusConfig, agree
from traces.errors import InputError
from traces.labels import Abstention, AbstentionReason, StepLabel, TraceLabel, Verdict, first_error
from traces.problem import Problem, Trace, TraceInContext

C, I = Verdict.CORRECT, Verdict.INCORRECT  # noqa: E741
ZERO = ConsensusConfig(after_first_error="incorrect")


def context(steps: int) -> TraceInContext:
    return TraceInContext(Problem("p", "q"), Trace("t", "p", tuple("s" * steps)))


def judged(*verdicts: Verdict) -> TraceLabel:
    return TraceLabel("t", tuple(StepLabel(verdict) for verdict in verdicts))


def measured(*scores: float) -> TraceLabel:
    return TraceLabel("t", tuple(StepLabel(C if s > 0 else I, score=s) for s in scores))


def test_strict_fills_what_it_leaves_open() -> None:
    judge, mc = judged(C, I, C, C), measured(0.9, 0.0, 0.9, 0.9)
    kept = agree(context(4), judge, mc)
    assert [step.verdict for step in kept.step_labels] == [C, I, None, None]
    zeroed = agree(context(4), judge, mc, ZERO)
    assert [step.verdict for step in zeroed.step_labels] == [C, I, I, I]
    assert zeroed.meta["after_first_error"] == "incorrect"
    assert "after_first_error" not in kept.meta
    assert [step.verdict for step in judge.step_labels] == [C, I, C, C]


def test_hybrid_rewrites_confident_and_uncertain_steps_but_measures_nothing() -> None:
    config = ConsensusConfig(rule="hybrid", after_first_error="incorrect")
    label = agree(context(5), judged(C, C, I, C, C), measured(0.9, 0.5, 0.1, 0.9, 0.5), config)
    uncertain = label.step_labels[1].abstention
    assert uncertain is not None
    assert uncertain.reason is AbstentionReason.UNCERTAIN
    assert [step.verdict for step in label.step_labels] == [C, None, I, I, I]
    assert [step.score for step in label.step_labels[3:]] == [None, None]
    assert label.meta["confidence"] == [0.9, 0.5, 0.9, None, None]


def test_nothing_to_rewrite_leaves_the_label_alone() -> None:
    right = judged(C, C), measured(1.0, 1.0)
    assert agree(context(2), *right, ZERO) == agree(context(2), *right)
    open_one = TraceLabel("t", abstention=Abstention(AbstentionReason.BLOCKED, "x"))
    label = agree(context(2), open_one, right[1], ZERO)
    assert label.abstention is not None
    assert label.step_labels == ()


@given(st.lists(st.sampled_from([C, I]), min_size=1, max_size=6), st.booleans())
def test_the_first_error_never_moves(verdicts: list[Verdict], hybrid: bool) -> None:
    scores = [0.9 if verdict is C else 0.0 for verdict in verdicts]
    asked = context(len(verdicts)), judged(*verdicts), measured(*scores)
    rule = "hybrid" if hybrid else "strict"
    kept = agree(*asked, ConsensusConfig(rule=rule))  # type: ignore[arg-type]
    zeroed = agree(*asked, ConsensusConfig(rule=rule, after_first_error="incorrect"))  # type: ignore[arg-type]
    assert first_error(zeroed) == first_error(kept)
    first = verdicts.index(I) if I in verdicts else len(verdicts)
    expected = [C] * first + [I] * (len(verdicts) - first)
    assert [step.verdict for step in zeroed.step_labels] == expected


def test_the_choice_by_its_name_and_in_the_configuration() -> None:
    with pytest.raises(InputError, match="'zero'") as fault:
        ConsensusConfig(after_first_error="zero")  # type: ignore[arg-type]
    assert fault.value.remedy == "use one of keep, incorrect"
    assert ZERO.as_dict() == {"rule": "strict", "after_first_error": "incorrect"}
    assert ConsensusConfig().as_dict() == {"rule": "strict"}
