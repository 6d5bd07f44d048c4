"""Charts as geometry: where lines, marks and ticks stand. The template draws them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
                    kind, name, count, round(100 * before / total, 3), round(100 * count / total, 3)
                )
            )
        before += count
    return parts
