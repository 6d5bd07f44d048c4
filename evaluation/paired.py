"""Compares two labelers on the same traces by a paired bootstrap, resampling problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces, split_by_gold
from evaluation.frames import Counts, Floats, Index, Mask
from evaluation.measures import (
    MEASURES,
    RESAMPLES,
    Formula,
    Interval,
    Measure,
    by_problem,
    generator,
    interval,
    resampled_sums,
    subset_places,
)
from evaluation.wording import figures_json
from traces import InputError


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better one labeler is than another on the same traces."""

    first: float | None
    """The measure of the first labeler; None where undefined."""
    second: float | None
    difference: float | None
    """first - second; None if one is None."""
    ci95: Interval | None
    """95% interval of the difference, both resampled together; None if the difference is."""
    n_traces: int
    """Traces with usable gold."""
    p_value: float | None = None
    """Two-sided, in (0, 1]: twice the smaller share of resamples on one side of 0, with one added
    to each count so that it is never 0; None if the difference is."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return figures_json(self)


@dataclass(frozen=True, slots=True)
class PairedReport:
    """Two labelers by one measure: headline and subsets."""

    measure: str
    """A name in `measures.MEASURES`."""
    averaged: bool
    """Whether the headline is the unweighted mean over subsets, not over all traces pooled."""
    headline: PairedDifference
    subsets: Mapping[str, PairedDifference]
    """By subset name, in alphabetical order."""

    def as_json(self) -> dict[str, Any]:
        """The key `against` of `stepgold evaluate --against`, without the other labeler's name."""
        return {
            "measure": self.measure,
            "over": "mean of subsets" if self.averaged else "all traces pooled",
            **self.headline.as_json(),
            "subsets": {name: found.as_json() for name, found in self.subsets.items()},
        }

    def line(self, first: str, second: str) -> str:
        """The headline as text."""
        head = self.headline
        if head.difference is None or head.ci95 is None:
            return f"{self.measure} of {first} - {second}: not defined"
        p_value = "-" if head.p_value is None else f"{head.p_value:.4f}"
        return (
            f"{self.measure} of {first} - {second}: {head.difference:+.3f} "
            f"[{head.ci95[0]:+.3f}, {head.ci95[1]:+.3f}], p = {p_value}"
            " (paired bootstrap by problem)"
        )


def paired_difference(
    first: Iterable[EvaluatedTrace],
    second: Iterable[EvaluatedTrace],
    measure: str,
    *,
    threshold: float = 0.5,
    second_threshold: float | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedDifference:
    """Compare two labelers on all traces pooled.

    Args:
        first: the traces with the first labeler's labels.
        second: the same traces with the second's, in any order.
        measure: a name in `measures.MEASURES`.
        threshold: a step is correct iff its score is at least this.
        second_threshold: the second labeler's; None for the same.

    Raises:
        InputError: unknown measure, or the traces are not the same.
    """
    known = _known(measure)
    one, two, at = _matched(first, second)
    thresholds = (threshold, threshold if second_threshold is None else second_threshold)
    counts = by_problem(one.frame.problem[at], _rows(one, two, known, thresholds)[at])
    drawn = resampled_sums(counts, generator(seed), resamples)
    return _difference(known.formula, [counts.sum(axis=0)], [drawn], len(at))


def compare_by_measure(
    first: Iterable[EvaluatedTrace],
    second: Iterable[EvaluatedTrace],
    measure: str,
    *,
    averaged: bool,
    threshold: float = 0.5,
    second_threshold: float | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedReport:
    """Compare two labelers overall and by subset; arguments and errors as `paired_difference`.

    Args:
        averaged: whether the headline is the unweighted mean over subsets (ProcessBench), not
            over all traces pooled.
    """
    known = _known(measure)
    one, two, usable = _matched(first, second)
    thresholds = (threshold, threshold if second_threshold is None else second_threshold)
    rows, problem = _rows(one, two, known, thresholds), one.frame.problem
    subsets: dict[str, PairedDifference] = {}
    totals: list[Floats] = []
    draws: list[Floats] = []
    for name, at in subset_places(one, usable).items():
        counts = by_problem(problem[at], rows[at])
        totals.append(counts.sum(axis=0))
        draws.append(resampled_sums(counts, generator(seed, name), resamples))
        subsets[name] = _difference(known.formula, [totals[-1]], [draws[-1]], len(at))
    if averaged:
        whole = _difference(known.formula, totals, draws, len(usable))
    else:
        counts = by_problem(problem[usable], rows[usable])
        drawn = resampled_sums(counts, generator(seed), resamples)
        whole = _difference(known.formula, [counts.sum(axis=0)], [drawn], len(usable))
    return PairedReport(measure, averaged, whole, subsets)


def _known(measure: str) -> Measure:
    if measure not in MEASURES:
        raise InputError(
            f"Unknown measure '{measure}'.", remedy=f"use one of {', '.join(MEASURES)}"
        )
    return MEASURES[measure]


def _matched(
    first: Iterable[EvaluatedTrace], second: Iterable[EvaluatedTrace]
) -> tuple[EvaluatedTraces, EvaluatedTraces, Index]:
    """The traces, the second labeler's in the order of the first's, and the positions of those with
    usable gold."""
    one, two = EvaluatedTraces.of(first), EvaluatedTraces.of(second)
    if one.frame is two.frame and one.gold is two.gold:
        return one, two, np.flatnonzero(one.gold.present & ~one.gold.abstained)
    traces, others = split_by_gold(one).usable, split_by_gold(two).usable
    places = {id: place for place, id in enumerate(others.frame.ids)}
    if set(traces.frame.ids) != places.keys() or len(traces) != len(places):
        raise InputError("The two labelers were not measured on the same traces.")
    order = np.array([places[id] for id in traces.frame.ids], dtype=np.int64)
    return traces, others.take(order), np.arange(len(traces))


def _rows(
    one: EvaluatedTraces,
    two: EvaluatedTraces,
    measure: Measure,
    thresholds: tuple[float, float],
) -> Counts:
    """Counts by trace, the first labeler's columns before the second's."""
    return np.hstack(
        [measure.rows(side, at) for side, at in zip((one, two), thresholds, strict=True)]
    )


def _difference(
    formula: Formula, totals: Sequence[Floats], draws: Sequence[Floats], n_traces: int
) -> PairedDifference:
    """The difference of the means over groups; with one group, of the measure itself."""
    if not totals:
        return PairedDifference(first=None, second=None, difference=None, ci95=None, n_traces=0)
    half = totals[0].shape[-1] // 2

    def side(columns: slice) -> tuple[float | None, Floats, Mask]:
        values, defined = formula(np.stack(totals)[:, columns])
        drawn, drawn_defined = formula(np.stack(draws)[:, :, columns])
        value = float(values.mean()) if defined.all() else None
        return value, drawn.mean(axis=0), np.asarray(drawn_defined.all(axis=0))

    one, values, defined = side(slice(0, half))
    two, other_values, other_defined = side(slice(half, None))
    if one is None or two is None:
        return PairedDifference(
            first=one, second=two, difference=None, ci95=None, n_traces=n_traces
        )
    both = defined & other_defined
    differences = values - other_values
    return PairedDifference(
        first=one,
        second=two,
        difference=one - two,
        ci95=interval(differences, both),
        n_traces=n_traces,
        p_value=_p_value(differences[both]),
    )


def _p_value(differences: Floats) -> float | None:
    if not len(differences):
        return None
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))
