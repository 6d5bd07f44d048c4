"""Floors: what a labeler that reads nothing reaches on the same traces.

A figure says little without them: a score that only knows the position of a step, `1 - i/n`, equals
published process reward models on some benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation.evaluated import EvaluatedTrace, split_by_gold
from evaluation.measures import MEASURES, Floats, Measure, generator, rows_of
from evaluation.wording import figure, plain_table
from traces import StepLabel, TraceLabel

CHANCE = "chance"
CHANCE_DRAWS = 8
"""Random labelings over which the figures of `chance` are means."""
THRESHOLD = 0.5
"""At which the scores of `position` and `chance` become verdicts."""


def _no_error(trace: EvaluatedTrace) -> TraceLabel:
    return TraceLabel(trace.trace_id, first_error_given=True)


def _last_step(trace: EvaluatedTrace) -> TraceLabel:
    return TraceLabel(trace.trace_id, first_error_given=True, first_error_index=trace.n_steps - 1)


def _position(trace: EvaluatedTrace) -> TraceLabel:
    n = trace.n_steps
    return TraceLabel(trace.trace_id, tuple(StepLabel(score=1 - i / n) for i in range(n)))


_LABELS: Mapping[str, Callable[[EvaluatedTrace], TraceLabel]] = {
    "no-error": _no_error,
    "last-step": _last_step,
    "position": _position,
}
FLOORS = (*_LABELS, CHANCE)
"""Never an error; always the last step; the score 1 - i/n of step i (0-based) of n; a uniform
random score for each step. Scores are compared with `THRESHOLD`."""


def floor_traces(
    traces: Sequence[EvaluatedTrace], floor: str, *, seed: int = 0
) -> list[EvaluatedTrace]:
    """The traces with the labels of a floor.

    Args:
        floor: a name in `FLOORS`.
        seed: of `chance`; its labels do not depend on the order of the traces.
    """
    if floor != CHANCE:
        return [replace(trace, predicted=_LABELS[floor](trace)) for trace in traces]
    rng = generator(seed, CHANCE)
    drawn = {
        trace.trace_id: TraceLabel(
            trace.trace_id, tuple(StepLabel(score=float(x)) for x in rng.random(trace.n_steps))
        )
        for trace in sorted(traces, key=lambda trace: trace.trace_id)
    }
    return [replace(trace, predicted=drawn[trace.trace_id]) for trace in traces]


Figures = dict[str, float | None]
"""By measure; None where undefined."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The measures of one floor."""

    name: str
    overall: Figures
    subsets: Mapping[str, Figures]
    """In alphabetical order."""

    def as_json(self) -> dict[str, Any]:
        """The figures by measure, and those of the subsets."""
        return {
            **self.overall,
            "subsets": {name: dict(each) for name, each in self.subsets.items()},
        }


@dataclass(frozen=True, slots=True)
class FloorReport:
    """Every floor beside a labeler, on the same traces."""

    measure: str
    """The leading measure."""
    own: float | None
    """The labeler's headline figure by it; None if undefined."""
    floors: tuple[Floor, ...]
    """In the order of `FLOORS`."""

    def as_json(self) -> dict[str, Any]:
        """The key `floors` of `stepgold evaluate`."""
        return {floor.name: floor.as_json() for floor in self.floors}

    def highest(self) -> tuple[str, float] | None:
        """The floor with the highest headline figure; None if all are undefined."""
        known = [
            (value, floor.name)
            for floor in self.floors
            if (value := floor.overall[self.measure]) is not None
        ]
        if not known:
            return None
        value, name = max(known)
        return name, value

    def warning(self, labeler: str, own: float | None) -> str | None:
        """A sentence if a labeler's headline figure is not above the highest floor; else None."""
        highest = self.highest()
        if own is None or highest is None or own > highest[1]:
            return None
        return (
            f"{labeler} ({figure(own)}) is not above the floor {highest[0]}"
            f" ({figure(highest[1])}) by {self.measure}."
        )

    def lines(self, labeler: str) -> list[str]:
        """The floors as a table, and a warning if the labeler is not above all of them."""
        measures = list(self.floors[0].overall)
        rows = [
            (floor.name, *(figure(floor.overall[measure]) for measure in measures))
            for floor in self.floors
        ]
        lines = ["floors on the same traces", plain_table(("floor", *measures), rows)]
        warning = self.warning(labeler, self.own)
        return lines if warning is None else [*lines, warning]


def measure_floors(
    traces: Sequence[EvaluatedTrace],
    measures: Sequence[str],
    *,
    averaged: bool,
    not_pooled: frozenset[str] = frozenset(),
    threshold: float = THRESHOLD,
    seed: int = 0,
) -> FloorReport:
    """Every floor on the traces with usable gold, and the labeler's leading figure.

    Args:
        traces: with the labeler's labels.
        measures: names in `measures.MEASURES`, the leading one first.
        averaged: whether headline figures are the unweighted mean over subsets, not over all
            traces pooled.
        not_pooled: subsets that headline figures leave out.
        threshold: the labeler's; floors have `THRESHOLD`.
        seed: of `chance`, whose figures are means over `CHANCE_DRAWS` labelings.
    """
    usable = split_by_gold(traces).usable

    def figures(labeled: Sequence[EvaluatedTrace], at: float) -> tuple[Figures, dict[str, Figures]]:
        return _figures(labeled, measures, at, averaged=averaged, not_pooled=not_pooled)

    floors = []
    for name in FLOORS:
        draws = [
            figures(floor_traces(usable, name, seed=seed + draw), THRESHOLD)
            for draw in range(CHANCE_DRAWS if name == CHANCE else 1)
        ]
        subsets = {subset: _means([each[subset] for _, each in draws]) for subset in draws[0][1]}
        floors.append(Floor(name, _means([overall for overall, _ in draws]), subsets))
    own, _ = figures(usable, threshold)
    return FloorReport(measures[0], own[measures[0]], tuple(floors))


def _figures(
    traces: Sequence[EvaluatedTrace],
    measures: Sequence[str],
    threshold: float,
    *,
    averaged: bool,
    not_pooled: frozenset[str],
) -> tuple[Figures, dict[str, Figures]]:
    """Every measure as the headline, and by subset."""
    names = np.array([trace.subset for trace in traces], dtype=object)
    pooled = np.array([name not in not_pooled for name in names], dtype=bool)
    subsets: dict[str, Figures] = {name: {} for name in sorted(set(names))}
    rows: dict[Any, Floats] = {}
    overall: Figures = {}
    for measure in measures:
        known = MEASURES[measure]
        if known.row not in rows:
            rows[known.row] = rows_of(traces, known.row, threshold)
        counts = rows[known.row]
        for name, figures in subsets.items():
            figures[measure] = _value(known, counts[names == name])
        overall[measure] = (
            _mean([subsets[name][measure] for name in subsets if name not in not_pooled])
            if averaged
            else _value(known, counts[pooled])
        )
    return overall, subsets


def _value(measure: Measure, counts: Floats) -> float | None:
    value, defined = measure.formula(counts.sum(axis=0)[None, :])
    return float(value[0]) if defined[0] else None


def _means(draws: Sequence[Figures]) -> Figures:
    return {measure: _mean([draw[measure] for draw in draws]) for measure in draws[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    """None without values, or if one is None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
