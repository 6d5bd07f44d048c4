"""Renders the report: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.discrimination import ScoreReport
from evaluation.evaluated import EvaluatedTrace, step_calls
from evaluation.figures import Estimate
from evaluation.report.charts import (
    BY_SCORE,
    WITHOUT_SCORE,
    Chart,
    Part,
    best_of_n_chart,
    calibration_chart,
    depth_chart,
    stacked,
    step_index_chart,
    style_of,
    sweep_chart,
)
from evaluation.report.input import (
    ExampleTrace,
    Grounding,
    LabelerSection,
    ReportInput,
    best_labeler,
    sentences,
    warnings,
)
from evaluation.step_words import EXPLAINED, KINDS, FirstErrorConfusion
from evaluation.wording import UNDEFINED, figure
from traces import Quote, StepLabel, TraceLabel, Verdict, first_error

MAX_STEPS = 60
"""Steps of one example on the page; the others are counted."""
MAX_REMARKS = 60
"""Remarks of one example on the page; the others are counted."""
MAX_CHARACTERS = 3000
"""Of one text on the page; the others are counted."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One labeler's word on one step, as it is shown."""

    kind: str
    """CSS class: correct, incorrect, neutral or silent."""
    text: str
    """The word."""
    detail: str = ""
    """What stands behind it: counts, or the reason of an abstention."""
    is_first_error: bool = False
    """Whether the labeler sees the first error here."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What a labeler wrote about a step: its reasoning and the quote it cites."""

    step: int
    """1-based, as shown."""
    labeler: str
    """Who wrote it."""
    reasoning: str
    """May be empty."""
    quote: Quote | None
    """None if nothing was cited."""


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """One step with every labeler's word on it."""

    number: int
    """1-based."""
    text: str
    """The step."""
    cells: tuple[Cell, ...]
    """One per labeler."""
    disputed: bool
    """Whether some call it incorrect and some do not."""


@dataclass(frozen=True, slots=True)
class ExampleTable:
    """An example as it is shown."""

    rows: tuple[ExampleRow, ...]
    """Its first `MAX_STEPS` steps."""
    left_out: int
    """Further steps."""
    remarks: tuple[Remark, ...]
    """The first `MAX_REMARKS` remarks."""
    remarks_left_out: int
    """Further ones."""


def example_table(example: ExampleTrace, report: ReportInput) -> ExampleTable:
    """Lay out an example, each labeler read by its own threshold."""
    limits = {section.labeler.name: section.threshold for section in report.labelers}
    columns = [example_cells(example, name, limits.get(name, 0.5)) for name in example.labels]
    rows = tuple(
        ExampleRow(
            index + 1,
            text,
            tuple(column[index] for column in columns),
            _disputed([column[index].kind for column in columns]),
        )
        for index, text in enumerate(example.context.trace.steps[:MAX_STEPS])
    )
    remarks = list(example_remarks(example))
    return ExampleTable(
        rows,
        len(example.context.trace.steps) - len(rows),
        tuple(islice(remarks, MAX_REMARKS)),
        max(0, len(remarks) - MAX_REMARKS),
    )


def example_cells(example: ExampleTrace, name: str, threshold: float) -> list[Cell]:
    """One cell per step of an example for one labeler."""
    label, trace = example.labels[name], example.context.trace
    n_steps = len(trace.steps)
    if label.abstention is not None:
        reason = label.abstention.reason.value
        # Why it is silent on the whole trace is said once.
        return [Cell("silent", reason, label.abstention.detail)] + [Cell("silent", reason)] * (
            n_steps - 1
        )
    found = first_error(label, threshold)
    calls = step_calls(
        EvaluatedTrace(trace.id, trace.problem_id, trace.subset, n_steps, None, label),
        label,
        threshold,
    )
    steps = label.step_labels or (StepLabel(),) * n_steps
    return [
        _cell(step, call, is_first_error=not found.missing and found.index == index)
        for index, (step, call) in enumerate(zip(steps, calls, strict=True))
    ]


def clipped(text: str) -> str:
    """A text, or its beginning and how much more there is.

    >>> clipped("short")
    'short'
    """
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]} … [{len(text) - MAX_CHARACTERS:,} more characters]"


def example_remarks(example: ExampleTrace) -> Iterator[Remark]:
    """Reasoning and quotes of all labelers on an example, step by step."""
    for index in range(len(example.context.trace.steps)):
        for name, label in example.labels.items():
            step = _step(label, index)
            if step is not None and (step.reasoning or step.quote is not None):
                yield Remark(index + 1, name, step.reasoning or "", step.quote)


def _disputed(kinds: list[str]) -> bool:
    return "incorrect" in kinds and ("correct" in kinds or "neutral" in kinds)


def _cell(step: StepLabel, incorrect: bool | None, *, is_first_error: bool) -> Cell:
    if incorrect is None:
        reason = step.abstention.reason.value if step.abstention else "not labelled"
        return Cell("silent", reason, step.abstention.detail if step.abstention else "")
    if step.verdict is Verdict.NEUTRAL:
        return Cell("neutral", "neutral")
    counts = f"{step.successes}/{step.continuations}" if step.continuations else ""
    score = "" if step.score is None else f"{step.score:.2f}"
    detail = ", ".join(part for part in (counts, score) if part)
    word = "incorrect" if incorrect else "correct"
    return Cell(word, word, detail, is_first_error)


def _step(label: TraceLabel, index: int) -> StepLabel | None:
    return label.step_labels[index] if index < len(label.step_labels) else None


# --- Renders the report: one HTML page that needs nothing but itself


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
