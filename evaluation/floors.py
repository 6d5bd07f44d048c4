"""Floors: what a labeler that reads nothing reaches on the same traces.

A figure says little without them: a score that only knows the position of a step, `1 - i/n`, equals
published process reward models on some benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces, split_by_gold
from evaluation.frames import Counts, Floats, Index, LabelFrame, TraceFrame
from evaluation.measures import MEASURES, Measure, generator, subset_places
from evaluation.wording import FigureTable, figure

CHANCE = "chance"
_BLOCK = 10_000
"""Traces that are drawn at once."""
CHANCE_DRAWS = 8
"""Random labelings over which the figures of `chance` are means."""
THRESHOLD = 0.5
"""At which the scores of `position` and `chance` become verdicts."""


def _named(frame: TraceFrame, index: Index | None) -> LabelFrame:
    """Labels that give a first error only; None is no error."""
    labels = LabelFrame.empty(frame, scores=False)
    everywhere = np.ones(len(frame), np.bool_)
    named = labels.named if index is None else everywhere
    return replace(
        labels,
        present=everywhere,
        given=everywhere,
        named=named,
        index=labels.index if index is None else index,
    )


def _scored(frame: TraceFrame, score: Floats) -> LabelFrame:
    """Labels with a score on every step."""
    labels = LabelFrame.empty(frame, scores=False)
    return replace(
        labels,
        present=np.ones(len(frame), np.bool_),
        scored=np.ones(len(score), np.bool_),
        score=score,
    )


def _no_error(frame: TraceFrame) -> LabelFrame:
    return _named(frame, None)


def _last_step(frame: TraceFrame) -> LabelFrame:
    return _named(frame, frame.n_steps - 1)


def _position(frame: TraceFrame) -> LabelFrame:
    score = np.empty(int(frame.starts[-1]))
    for traces, steps in frame.blocks():
        lengths = frame.n_steps[traces]
        score[steps] = 1 - frame.position(traces) / np.repeat(lengths, lengths)
    return _scored(frame, score)


_LABELS: Mapping[str, Callable[[TraceFrame], LabelFrame]] = {
    "no-error": _no_error,
    "last-step": _last_step,
    "position": _position,
}
FLOORS = (*_LABELS, CHANCE)
"""Never an error; always the last step; the score 1 - i/n of step i (0-based) of n; a uniform
random score for each step. Scores are compared with `THRESHOLD`."""


def _by_id(frame: TraceFrame) -> Index:
    """Positions of the traces in the order of their ids."""
    return np.array(sorted(range(len(frame)), key=frame.ids.__getitem__), dtype=np.int64)


def floor_traces(
    traces: Iterable[EvaluatedTrace], floor: str, *, seed: int = 0, order: Index | None = None
) -> EvaluatedTraces:
    """The traces with the labels of a floor.

    Args:
        floor: a name in `FLOORS`.
        seed: of `chance`; its labels do not depend on the order of the traces.
        order: the positions of the traces in the order of their ids, where they are known.
    """
    known = EvaluatedTraces.of(traces)
    frame = known.frame
    if floor != CHANCE:
        return known.labeled(_LABELS[floor](frame))
    if order is None:
        order = _by_id(frame)
    score, rng = np.empty(int(frame.n_steps.sum())), generator(seed, CHANCE)
    for start in range(0, len(order), _BLOCK):
        steps = frame.steps_at(order[start : start + _BLOCK])
        score[steps] = rng.random(len(steps))
    return known.labeled(_scored(frame, score))


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

    def table(self) -> FigureTable:
        """One line per floor."""
        measures = list(self.floors[0].overall)
        rows = [
            (floor.name, *(figure(floor.overall[measure]) for measure in measures))
            for floor in self.floors
        ]
        return FigureTable(title="floors on the same traces", head=("floor", *measures), rows=rows)

    def lines(self, labeler: str) -> list[str]:
        """The floors as a table, and a warning if the labeler is not above all of them."""
        lines = [self.table().plain()]
        warning = self.warning(labeler, self.own)
        return lines if warning is None else [*lines, warning]


def measure_floors(
    traces: Iterable[EvaluatedTrace],
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

    def figures(labeled: EvaluatedTraces, at: float) -> tuple[Figures, dict[str, Figures]]:
        return _figures(labeled, measures, at, averaged=averaged, not_pooled=not_pooled)

    floors, order = [], _by_id(usable.frame)
    for name in FLOORS:
        draws = [
            figures(floor_traces(usable, name, seed=seed + draw, order=order), THRESHOLD)
            for draw in range(CHANCE_DRAWS if name == CHANCE else 1)
        ]
        subsets = {subset: _means([each[subset] for _, each in draws]) for subset in draws[0][1]}
        floors.append(Floor(name, _means([overall for overall, _ in draws]), subsets))
    own, _ = figures(usable, threshold)
    return FloorReport(measures[0], own[measures[0]], tuple(floors))


def _figures(
    traces: EvaluatedTraces,
    measures: Sequence[str],
    threshold: float,
    *,
    averaged: bool,
    not_pooled: frozenset[str],
) -> tuple[Figures, dict[str, Figures]]:
    """Every measure as the headline, and by subset."""
    places = subset_places(traces)
    pooled = np.ones(len(traces), np.bool_)
    for name in not_pooled & places.keys():
        pooled[places[name]] = False
    subsets: dict[str, Figures] = {name: {} for name in places}
    rows: dict[Any, Counts] = {}
    overall: Figures = {}
    for measure in measures:
        known = MEASURES[measure]
        if known.rows not in rows:
            rows[known.rows] = known.rows(traces, threshold)
        counts = rows[known.rows]
        for name, figures in subsets.items():
            figures[measure] = _value(known, counts[places[name]])
        overall[measure] = (
            _mean([subsets[name][measure] for name in subsets if name not in not_pooled])
            if averaged
            else _value(known, counts[pooled])
        )
    return overall, subsets


def _value(measure: Measure, counts: Counts) -> float | None:
    value, defined = measure.formula(counts.sum(axis=0, dtype=np.float64)[None, :])
    return float(value[0]) if defined[0] else None


def _means(draws: Sequence[Figures]) -> Figures:
    return {measure: _mean([draw[measure] for draw in draws]) for measure in draws[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    """None without values, or if one is None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
