"""Renders the report: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.bootstrap import RESAMPLES, Estimate
from evaluation.evaluated import EvaluatedTrace, step_calls
from evaluation.report_input import ExampleTrace, LabelerSection, ReportInput
from evaluation.wording import UNDEFINED, figure
from traces.evidence import Quote
from traces.first_error import first_error
from traces.labels import StepLabel, TraceLabel, Verdict

TEMPLATE = "report.html.j2"
MARK = 1.8
"""Width of the mark on a bar, in percent of the bar."""


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


def render_report(report: ReportInput) -> str:
    """The report as one HTML page: styles and figures inline, every text of the data escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, percent=_percent, configuration=_configuration)
    environment.globals.update(
        cells=example_cells,
        remarks=example_remarks,
        bar=bar_geometry,
        undefined=UNDEFINED,
        mark_width=MARK,
        resamples=RESAMPLES,
    )
    scored = [section for section in report.labelers if section.first_errors is not None]
    return environment.get_template(TEMPLATE).render(
        report=report, scored=scored, subsets=_subsets(scored)
    )


def example_cells(example: ExampleTrace, name: str, threshold: float) -> list[Cell]:
    """One cell per step of an example for one labeler."""
    label, trace = example.labels[name], example.context.trace
    n_steps = len(trace.steps)
    if label.abstention is not None:
        return [Cell("silent", label.abstention.reason.value, label.abstention.detail)] * n_steps
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


def example_remarks(example: ExampleTrace) -> Iterator[Remark]:
    """Reasoning and quotes of all labelers on an example, step by step."""
    for index in range(len(example.context.trace.steps)):
        for name, label in example.labels.items():
            step = _step(label, index)
            if step is not None and (step.reasoning or step.quote is not None):
                yield Remark(index + 1, name, step.reasoning or "", step.quote)


def _step(label: TraceLabel, index: int) -> StepLabel | None:
    return label.step_labels[index] if index < len(label.step_labels) else None


def bar_geometry(estimated: Estimate) -> dict[str, float] | None:
    """Where an estimate in [0, 1] and its interval stand on a bar from 0 to 100; None if undefined."""
    if estimated.value is None:
        return None
    low, high = estimated.ci95 or (estimated.value, estimated.value)
    # The mark is MARK wide and stays whole at both ends of the bar.
    mark = min(max(100 * estimated.value - MARK / 2, 0), 100 - MARK)
    return {
        "low": round(100 * low, 2),
        "width": round(100 * (high - low), 2),
        "mark": round(mark, 2),
    }


def _subsets(scored: list[LabelerSection]) -> list[str]:
    names = {
        name for section in scored if section.first_errors for name in section.first_errors.subsets
    }
    return sorted(names)


def _percent(value: float | None) -> str:
    return UNDEFINED if value is None else f"{100 * value:.1f}%"


def _configuration(section: LabelerSection) -> str:
    return json.dumps(section.labeler.config, indent=1, ensure_ascii=False, sort_keys=True)
