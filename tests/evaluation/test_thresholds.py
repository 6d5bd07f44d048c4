"""Fitted thresholds against trying every one; provenance; what cannot be fitted."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces
from evaluation.measures import MEASURES
from evaluation.thresholds import FittedThreshold, fit_threshold, threshold_sweep
from tests.evaluation.builders import first, first_errors, scores, trace, verdicts
from traces.errors import InputError

value = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1)


@st.composite
def scored(draw: st.DrawFn) -> list[EvaluatedTrace]:
    made = []
    for number in range(draw(st.integers(1, 6))):
        n = draw(st.integers(1, 4))
        gold = verdicts(draw(st.lists(st.sampled_from([1, -1, 0]), min_size=n, max_size=n)))
        said = scores(draw(st.lists(st.none() | value, min_size=n, max_size=n)))
        made.append(trace(gold, said, id=str(number)))
    return made


@settings(max_examples=30, deadline=None)
@given(
    scored(),
    st.sampled_from(["processbench_f1", "macro_f1", "prmscore", "mcc", "location_accuracy"]),
)
def test_the_sweep_is_the_measure_at_each_threshold(
    traces: list[EvaluatedTrace], measure: str
) -> None:
    seen = {s.score for t in traces if t.predicted for s in t.predicted.step_labels}
    assume(seen - {None})
    sweep = threshold_sweep(traces, measure)
    best = sweep.best()
    chosen = MEASURES[measure]
    for threshold, swept in zip(sweep.thresholds, sweep.values, strict=True):
        assert 0 < threshold < 1
        assert threshold not in seen
        sums = chosen.rows(EvaluatedTraces.of(traces), threshold).sum(axis=0)
        at, defined = chosen.formula(sums[None, :])
        assert swept == (pytest.approx(float(at[0])) if defined[0] else None)
    # No other threshold does better: one inside each gap stands for all others in it.
    for other in [
        0.05,
        0.3,
        0.6,
        0.8,
        0.95,
        *(s + 1e-6 for s in seen if s is not None and s < 0.99),
    ]:
        sums = chosen.rows(EvaluatedTraces.of(traces), other).sum(axis=0)
        at, defined = chosen.formula(sums[None, :])
        if defined[0] and other not in seen:
            assert best is not None
            assert best[1] >= at[0] - 1e-9


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    traces = [
        trace(first(1), scores([0.9, 0.2]), id="a"),
        trace(first(-1), scores([0.9, 0.8]), id="b"),
    ]
    fitted = fit_threshold(traces, "processbench_f1", dataset="d", subset="s")
    assert (fitted.threshold, fitted.value, fitted.n_traces) == (0.5, 1.0, 2)
    assert fitted.source == "fit:d/s"


def test_an_in_sample_threshold_says_so() -> None:
    fitted = FittedThreshold(0.4, "d", "s", "macro_f1", 0.9, 10, ("s",))
    assert fitted.source == "fit:d/s (in-sample: s)"
    assert fitted.as_json()["in_sample"] is True
    assert fitted.as_json()["in_sample_subsets"] == ["s"]


def test_verdicts_leave_no_threshold_to_fit() -> None:
    with pytest.raises(InputError, match="No step is decided by a score"):
        threshold_sweep([trace(verdicts([1, -1]), verdicts([1, 1]))], "macro_f1")
    with pytest.raises(InputError, match="Unknown measure 'f1'"):
        threshold_sweep([], "f1")


def test_a_split_of_one_kind_cannot_be_fitted_on() -> None:
    only_errors = [trace(first(0), scores([0.3, 0.4]))]
    with pytest.raises(InputError, match="one of its groups is empty"):
        fit_threshold(only_errors, "processbench_f1", dataset="d", subset="s")


def test_a_sweep_can_be_thinned_for_a_page() -> None:
    traces = [trace(verdicts([1] * 4), scores([i / 50 + j / 1000 for j in range(4)]), id=str(i)) for i in range(1, 40)]  # fmt: skip
    sweep = threshold_sweep(traces, "macro_f1")
    thin = sweep.thinned(20)
    assert len(thin) == 20
    assert thin[0][0] == sweep.thresholds[0]
    assert thin[-1][0] == sweep.thresholds[-1]
    assert len(sweep.thinned(10_000)) == len(sweep.thresholds)


def test_a_fixed_first_error_does_not_move_with_the_threshold() -> None:
    mixed = [*first_errors([0, -1], [0, -1]), trace(first(0), scores([0.3]), id="x")]
    sweep = threshold_sweep(mixed, "processbench_f1")
    assert sweep.values[0] is not None
    assert sweep.best() == (0.65, 1.0)
