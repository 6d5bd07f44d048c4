"""Step scores without a threshold: against scikit-learn, a bootstrap, and the definitions."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (  # type: ignore[import-untyped]
    average_precision_score,
    brier_score_loss,
    roc_auc_score,
)

from evaluation import discrimination
from evaluation.discrimination import (
    ScoredSteps,
    auroc,
    auroc_with_interval,
    average_precision,
    average_precision_of_incorrect,
    calibration_curve,
    calibration_error,
    score_report,
    scored_steps,
)
from tests.evaluation.builders import ABSTAINED, first, scores, trace, verdicts

pairs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1), st.booleans()),
    max_size=30,
)


@settings(max_examples=30, deadline=None)
@given(pairs)
def test_agrees_with_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    said = np.array([score for score, _ in rows])
    good = np.array([right for _, right in rows], dtype=bool)
    both = good.any() and not good.all()
    expected = float(roc_auc_score(good, said)) if both else None
    assert auroc(said, good) == (None if expected is None else pytest.approx(expected))
    steps = ScoredSteps(said, good, np.arange(len(rows)), 0)
    report = score_report(steps, resamples=10)
    assert report.auroc.value == (None if expected is None else pytest.approx(expected))
    bad = ~good
    precision = float(average_precision_score(bad, -said)) if bad.any() else None
    assert report.average_precision_incorrect.value == (
        None if precision is None else pytest.approx(precision)
    )
    brier = float(brier_score_loss(good, said, pos_label=True)) if rows else None
    assert report.brier.value == (None if brier is None else pytest.approx(brier))
    assert average_precision(said, good) == (
        pytest.approx(float(average_precision_score(good, said))) if good.any() else None
    )


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(pairs)
def test_the_calibration_curve_holds_every_step_once(rows: list[tuple[float, bool]]) -> None:
    said = np.array([score for score, _ in rows])
    good = np.array([right for _, right in rows], dtype=bool)
    bins = calibration_curve(said, good)
    assert sum(part.n for part in bins) == len(rows)
    for index, part in enumerate(bins):
        held = [
            (score, right)
            for score, right in rows
            if part.low <= score < part.high or (index == len(bins) - 1 and score == 1.0)
        ]
        assert part.n == len(held)
        if held:
            assert part.mean_score == pytest.approx(sum(s for s, _ in held) / len(held))
            assert part.share_correct == pytest.approx(sum(r for _, r in held) / len(held))
        else:
            assert (part.mean_score, part.share_correct) == (None, None)
    error = calibration_error(bins)
    assert (error is None) == (not rows)


def test_a_calibrated_labeler_has_no_calibration_error() -> None:
    bins = calibration_curve(np.array([0.25] * 4), np.array([True, False, False, False]))
    assert calibration_error(bins) == pytest.approx(0)
    assert calibration_error(calibration_curve(np.array([1.0]), np.array([False]))) == 1.0


def clustered(problems: int, seed: int) -> ScoredSteps:
    draw = random.Random(seed)
    rows = []
    for problem in range(problems):
        shift = draw.gauss(0, 0.15)
        for _ in range(draw.randint(2, 10)):
            good = draw.random() < 0.7
            score = min(1.0, max(0.0, draw.gauss(0.6 if good else 0.45, 0.15) + shift))
            rows.append((score, good, problem))
    said, good_steps, owner = (np.array(column) for column in zip(*rows, strict=True))
    return ScoredSteps(said, good_steps, owner, 0)


@pytest.mark.slow
def test_the_interval_of_auroc_is_that_of_a_bootstrap_by_problem() -> None:
    steps = clustered(150, 3)
    found = auroc_with_interval(steps)
    assert found.ci95 is not None
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(steps.problem == problem) for problem in range(150)]
    drawn = []
    for _ in range(600):
        rows = np.concatenate([members[problem] for problem in rng.integers(0, 150, 150)])
        drawn.append(auroc(steps.score[rows], steps.correct[rows]))
    low, high = np.percentile(np.array(drawn, dtype=float), (2.5, 97.5))
    width = high - low
    assert found.ci95[0] == pytest.approx(low, abs=0.15 * width)
    assert found.ci95[1] == pytest.approx(high, abs=0.15 * width)


def test_four_equal_steps_of_one_problem_are_worth_one() -> None:
    one = clustered(60, 1)
    alone = ScoredSteps(one.score, one.correct, np.arange(len(one)), 0)
    score, correct = one.score.repeat(4), one.correct.repeat(4)
    together = ScoredSteps(score, correct, np.arange(len(one)).repeat(4), 0)
    apart = ScoredSteps(score, correct, np.arange(4 * len(one)), 0)
    widths = []
    for steps in (alone, together, apart):
        found = auroc_with_interval(steps).ci95
        assert found is not None
        widths.append(found[1] - found[0])
    assert widths[1] == pytest.approx(widths[0])
    assert widths[2] == pytest.approx(widths[0] / 2, rel=0.02)


def test_one_problem_gives_no_interval() -> None:
    found = auroc_with_interval(
        ScoredSteps(np.array([0.1, 0.9]), np.array([False, True]), np.array([0, 0]), 0)
    )
    assert (found.value, found.ci95) == (1.0, None)


def test_only_steps_with_truth_and_score_are_read() -> None:
    steps = scored_steps(
        [
            trace(verdicts([1, 0, -1]), scores([0.9, 0.1, None]), id="a"),
            trace(first(1), scores([0.8, 0.2, 0.3]), id="b"),
            trace(verdicts([1]), None, id="c"),
            trace(ABSTAINED, scores([0.5]), id="d"),
            trace(verdicts([1]), verdicts([1]), id="e"),
        ]
    )
    assert list(steps.score) == [0.9, 0.8, 0.2]
    assert list(steps.correct) == [True, True, False]
    assert list(steps.problem) == [0, 1, 1]
    assert steps.unscored == 3


def test_scores_of_another_length_are_never_lined_up() -> None:
    with pytest.raises(ValueError, match="3 step labels for the 2 steps of trace 't'"):
        scored_steps([trace(verdicts([1, 1]), scores([0.5, 0.5, 0.5]))])


def test_the_influence_on_average_precision_is_its_derivative() -> None:
    """Against scikit-learn with a little more weight on one problem's steps."""
    rng = np.random.default_rng(5)
    n, problems = 300, 40
    problem = np.sort(rng.integers(0, problems, n))
    problem = np.unique(problem, return_inverse=True)[1].reshape(-1)
    correct = rng.random(n) < 0.7
    score = np.clip(rng.normal(0.4 + 0.3 * correct, 0.25), 0, 1).round(1).astype(np.float64)
    found = average_precision_of_incorrect(ScoredSteps(score, correct, problem, 0))
    little = 1e-6
    moved = []
    base = float(average_precision_score(~correct, -score))
    for number in range(int(problem.max()) + 1):
        weight = np.where(problem == number, 1 + little, 1.0)
        moved.append(
            (float(average_precision_score(~correct, -score, sample_weight=weight)) - base) / little
        )
    count = len(moved)
    half = 1.959963984540054 * float(np.sqrt(count / (count - 1) * np.square(moved).sum()))
    assert found.value == pytest.approx(base)
    assert found.ci95 == pytest.approx((base - half, base + half), abs=1e-5)


@pytest.mark.slow
def test_the_interval_of_average_precision_is_near_the_bootstraps() -> None:
    rng = np.random.default_rng(6)
    problem = np.repeat(np.arange(120), 5)
    correct = rng.random(600) < 0.75
    score = np.clip(rng.normal(0.35 + 0.3 * correct, 0.25), 0, 1)
    found = average_precision_of_incorrect(ScoredSteps(score, correct, problem, 0))
    drawn = []
    for _ in range(400):
        weight = np.bincount(rng.integers(0, 120, 120), minlength=120)[problem].astype(float)
        drawn.append(float(average_precision_score(~correct, -score, sample_weight=weight)))
    assert found.ci95 is not None
    assert found.ci95 == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.03)


def test_average_precision_has_no_interval_within_one_problem() -> None:
    correct = np.array([True, False, False])
    steps = ScoredSteps(np.array([0.9, 0.2, 0.4]), correct, np.array([0, 1, 1]), 0)
    assert average_precision_of_incorrect(steps).ci95 is None
    assert average_precision_of_incorrect(steps).value == 1.0


def test_measures_do_not_depend_on_how_many_steps_are_worked_on_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = np.random.default_rng(3)
    fine = draw.random(200)
    for score in (fine, fine.round(1), np.where(fine < 0.6, 1.0, fine), np.zeros(200)):
        correct = draw.random(200) < 0.5
        steps = ScoredSteps(score, correct, np.sort(draw.integers(0, 30, 200)), 0)
        whole = score_report(steps, resamples=20)
        with monkeypatch.context() as patch:
            patch.setattr(discrimination, "_BLOCK", 7)
            parts = score_report(steps, resamples=20)
        assert parts.auroc.value == whole.auroc.value == auroc(score, correct)
        for one, other in (
            (parts.auroc.ci95, whole.auroc.ci95),
            (parts.average_precision_incorrect.ci95, whole.average_precision_incorrect.ci95),
        ):
            assert one == pytest.approx(other, abs=1e-12)
        assert parts.average_precision_incorrect.value == pytest.approx(
            average_precision_score(~correct, 1 - score), abs=1e-12
        )
