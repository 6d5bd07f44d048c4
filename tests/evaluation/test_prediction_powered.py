"""The accuracy of a label set from few checked labels."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import label_accuracy


def covered(over: float, repetitions: int = 400) -> tuple[float, float, float]:
    """Coverage with and without predictions, and how much narrower the interval is.

    `over` distorts the predictions, which are calibrated at 1.
    """
    rng = np.random.default_rng(1)
    sure = rng.beta(1, 0.1, 4000)
    right = (rng.random(4000) < sure).astype(float)
    hits, narrower = np.zeros(2), []
    for _ in range(repetitions):
        at = rng.choice(4000, 200, replace=False)
        found = label_accuracy(right[at], sure[at] ** over, sure**over)
        for place, one in enumerate((found.tuned, found.alone)):
            assert one.ci95 is not None
            hits[place] += one.ci95[0] <= right.mean() <= one.ci95[1]
        assert found.narrower is not None
        narrower.append(found.narrower)
    return hits[0] / repetitions, hits[1] / repetitions, float(np.mean(narrower))


@pytest.mark.parametrize("over", [1.0, 0.3, 4.0])
def test_the_interval_holds_the_truth_whatever_predictions_are_worth(over: float) -> None:
    tuned, alone, narrower = covered(over)
    assert 0.93 <= tuned <= 0.98
    assert 0.93 <= alone <= 0.98
    assert narrower > 0.1


def test_predictions_without_a_meaning_change_nothing() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(300) < 0.8).astype(float)
    found = label_accuracy(right[:100], np.full(100, 0.5), np.full(300, 0.5))
    assert found.tuned == found.alone
    assert found.power == 0.0
    assert found.narrower == 0.0


def test_a_sample_without_an_error_has_an_interval() -> None:
    found = label_accuracy(np.ones(50), np.full(50, 0.9), np.full(1000, 0.9))
    assert found.tuned.value == 1.0
    assert found.tuned.ci95 is not None
    assert 0.9 < found.tuned.ci95[0] < 0.99


def test_all_labels_checked_leave_no_doubt() -> None:
    right = np.array([1.0, 0.0, 1.0, 1.0])
    found = label_accuracy(right, right, right)
    assert found.tuned.ci95 == (0.75, 0.75)
    assert found.checked == found.labels == 4


def test_one_label_is_too_few() -> None:
    found = label_accuracy(np.ones(1), np.ones(1), np.ones(9))
    assert found.as_json()["accuracy"] is None
