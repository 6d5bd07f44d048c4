"""The parity gate's figures, against a reference written the slow way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.server.scorer import NEAR_TIE, compare_scores, parity_error
from traces.errors import PrmError
from traces.labels import AbstentionReason, StepLabel, TraceLabel, abstained, first_error

Scores = list[float]


def label(name: str, scores: list[float | None]) -> TraceLabel:
    return TraceLabel(name, tuple(StepLabel(score=score) for score in scores))


def both(pairs: list[tuple[Scores, Scores]]) -> tuple[dict[str, TraceLabel], dict[str, TraceLabel]]:
    here = {f"t{n}": label(f"t{n}", [*a]) for n, (a, _) in enumerate(pairs)}
    return here, {f"t{n}": label(f"t{n}", [*b]) for n, (_, b) in enumerate(pairs)}


traces = st.lists(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.498, 0.5, 0.502, 0.9]), st.floats(-0.01, 0.01)),
        min_size=1,
        max_size=4,
    ).map(lambda steps: ([a for a, _ in steps], [a + d for a, d in steps])),
    min_size=1,
    max_size=5,
)


@given(traces)
def test_figures_are_those_of_a_slow_count(pairs: list[tuple[Scores, Scores]]) -> None:
    here, there = both(pairs)
    found = compare_scores(here, there)
    assert (found.traces, found.steps) == (len(pairs), sum(len(a) for a, _ in pairs))
    differences = [abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)]
    assert found.max_difference == max(differences)
    name, step, ours, theirs = found.worst
    assert (ours, theirs) == (pairs[int(name[1:])][0][step], pairs[int(name[1:])][1][step])
    same, ties = 0, 0
    for name, mine in here.items():
        a, b = first_error(mine).index, first_error(there[name]).index
        if a == b:
            same += 1
            continue
        step = min(index for index in (a, b) if index is not None)
        scores = [each.step_labels[step].score for each in (mine, there[name])]
        ties += all(score is not None and abs(score - 0.5) <= NEAR_TIE for score in scores)
    assert (found.first_errors, found.near_ties) == (same, ties)
    assert found.agreement == (same + ties) / len(pairs)
    assert found.passes(0.01) == (max(differences) <= 0.01 and found.agreement >= 0.995)


def test_a_first_error_elsewhere_fails_however_small_the_difference() -> None:
    near, far = ([0.9, 0.501], [0.9, 0.499]), ([0.9, 0.51], [0.9, 0.495])
    assert compare_scores(*both([near])).passes(0.02)
    assert not compare_scores(*both([far])).passes(0.02)
    # One in two hundred is the most that may differ.
    assert compare_scores(*both([far] + [near] * 199)).passes(0.02)
    assert not compare_scores(*both([far] + [near] * 198)).passes(0.02)


def test_one_step_too_far_off_fails_and_is_named() -> None:
    here, there = both([([0.9, 0.8], [0.9, 0.8]), ([0.9, 0.8, 0.7], [0.9, 0.8, 0.9])])
    found = compare_scores(here, there)
    assert not found.passes(0.02)
    assert found.agreement == 1.0
    refused = parity_error("openai:m", found, 0.02)
    assert refused.where == 'trace "t1", step 3: 0.7000 here, 0.9000 there'
    assert "0.2000 (limit 0.02)" in refused.what
    assert "100.0% of 2 traces" in refused.what


def test_a_trace_that_one_side_alone_scores_is_never_equal() -> None:
    here = {"t": label("t", [0.9, 0.8])}
    lost = abstained("t", AbstentionReason.MODEL_ERROR, "It is gone.")
    with pytest.raises(
        PrmError, match="different steps than the checkpoint on this machine: It is gone"
    ):
        compare_scores(here, {"t": lost})
    with pytest.raises(PrmError, match="different steps"):
        compare_scores(here, {})
    with pytest.raises(PrmError, match="different steps"):
        compare_scores(here, {"t": label("t", [0.9])})
    with pytest.raises(PrmError, match="both the server and this machine"):
        compare_scores({"t": lost}, {"t": lost})


def test_steps_without_a_score_of_their_own_are_no_difference() -> None:
    """An outcome model scores the last step alone."""
    from traces.labels import Abstention

    silent = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, ""))
    here = {"t": TraceLabel("t", (silent, StepLabel(score=0.9)))}
    there = {"t": TraceLabel("t", (silent, StepLabel(score=0.895)))}
    found = compare_scores(here, there)
    assert (found.steps, found.agreement) == (1, 1.0)
    assert found.max_difference == pytest.approx(0.005)
