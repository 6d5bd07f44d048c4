"""Charts as geometry: where lines, marks and ticks stand. The template draws them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.best_of_n import BestOfNReport
from evaluation.diagnostics import DEPTHS, StepIndexRow
from evaluation.discrimination import ScoreReport
from evaluation.report.input import CandidateSection, LabelerSection
from evaluation.wording import figure

WIDTH, HEIGHT = 360.0, 236.0
"""Size of the drawing in its own units; the page scales it."""
LEFT, RIGHT, TOP, BOTTOM = 32.0, 18.0, 24.0, 38.0
"""Margins for ticks and labels."""
MARKED = 24
"""A line of so many points or fewer gets a mark on each."""
STYLES = 8
"""Colours with dash and mark that the page knows; further series start again."""

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """One line."""

    name: str
    """What it shows."""
    points: Sequence[Point]
    """By x; None leaves a gap."""
    style: int
    """Number of its colour, dash and mark, from 0."""
    sizes: Sequence[float] = ()
    """Radius of each mark in drawing units; empty for the usual size."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark of a line, placed."""

    x: float
    """From the left, in drawing units."""
    y: float
    """From the top."""
    radius: float
    """Half its width."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series, placed."""

    name: str
    """What it shows."""
    style: int
    """Number of its colour, dash and mark, below `STYLES`."""
    path: str
    """SVG path data; empty if no point is defined."""
    marks: tuple[Mark, ...]
    """Empty on long lines."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    """In drawing units."""
    text: str
    """Its label."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over two axes; y runs from 0 to 1."""

    id: str
    """Unique on the page."""
    title: str
    """What it is."""
    text: str
    """What can be seen, in words: for those who do not see it."""
    x_label: str
    """Under the horizontal axis."""
    y_label: str
    """Above the vertical one."""
    series: Sequence[Series]
    """The lines."""
    x_range: tuple[float, float] = (0.0, 1.0)
    """Ends of the horizontal axis."""
    x_ticks: Sequence[tuple[float, str]] = tuple((at / 4, f"{at / 4:g}") for at in range(5))
    """Places and labels on it."""
    diagonal: bool = False
    """Whether the line y = x is drawn, as a calibration curve needs it."""
    logarithmic: bool = False
    """Whether x is shown by its logarithm."""
    verticals: Sequence[tuple[float, int]] = ()
    """Places and styles of vertical lines."""

    def x(self, value: float) -> float:
        """Where an x stands."""
        low, high = (self._scaled(end) for end in self.x_range)
        share = (self._scaled(value) - low) / (high - low) if high > low else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        """Where a y in [0, 1] stands."""
        return round(TOP + (1 - value) * (HEIGHT - TOP - BOTTOM), 2)

    def x_places(self) -> list[Tick]:
        """Ticks of the horizontal axis."""
        return [Tick(self.x(at), text) for at, text in self.x_ticks]

    def y_places(self) -> list[Tick]:
        """Ticks of the vertical axis."""
        return [Tick(self.y(at / 4), f"{at / 4:g}") for at in range(5)]

    def lines(self) -> list[Line]:
        """The series, placed."""
        return [
            Line(one.name, one.style % STYLES, self._path(one), self._marks(one))
            for one in self.series
        ]

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value

    def _path(self, series: Series) -> str:
        parts, pen_up = [], True
        for x, y in series.points:
            if y is None:
                pen_up = True
                continue
            parts.append(f"{'M' if pen_up else 'L'}{self.x(x):g} {self.y(y):g}")
            pen_up = False
        return "".join(parts)

    def _marks(self, series: Series) -> tuple[Mark, ...]:
        if len(series.points) > MARKED:
            return ()
        sizes = series.sizes or [3.2] * len(series.points)
        return tuple(
            Mark(self.x(x), self.y(y), size)
            for (x, y), size in zip(series.points, sizes, strict=True)
            if y is not None
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bar."""

    kind: str
    """CSS class."""
    name: str
    """What it counts."""
    count: int
    """How many."""
    start: float
    """Where it begins, in percent of the bar."""
    width: float
    """In percent of the bar."""


def stacked(counts: Sequence[tuple[str, str, int]]) -> list[Part]:
    """A bar of parts (kind, name, count) that fill 100 percent together; empty parts are left out."""
    total = sum(count for *_, count in counts)
    parts, before = [], 0
    for kind, name, count in counts:
        if count:
            parts.append(
                Part(
                    kind=kind,
                    name=name,
                    count=count,
                    start=round(100 * before / total, 3),
                    width=round(100 * count / total, 3),
                )
            )
        before += count
    return parts


# --- The charts of the report, each from the figures that stand in its tables


SWEEP_POINTS = 101
"""Of a threshold sweep on the page: enough for every bend that can be seen."""
GOLD_STYLE = 7
"""Gold's line; labelers have the styles before it."""
BY_SCORE = ("min", "product", "last", "mean", "weighted_majority")
"""What a labeler's scores choose by; the other measures of best-of-N need none."""
WITHOUT_SCORE = ("majority", "pass", "mean_accuracy")


def style_of(sections: Sequence[LabelerSection], name: str) -> int:
    """The style of a labeler: the same in every chart of a page."""
    names = [section.labeler.name for section in sections if not section.is_gold]
    return names.index(name) % GOLD_STYLE if name in names else GOLD_STYLE


def sweep_chart(sections: Sequence[LabelerSection]) -> Chart | None:
    """The first-error F1 of every scoring labeler at every threshold; None if none gives scores."""
    swept = [section for section in sections if section.sweep is not None]
    if not swept:
        return None
    series, told = [], []
    for section in swept:
        sweep = section.sweep
        if sweep is None:
            continue
        name = section.labeler.name
        series.append(Series(name, sweep.thinned(SWEEP_POINTS), style_of(sections, name)))
        best = sweep.best()
        if best is not None:
            told.append(f"{name} is highest at {best[0]:.3f} with {figure(best[1])}")
    return Chart(
        id="sweep",
        title="processbench_f1 by threshold",
        text="Lines of processbench_f1 over the threshold from 0 to 1. " + "; ".join(told) + ".",
        x_label="threshold",
        y_label="processbench_f1, all traces pooled",
        series=series,
        verticals=[
            (section.threshold, style_of(sections, section.labeler.name)) for section in swept
        ],
    )


def calibration_chart(
    section: LabelerSection, found: ScoreReport, style: int, number: int
) -> Chart:
    """The share of correct steps over the mean score, by bins; large bins have large marks."""
    bins = [part for part in found.calibration if part.mean_score is not None]
    most = max((part.n for part in bins), default=1)
    name = section.labeler.name
    return Chart(
        id=f"calibration-{number}",
        title=name,
        text=f"Share of correct steps by mean score of {name}, in {len(bins)} bins; the mean distance "
        f"from the diagonal is {figure(found.calibration_error)}.",
        x_label="mean score",
        y_label="share correct",
        series=[
            Series(
                name,
                [(part.mean_score or 0.0, part.share_correct) for part in bins],
                style,
                [round(2 + 5 * math.sqrt(part.n / most), 2) for part in bins],
            )
        ],
        diagonal=True,
    )


def step_index_chart(sections: Sequence[LabelerSection], gold: str) -> Chart | None:
    """The share of steps called incorrect by step index, gold and labelers; None without gold."""
    known = [
        (section, section.diagnostics.step_index)
        for section in sections
        if section.diagnostics is not None and section.diagnostics.step_index
    ]
    if not known:
        return None
    longest: Sequence[StepIndexRow] = max((rows for _, rows in known), key=len)
    last = longest[-1].index + 1
    series = [Series(gold, [(row.index + 1, row.gold_incorrect) for row in longest], GOLD_STYLE)]
    series += [
        Series(
            section.labeler.name,
            [(row.index + 1, row.called_incorrect) for row in rows],
            style_of(sections, section.labeler.name),
        )
        for section, rows in known
    ]
    return Chart(
        id="step-index",
        title="Share of steps called incorrect",
        text=f"Lines over step 1 to {last}: {gold} begins at {figure(longest[0].gold_incorrect)} and ends "
        f"at {figure(longest[-1].gold_incorrect)}; the table has every figure.",
        x_label="step",
        y_label="share called incorrect",
        series=series,
        x_range=(1, max(last, 2)),
        x_ticks=_counted_ticks(last, open_ended=longest[-1].open_ended),
    )


def depth_chart(sections: Sequence[LabelerSection]) -> Chart | None:
    """Where in a trace the lowest score stands, as shares of traces; None if none gives scores."""
    series, told = [], []
    for section in sections:
        found = None if section.diagnostics is None else section.diagnostics.minimum
        if found is None or not found.n:
            continue
        name = section.labeler.name
        series.append(
            Series(
                name,
                [((at + 1) / DEPTHS, count / found.n) for at, count in enumerate(found.depths)],
                style_of(sections, name),
            )
        )
        told.append(f"{name} has it on the last step in {figure(found.share_at_last.value)}")
    if not series:
        return None
    return Chart(
        id="depth",
        title="Where the lowest score stands",
        text=f"Share of traces by the position of their lowest score: {'; '.join(told)}.",
        x_label="position in the trace, up to this share of its steps",
        y_label="share of traces",
        series=series,
        x_ticks=[(at / 5, f"{20 * at}%") for at in range(6)],
    )


def best_of_n_chart(section: CandidateSection, number: int) -> Chart:
    """Accuracy over N for everything that can choose."""
    report: BestOfNReport = section.report
    ns = list(report.by_n)
    measures = (*BY_SCORE, *WITHOUT_SCORE)
    series = [
        Series(
            measure.replace("_", " "),
            [(n, report.by_n[n].accuracy[measure].value) for n in ns],
            style,
        )
        for style, measure in enumerate(measures)
    ]
    last = report.by_n[ns[-1]].accuracy
    told = ", ".join(f"{one.replace('_', ' ')} {figure(last[one].value)}" for one in measures)
    return Chart(
        id=f"best-of-n-{number}",
        title=f"{section.labeler} on {section.subset}",
        text=f"Accuracy over N from {ns[0]} to {ns[-1]}; at N = {ns[-1]}: {told}.",
        x_label="N candidates",
        y_label="accuracy",
        series=series,
        x_range=(ns[0], max(ns[-1], ns[0] + 1)),
        x_ticks=[(n, str(n)) for n in ns],
        logarithmic=True,
    )


def _counted_ticks(last: int, *, open_ended: bool) -> list[tuple[float, str]]:
    """At most about eight whole numbers from 1 on; the last one says if it stands for all behind it."""
    gap = max(1, math.ceil(last / 8))
    at = list(range(1, last + 1, gap))
    if at[-1] != last:
        at = [tick for tick in at if last - tick >= gap / 2] + [last]
    return [(tick, f"{tick}+" if open_ended and tick == last else str(tick)) for tick in at]
