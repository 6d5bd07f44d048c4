"""The charts of the report as files for a paper: SVG, PDF, and a CSV of every point drawn."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html import unescape
from io import BytesIO
from typing import Any

from evaluation.report.input import ReportInput
from evaluation.report.layout import (
    HEIGHT,
    LEFT,
    WIDTH,
    Chart,
    best_of_n_chart,
    calibration_charts,
    depth_chart,
    environment,
    step_index_chart,
    sweep_chart,
)
from evaluation.wording import csv_text
from traces import InputError

FONT = "Vera"
"""A free font that reportlab brings along; a PDF embeds it, as publishers ask for."""
_ADVANCE, _KEY, _LINE = 7.0, 44.0, 16.0
"""Of the legend, in drawing units: at most this wide per character, the sample line and its gaps,
and the height of a row."""
_LONGEST = 44
"""Most characters of a name in the legend."""
_COLORS = (
    "#0072b2", "#c24e00", "#00775a", "#a3447f", "#8a6d00", "#3f6fd1", "#6d4bb0", "#161b24",
)  # fmt: skip
_DASHES = ("none", "7 3", "2 2.5", "9 3 2 3", "5 2 1 2 1 2", "12 4", "4 4", "none")
"""By style, as in report.css in light mode."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart as files."""

    name: str
    """Of its files, without an ending: letters, digits, `.`, `_` and `-`; unique in a report."""
    title: str
    svg: str
    pdf: bytes
    csv: str
    """A row per point of a line (`part` is `line`) and per threshold (`threshold`, without y), in
    the units of the axes; `n` counts the steps of a point whose mark grows with them."""
    not_in_font: str
    """Characters that the PDF cannot show; its readers see a box instead."""

    def files(self) -> dict[str, bytes]:
        """The content of every file by its name."""
        texts = {"svg": self.svg.encode(), "pdf": self.pdf, "csv": self.csv.encode()}
        return {f"{self.name}.{ending}": content for ending, content in texts.items()}


def require_figures() -> None:
    """Do nothing if figures can be drawn.

    Raises:
        InputError: the extra `figures` is not installed.
    """
    try:
        import svglib  # noqa: F401
    except ImportError as fault:
        raise InputError(
            "Figures as PDF need a package that is not installed.",
            where="--figures",
            remedy="pip install 'stepgold[figures]'",
        ) from fault


def report_figures(report: ReportInput) -> list[Figure]:
    """All charts of a report, those too that its page has no room for.

    Raises:
        InputError: the extra `figures` is not installed.
    """
    require_figures()
    found: list[Figure] = []
    for name, chart in _charts(report):
        svg = chart_svg(chart)
        found.append(
            Figure(
                name=_unique(name, {one.name for one in found}),
                title=chart.title,
                svg=svg,
                pdf=_pdf(svg),
                csv=csv_text(chart_points(chart)) + "\n",
                not_in_font=_not_in_font(svg),
            )
        )
    return found


def _charts(report: ReportInput) -> Iterator[tuple[str, Chart]]:
    """Every chart with the name of its files."""
    sweep = sweep_chart(report.labelers)
    if sweep is not None:
        yield "thresholds", sweep
    for section, chart in calibration_charts(report.labelers):
        yield f"calibration-{section.labeler.name}", chart
    by_index = step_index_chart(report.labelers, report.gold or "gold")
    if by_index is not None:
        yield "steps", by_index
    depths = depth_chart(report.labelers)
    if depths is not None:
        yield "lowest-score", depths
    for number, one in enumerate(report.candidates):
        yield f"best-of-n-{one.labeler}-{one.subset}", best_of_n_chart(one, number)


def _unique(name: str, taken: Collection[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80]
    known, found, number = {one.lower() for one in taken}, base, 2
    while found.lower() in known:
        found, number = f"{base}-{number}", number + 1
    return found


def chart_points(chart: Chart) -> list[dict[str, Any]]:
    """Every point of a chart as a row of its CSV; y is None in a gap of a line."""
    rows: list[dict[str, Any]] = []
    for one in chart.series:
        for at, (x, y) in enumerate(one.points):
            n = one.counts[at] if one.counts else None
            rows.append({"part": "line", "name": one.name, "x": x, "y": y, "n": n})
    # One threshold per line, in the same order, or none at all.
    for (x, _), one in zip(chart.verticals, chart.series, strict=False):
        rows.append({"part": "threshold", "name": one.name, "x": x, "y": None, "n": None})
    return [
        {key: row[key] for key in ("part", "name", "x", "y", *(("n",) if _counted(chart) else ()))}
        for row in rows
    ]


def _counted(chart: Chart) -> bool:
    return any(one.counts for one in chart.series)


def chart_svg(chart: Chart) -> str:
    """A chart with its legend as an SVG of its own, in the colors of the page in light mode."""
    legend, height = _legend(chart)
    text = (
        environment()
        .get_template("figure.svg.j2")
        .render(
            chart=chart, legend=legend, height=height, colors=_COLORS, dashes=_DASHES, font=FONT
        )
    )
    # XML has no escape for these.
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _legend(chart: Chart) -> tuple[list[dict[str, Any]], float]:
    """Name, style and place of each entry below the plot, and the height of the whole."""
    entries: list[dict[str, Any]] = []
    x, y = LEFT, HEIGHT + 10.0
    for line in chart.lines():
        name = line.name if len(line.name) <= _LONGEST else f"{line.name[: _LONGEST - 1]}…"
        width = _KEY + _ADVANCE * len(name)
        if entries and x + width > WIDTH:
            x, y = LEFT, y + _LINE
        entries.append({"name": name, "style": line.style, "x": x, "y": y})
        x += width
    return entries, y + 10.0


@cache
def _font() -> Mapping[int, Any]:
    """Make the font known to svglib; the characters that it has."""
    from reportlab.pdfbase import pdfmetrics
    from svglib.fonts import register_font

    register_font(FONT, "Vera.ttf")
    font: Any = pdfmetrics.getFont(FONT)
    found: Mapping[int, Any] = font.face.charToGlyph
    return found


def _pdf(svg: str) -> bytes:
    """The same drawing as PDF; texts stay texts."""
    from reportlab.graphics import renderPDF
    from svglib.svglib import svg2rlg

    _font()
    drawing = svg2rlg(BytesIO(svg.encode()))
    if drawing is None:
        raise RuntimeError("svglib cannot read the drawing of this chart")
    out = BytesIO()
    renderPDF.drawToFile(drawing, out)
    return out.getvalue()


def _not_in_font(svg: str) -> str:
    shown = unescape(re.sub("<[^>]*>", "", svg))
    return "".join(sorted({sign for sign in shown if sign > "~" and ord(sign) not in _font()}))
