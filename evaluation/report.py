"""Renders the report: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.bootstrap import Estimate
from evaluation.charts import Chart, Part, stacked
from evaluation.discrimination import ScoreReport
from evaluation.first_error_confusion import EXPLAINED, KINDS, FirstErrorConfusion
from evaluation.grounding import Grounding
from evaluation.report_charts import (
    BY_SCORE,
    WITHOUT_SCORE,
    best_of_n_chart,
    calibration_chart,
    depth_chart,
    step_index_chart,
    style_of,
    sweep_chart,
)
from evaluation.report_examples import clipped, example_table
from evaluation.report_input import ExampleTrace, LabelerSection, ReportInput
from evaluation.report_summary import best_labeler, sentences, warnings
from evaluation.wording import UNDEFINED, figure

TEMPLATES = Path(__file__).parent / "templates"
MARK = 1.8
"""Width of the mark on a bar, in percent of the bar."""
MAX_CANDIDATE_CHARTS = 8
"""Best-of-N charts on a page; the tables have all."""


def render_report(report: ReportInput) -> str:
    """The report as one HTML page: styles and figures inline, every text of the data escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def table(example: ExampleTrace) -> Any:
        return example_table(example, report)

    environment.filters.update(
        figure=figure, configuration=_configuration, clipped=clipped, table=table
    )
    environment.globals.update(
        bar=bar_geometry,
        heat=_heat,
        undefined=UNDEFINED,
        mark_width=MARK,
        kinds={kind: EXPLAINED[kind] for kind in KINDS},
        confusion_parts=_confusion_parts,
        grounding_parts=_grounding_parts,
        best_of_n_measures=(*BY_SCORE, *WITHOUT_SCORE),
    )
    shown = _shown(report)
    return environment.get_template("report.html.j2").render(
        report=report, contents=_contents(report, shown), **shown
    )


def bar_geometry(estimated: Estimate) -> dict[str, float] | None:
    """Where an estimate in [0, 1] and its interval stand on a bar from 0 to 100; None if undefined."""
    if estimated.value is None:
        return None

    def place(value: float) -> float:
        # Kappa may be below 0: the bar begins there.
        return 100 * min(max(value, 0.0), 1.0)

    low, high = (place(end) for end in estimated.ci95 or (estimated.value, estimated.value))
    # The mark is MARK wide and stays whole at both ends of the bar.
    mark = min(max(place(estimated.value) - MARK / 2, 0), 100 - MARK)
    return {"low": round(low, 2), "width": round(high - low, 2), "mark": round(mark, 2)}


def _shown(report: ReportInput) -> dict[str, Any]:
    """What the templates read beside the input itself."""
    scored = [section for section in report.labelers if section.first_errors is not None]
    return {
        "scored": scored,
        "subsets": sorted(
            {name for one in scored if one.first_errors for name in one.first_errors.subsets}
        ),
        "left_out": max(
            (
                one.first_errors.gold_unusable + one.first_errors.gold_missing
                for one in scored
                if one.first_errors is not None
            ),
            default=0,
        ),
        "leaders": {
            measure: best_labeler(scored, measure) for measure in ("processbench_f1", "macro_f1")
        },
        "hidden": [
            (one, one.diagnostics.false_positives)
            for one in scored
            if one.diagnostics is not None and one.diagnostics.false_positives.n
        ],
        "sweep": sweep_chart(report.labelers),
        "calibrated": _calibrated(report.labelers),
        "by_index": step_index_chart(report.labelers, report.gold or "gold"),
        "depths": depth_chart(report.labelers),
        "candidate_charts": [
            best_of_n_chart(one, number)
            for number, one in enumerate(report.candidates[:MAX_CANDIDATE_CHARTS])
        ],
        "grounded": [one for one in report.labelers if one.grounding is not None],
        "sentences": sentences(report),
        "warnings": warnings(report),
    }


def _calibrated(sections: tuple[LabelerSection, ...]) -> list[tuple[LabelerSection, Chart]]:
    found: list[tuple[LabelerSection, ScoreReport]] = [
        (section, section.diagnostics.step_scores)
        for section in sections
        if section.diagnostics is not None
        and section.diagnostics.step_scores is not None
        and section.diagnostics.step_scores.n_correct + section.diagnostics.step_scores.n_incorrect
    ]
    return [
        (
            section,
            calibration_chart(section, scores, style_of(sections, section.labeler.name), number),
        )
        for number, (section, scores) in enumerate(found)
    ]


def _contents(report: ReportInput, shown: dict[str, Any]) -> list[tuple[str, str]]:
    """The sections that the page has, by id, as the templates show them."""
    scored = bool(shown["scored"])
    known = [
        ("short", "In short", True),
        ("figures", "Figures", scored),
        ("first-errors", "First errors", scored),
        ("thresholds", "Thresholds", scored),
        ("calibration", "Scores as probabilities", scored and bool(shown["calibrated"])),
        ("positions", "Step by step", scored and shown["by_index"] is not None),
        ("best-of-n", "Choosing among candidates", bool(report.candidates)),
        ("agreement", "Agreement", report.comparison is not None),
        ("grounding", "Grounding", bool(shown["grounded"])),
        ("runs", "Models and cost", True),
        ("examples", "Where they part", bool(report.examples)),
    ]
    return [(id_, title) for id_, title, there in known if there]


def _confusion_parts(found: FirstErrorConfusion) -> list[Part]:
    return stacked([(kind, kind.replace("_", " "), found.counts[kind]) for kind in KINDS])


def _grounding_parts(found: Grounding) -> list[Part]:
    return stacked(
        [
            ("verified", "verified", found.verified),
            ("unverified", "unverified", found.unverified),
            ("absent", "absent", found.absent),
        ]
    )


def _heat(kappa: float | None) -> float:
    """How strongly a cell of the agreement matrix is coloured, in [0, 1]."""
    return 0.0 if kappa is None else round(min(max(kappa, 0.0), 1.0), 3)


def _configuration(section: LabelerSection) -> str:
    return json.dumps(section.labeler.config, indent=1, ensure_ascii=False, sort_keys=True)
