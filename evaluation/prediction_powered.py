"""The accuracy of a label set from few checked labels and a prediction for all of them.

The prediction-powered estimate with power tuning (Angelopoulos, Duchi and Zrnic 2023, "PPI++:
Efficient Prediction-Powered Inference", arXiv 2311.01453). The label set is finite and known, so
that the variance is that of the difference estimator of survey sampling (Särndal, Swensson and
Wretman 1992, chapter 6), with its finite population correction. It is valid whatever the
predictions are worth: bad ones make the interval no narrower, and never wrong. The interval is
Wilson's (1927), because label sets have few wrong labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.measures import Estimate

Floats = NDArray[np.float64]

Z = 1.959963984540054
"""Half the width of a 95% interval in standard errors."""


@dataclass(frozen=True, slots=True)
class LabelAccuracy:
    """The share of the labels of a set that are right."""

    tuned: Estimate
    """From the checked labels and the predictions, with a 95% interval."""
    alone: Estimate
    """From the checked labels alone."""
    checked: int
    """Labels of the random sample."""
    labels: int
    """Labels of the set."""
    power: float
    """How much the predictions count: 0 not at all, 1 fully."""

    @property
    def narrower(self) -> float | None:
        """By which share the interval is narrower than without predictions; None if undefined."""
        if self.tuned.ci95 is None or self.alone.ci95 is None:
            return None
        widths = [high - low for low, high in (self.tuned.ci95, self.alone.ci95)]
        return 1 - widths[0] / widths[1] if widths[1] else None

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        ci95 = self.tuned.ci95
        return {
            "accuracy": self.tuned.value,
            "ci95": None if ci95 is None else list(ci95),
            "alone": self.alone.value,
            "alone_ci95": None if self.alone.ci95 is None else list(self.alone.ci95),
            "checked": self.checked,
            "labels": self.labels,
            "power": round(self.power, 4),
            "narrower": self.narrower,
        }


def label_accuracy(right: Floats, predicted: Floats, everywhere: Floats) -> LabelAccuracy:
    """The accuracy of a label set from a simple random sample of its labels.

    Args:
        right: (n,) 1 where a checked label is right, else 0.
        predicted: (n,) what was predicted for them, such as the probability of being right.
        everywhere: (N,) the predictions for all labels of the set, checked ones included.
    """
    n, size = len(right), len(everywhere)
    if n < 2:
        nothing = Estimate(None, None)
        return LabelAccuracy(tuned=nothing, alone=nothing, checked=n, labels=size, power=0.0)
    spread = float(np.var(predicted, ddof=1))
    power = float(np.cov(right, predicted)[0, 1]) / spread if spread > 0 else 0.0
    power = min(1.0, max(0.0, power))
    shift = power * (float(everywhere.mean()) - float(predicted.mean()))
    return LabelAccuracy(
        tuned=_estimate(right - power * predicted, float(right.mean()) + shift, right, size),
        alone=_estimate(right, float(right.mean()), right, size),
        checked=n,
        labels=size,
        power=power,
    )


def _estimate(residual: Floats, value: float, right: Floats, size: int) -> Estimate:
    """The value with Wilson's interval for the number of labels that the sample is worth."""
    n, value = len(right), min(1.0, max(0.0, value))
    plain, left = float(np.var(right)), 1 - n / size
    unexplained = min(1.0, float(np.var(residual)) / plain) if plain else 1.0
    if left <= 0 or unexplained == 0:
        return Estimate(value, (value, value))
    worth = n / (unexplained * left)
    centre = (value + Z * Z / (2 * worth)) / (1 + Z * Z / worth)
    half = Z * math.sqrt(value * (1 - value) / worth + (Z / (2 * worth)) ** 2)
    half /= 1 + Z * Z / worth
    return Estimate(value, (max(0.0, centre - half), min(1.0, centre + half)))
