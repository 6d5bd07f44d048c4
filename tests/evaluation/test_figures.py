"""Charts as files: the CSV holds every point drawn, the PDF keeps its texts, names are safe."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace

import pypdfium2  # type: ignore[import-untyped]
import pytest

from evaluation.report.figures import Figure, chart_svg, report_figures
from evaluation.report.input import ReportInput
from evaluation.report.layout import Chart, Series, best_of_n_chart
from evaluation.report.render import render_report
from tests.evaluation.test_report import EVIL, candidates, full, section
from traces.labels import Labeler, LabelerKind

pytest.importorskip("svglib", reason="needs the extra figures")
SVG = "{http://www.w3.org/2000/svg}"
NUMBER = r"-?[\d.]+(?:e-?\d+)?"


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return {one.name: one for one in report_figures(full())}


def rows(figure: Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figure.csv)))


def placed(
    chart: ElementTree.Element, x: str, y: str, ticks: tuple[float, float]
) -> tuple[float, float]:
    """Where a point belongs by the labels of the axes, read from the drawing alone."""
    low, high = ticks
    left, right, top, bottom = 32.0, 342.0, 24.0, 198.0
    return left + (float(x) - low) / (high - low) * (right - left), bottom - float(y) * (
        bottom - top
    )


def points(path: str) -> Iterator[tuple[float, float]]:
    for x, y in re.findall(rf"[ML]({NUMBER}) ({NUMBER})", path):
        yield float(x), float(y)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("thresholds", (0, 1)),
        ("calibration-judge", (0, 1)),
        ("steps", (1, 4)),
        ("lowest-score", (0, 1)),
    ],
)
def test_the_csv_holds_every_point_drawn(
    figures: dict[str, Figure], name: str, ends: tuple[float, float]
) -> None:
    figure = figures[name]
    drawing = ElementTree.fromstring(figure.svg)
    drawn = [point for path in drawing.iter(f"{SVG}path") for point in points(path.get("d", ""))]
    lines = [row for row in rows(figure) if row["part"] == "line" and row["y"]]
    expected = [placed(drawing, row["x"], row["y"], ends) for row in lines]
    assert len(drawn) == len(expected) > 2
    for got, known in zip(drawn, expected, strict=True):
        assert got == pytest.approx(known, abs=0.02)
    verticals = [line for line in drawing.iter(f"{SVG}line") if line.get("class") == "threshold"]
    thresholds = [row for row in rows(figure) if row["part"] == "threshold"]
    assert len(verticals) == len(thresholds) == (2 if name == "thresholds" else 0)
    for line, row in zip(verticals, thresholds, strict=True):
        assert float(line.get("x1", "")) == pytest.approx(placed(drawing, row["x"], "0", ends)[0])


def test_a_gap_is_a_row_without_y() -> None:
    figure = {one.name: one for one in report_figures(replace(full(), candidates=()))}["steps"]
    assert all(row["x"] for row in rows(figure))
    chart = Chart("c", "t", "d", "x", "y", [Series("a", [(0.0, 0.5), (0.5, None), (1.0, 0.25)], 0)])
    assert re.findall("M", re.findall(' d="([^"]*)"', chart_svg(chart))[0]) == ["M", "M"]


def test_marks_that_grow_give_their_number_of_steps(figures: dict[str, Figure]) -> None:
    found = rows(figures["calibration-judge"])
    diagnosed = section("judge").diagnostics
    assert diagnosed is not None
    assert diagnosed.step_scores is not None
    known = diagnosed.step_scores.n_correct + diagnosed.step_scores.n_incorrect
    assert sum(int(row["n"]) for row in found) == known > 0
    assert "n" not in rows(figures["steps"])[0]


@pytest.mark.slow
def test_the_page_has_the_same_charts_and_the_files_have_all(figures: dict[str, Figure]) -> None:
    assert render_report(full()).count('class="plot"') == len(figures)
    many = replace(
        full(), candidates=tuple(replace(candidates(), labeler=f"l{at}") for at in range(11))
    )
    assert (
        sum(name.startswith("best-of-n") for name in (one.name for one in report_figures(many)))
        == 11
    )


def test_a_pdf_keeps_its_texts_and_embeds_its_font(figures: dict[str, Figure]) -> None:
    for figure in figures.values():
        drawing = ElementTree.fromstring(figure.svg)
        document = pypdfium2.PdfDocument(figure.pdf)
        shown = document[0].get_textpage().get_text_range()
        assert len(document) == 1
        for text in drawing.iter(f"{SVG}text"):
            assert str(text.text) in shown
        assert b"/FontFile2" in figure.pdf
        assert b"/Image" not in figure.pdf.replace(b"/ImageB", b"").replace(
            b"/ImageC", b""
        ).replace(b"/ImageI", b"")


def named(*names: str) -> ReportInput:
    sections = tuple(
        replace(section("x"), labeler=Labeler(name, LabelerKind.PRM, {})) for name in names
    )
    return replace(full(), labelers=sections, candidates=(), comparison=None)


def test_hostile_names_stay_texts_and_files_stay_in_the_folder() -> None:
    found = report_figures(named(f"../../etc/{EVIL}", "a/b", "a b", "A_b", "x\x00\x0by"))
    names = [one.name for one in found]
    assert len({name.lower() for name in names}) == len(names)
    assert all(
        re.fullmatch(r"[A-Za-z0-9._-]+", name) and not name.startswith(".") for name in names
    )
    for one in found:
        tags = {element.tag for element in ElementTree.fromstring(one.svg).iter()}
        assert f"{SVG}script" not in tags
    assert all(row["name"][:1] != "=" for row in rows(report_figures(named("=1+1"))[0]))


def test_characters_that_the_font_lacks_are_named() -> None:
    (thresholds, *_) = report_figures(named("模型", "café"))
    assert thresholds.not_in_font == "型模"
    assert "模型" in thresholds.svg


def test_long_names_and_many_lines_stay_within_the_drawing() -> None:
    chart = best_of_n_chart(candidates(), 0)
    names = [f"a labeler with quite a long name, number {at}" * 2 for at in range(5)]
    wide = replace(chart, series=[replace(chart.series[0], name=name) for name in names])
    drawing = ElementTree.fromstring(chart_svg(wide))
    _, _, width, height = map(float, drawing.get("viewBox", "").split())
    legend = [text for text in drawing.iter(f"{SVG}text") if "labeler" in str(text.text)]
    assert len(legend) == 5
    assert all(len(str(text.text)) <= 44 and str(text.text).endswith("…") for text in legend)
    assert all(float(text.get("y", "")) < height for text in legend)
    assert width == 360
