"""Intervals: by problem, reproducible, as wide as theory says, and fast."""

from __future__ import annotations

import random

import numpy as np
import pytest

from evaluation.evaluated import EvaluatedTrace
from evaluation.measures import by_problem, generator, interval, resampled_sums
from evaluation.paired import compare_by_measure, paired_difference
from evaluation.protocols.processbench import evaluate_processbench
from tests.evaluation.builders import first, first_errors, trace, verdicts
from traces.errors import InputError


def random_traces(
    n: int, right: float, *, seed: int = 0, per_problem: int = 1, subset: str = "s"
) -> list[EvaluatedTrace]:
    draw = random.Random(seed)
    labels = [draw.choice([-1, 0, 1, 2]) for _ in range(n)]
    predictions = [label if draw.random() < right else 5 for label in labels]
    return first_errors(labels, predictions, subset=subset, per_problem=per_problem)


def test_sums_are_those_of_a_slow_resampling() -> None:
    counts = np.array([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]])
    fast = resampled_sums(counts, generator(4), 200)
    drawn = generator(4).integers(0, 3, (200, 3))
    slow = [sum(counts[problem] for problem in row) for row in drawn]
    np.testing.assert_allclose(fast, slow)


def test_blocks_do_not_lose_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.ones((50, 1))
    monkeypatch.setattr("evaluation.measures._BLOCK", 120)
    np.testing.assert_allclose(resampled_sums(counts, generator(0), 101), np.full((101, 1), 50.0))


def test_drawing_equal_problems_at_once_has_the_same_distribution() -> None:
    # 60 equal problems, 30 equal ones, 10 that are like no other.
    counts = np.array(
        [[1.0, 0.0, 1.0]] * 60 + [[0.0, 2.0, 1.0]] * 30 + [[n, 3.0, 1.0] for n in range(10)]
    )
    fast = resampled_sums(counts, generator(1), 20_000)
    rng = np.random.default_rng(2)
    slow = np.array([counts[rng.integers(0, 100, 100)].sum(axis=0) for _ in range(4000)])
    # Every resample holds as many problems as there are.
    assert (fast[:, 2] == 100).all()
    for column in (0, 1):
        spread = counts[:, column].std() * 10
        assert fast[:, column].mean() == pytest.approx(counts[:, column].sum(), abs=spread / 30)
        assert fast[:, column].std() == pytest.approx(spread, rel=0.03)
        low, high = np.percentile(slow[:, column], (2.5, 97.5))
        assert np.percentile(fast[:, column], 2.5) == pytest.approx(low, abs=0.15 * spread)
        assert np.percentile(fast[:, column], 97.5) == pytest.approx(high, abs=0.15 * spread)


def test_rows_of_a_problem_are_added_up() -> None:
    np.testing.assert_allclose(
        by_problem(np.array(["b", "a", "b"]), np.array([[1.0], [2.0], [4.0]])), [[5.0], [2.0]]
    )


def test_the_same_seed_gives_the_same_interval_and_another_a_different_one() -> None:
    traces = random_traces(200, 0.6)
    one, same, other = (
        evaluate_processbench(traces, seed=seed).average.processbench_f1.ci95 for seed in (0, 0, 1)
    )
    assert one == same != other


def test_a_subset_keeps_its_interval_when_another_joins() -> None:
    alone = evaluate_processbench(random_traces(80, 0.6, subset="a"))
    joined = evaluate_processbench(
        random_traces(80, 0.6, subset="a") + random_traces(80, 0.3, subset="b")
    )
    assert alone.subsets["a"] == joined.subsets["a"]


def test_an_accuracy_has_the_width_of_the_binomial() -> None:
    report = evaluate_processbench(first_errors([0] * 400, [0] * 300 + [1] * 100))
    assert report.average.error_accuracy.ci95 is not None
    low, high = report.average.error_accuracy.ci95
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert low == pytest.approx(0.75 - half, abs=0.006)
    assert high == pytest.approx(0.75 + half, abs=0.006)


def test_traces_of_one_problem_move_together() -> None:
    labels, predictions = [0] * 400, [0, 0, 0, 0, 1, 1, 1, 1] * 50
    alone = evaluate_processbench(first_errors(labels, predictions)).average.error_accuracy
    together = evaluate_processbench(
        first_errors(labels, predictions, per_problem=4)
    ).average.error_accuracy
    assert alone.value == together.value == 0.5
    assert alone.ci95 is not None
    assert together.ci95 is not None
    # Four traces that always agree are worth one: twice the width.
    ratio = (together.ci95[1] - together.ci95[0]) / (alone.ci95[1] - alone.ci95[0])
    assert ratio == pytest.approx(2, abs=0.25)


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        ci95 = evaluate_processbench(
            random_traces(150, 0.6, seed=seed), resamples=500
        ).average.correct_accuracy.ci95
        assert ci95 is not None
        covered += ci95[0] <= 0.6 <= ci95[1]
    # 37 traces without error on average: the percentile bootstrap is a little short of 95% there.
    assert 0.88 <= covered / 200 <= 0.99


def test_the_average_resamples_within_subsets() -> None:
    traces = random_traces(100, 0.5, subset="a") + random_traces(100, 0.5, seed=1, subset="b")
    report = evaluate_processbench(traces)
    widths = []
    for each in (*report.subsets.values(), report.average):
        assert each.processbench_f1.ci95 is not None
        widths.append(each.processbench_f1.ci95[1] - each.processbench_f1.ci95[0])
    assert widths[2] == pytest.approx((widths[0] ** 2 + widths[1] ** 2) ** 0.5 / 2, rel=0.15)


def test_undefined_resamples_are_left_out() -> None:
    defined = np.array([True, False, True])
    assert interval(np.array([1.0, 99.0, 1.0]), defined) == (1.0, 1.0)
    assert interval(np.array([1.0]), np.array([False])) is None
    # One erroneous trace among three: a third of the resamples has none.
    ci95 = evaluate_processbench(
        first_errors([0, -1, -1], [0, -1, -1])
    ).average.processbench_f1.ci95
    assert ci95 == (1.0, 1.0)


def test_a_paired_difference_is_tighter_than_its_parts() -> None:
    traces = random_traces(300, 0.7)
    # The second labeler is the first, wrong on ten traces more.
    worse = [
        trace(t.gold, first(6), id=t.trace_id, problem=t.problem_id) if n < 10 else t
        for n, t in enumerate(traces)
    ]
    found = paired_difference(traces, list(reversed(worse)), "first_error_precision")
    assert found.difference == pytest.approx((found.first or 0) - (found.second or 0))
    assert found.difference is not None
    assert found.ci95 is not None
    assert 0 < found.ci95[0] < found.difference < found.ci95[1] < 0.05
    assert found.n_traces == 300
    same = paired_difference(traces, traces, "processbench_f1")
    assert (same.difference, same.ci95) == (0.0, (0.0, 0.0))


def test_the_p_value_is_small_where_the_interval_leaves_zero_out_and_only_there() -> None:
    traces = random_traces(300, 0.7)
    worse = [
        trace(t.gold, first(6), id=t.trace_id, problem=t.problem_id) if n < 10 else t
        for n, t in enumerate(traces)
    ]
    found = paired_difference(traces, worse, "location_accuracy")
    assert found.p_value == pytest.approx(2 / 2001)
    assert paired_difference(traces, traces, "location_accuracy").p_value == 1.0
    turned = paired_difference(worse, traces, "location_accuracy")
    assert turned.p_value == found.p_value
    assert turned.as_json()["difference"] == -(found.difference or 0)


@pytest.mark.slow
def test_equal_labelers_differ_as_rarely_as_the_test_says() -> None:
    rejected = 0
    for seed in range(200):
        one, two = random_traces(150, 0.6, seed=seed), random_traces(150, 0.6, seed=seed)
        draw = random.Random(seed)
        # Both are right with the same chance, independently: a difference is chance.
        said = [
            trace(t.gold, t.gold if draw.random() < 0.6 else first(6), id=t.trace_id) for t in two
        ]
        found = paired_difference(one, said, "location_accuracy", seed=seed, resamples=500)
        rejected += (found.p_value or 0) < 0.05
    assert 2 <= rejected <= 22


def test_the_whole_is_averaged_or_pooled_as_the_protocol_has_it() -> None:
    first_side = first_errors([0] * 10, [0] * 10, subset="a") + first_errors(
        [0] * 90, [1] * 90, subset="b"
    )
    second_side = [trace(t.gold, first(1), id=t.trace_id, subset=t.subset) for t in first_side]
    pooled = compare_by_measure(first_side, second_side, "error_accuracy", averaged=False)
    averaged = compare_by_measure(first_side, second_side, "error_accuracy", averaged=True)
    assert pooled.headline.difference == pytest.approx(0.1)
    assert averaged.headline.difference == pytest.approx(0.5)
    assert pooled.subsets["a"].difference == averaged.subsets["a"].difference == 1.0
    assert "error_accuracy of x - y: +0.500" in averaged.line("x", "y")
    nothing = compare_by_measure([], [], "error_accuracy", averaged=True)
    assert nothing.headline.difference is None
    assert nothing.line("x", "y") == "error_accuracy of x - y: not defined"


def test_a_difference_without_a_value_is_null() -> None:
    silent = [trace(first(0), None)]
    found = paired_difference(silent, [trace(first(0), first(0))], "first_error_precision")
    assert (found.first, found.second, found.difference, found.ci95) == (None, 1.0, None, None)


@pytest.mark.parametrize("measure", ["macro_f1", "step_accuracy"])
def test_step_measures_can_be_compared_too(measure: str) -> None:
    better = [trace(verdicts([1, -1]), verdicts([1, -1]), id=str(i)) for i in range(20)]
    worse = [trace(verdicts([1, -1]), verdicts([1, 1]), id=str(i)) for i in range(20)]
    found = paired_difference(better, worse, measure)
    assert found.first == 1.0
    assert found.ci95 is not None
    assert found.ci95[0] > 0.4


def test_only_the_same_traces_can_be_compared() -> None:
    with pytest.raises(InputError, match="same traces"):
        paired_difference(first_errors([0], [0]), first_errors([0, 0], [0, 0]), "macro_f1")
    with pytest.raises(InputError, match="Unknown measure 'f1'"):
        paired_difference([], [], "f1")
