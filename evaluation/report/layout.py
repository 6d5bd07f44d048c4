"""Lays out charts and example traces; the templates draw them as inline SVG and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.best_of_n import BestOfNReport
from evaluation.diagnostics import DEPTHS, StepIndexRow
from evaluation.discrimination import ScoreReport
from evaluation.evaluated import EvaluatedTrace, EvaluatedTraces
from evaluation.frames import step_calls
from evaluation.report.input import CandidateSection, ExampleTrace, LabelerSection, ReportInput
from evaluation.wording import figure
from traces import Quote, StepLabel, TraceLabel, Verdict, first_error

WIDTH, HEIGHT = 360.0, 236.0
"""Size in drawing units; the page scales it."""
LEFT, RIGHT, TOP, BOTTOM = 32.0, 18.0, 24.0, 38.0
"""Margins for ticks and labels."""
MARKED = 24
"""Largest number of points that get a mark each."""
STYLES = 8
"""Number of line styles (color, dash, mark) of the page; further series reuse them."""

Point = tuple[float, float | None]


def environment() -> Environment:
    """Where the templates are rendered, with all texts escaped."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True, slots=True)
class Series:
    """One line."""

    name: str
    points: Sequence[Point]
    """By x; None leaves a gap."""
    style: int
    """From 0."""
    counts: Sequence[int] = ()
    """What each mark grows with; empty for marks of one size."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark of a line, in drawing units from the top left."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True)
class PlottedLine:
    """A series in drawing units."""

    name: str
    style: int
    """Below `STYLES`."""
    path: str
    """SVG path data; empty without defined points."""
    marks: tuple[Mark, ...]
    """Empty on long lines."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labeled position on an axis, in drawing units."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over two axes; y runs from 0 to 1."""

    id: str
    """Unique on the page."""
    title: str
    text: str
    """Description for screen readers."""
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_range: tuple[float, float] = (0.0, 1.0)
    x_ticks: Sequence[tuple[float, str]] = tuple((at / 4, f"{at / 4:g}") for at in range(5))
    """Positions and labels."""
    diagonal: bool = False
    """Whether to draw the line y = x, for calibration curves."""
    logarithmic: bool = False
    """Whether the x axis is logarithmic."""
    verticals: Sequence[tuple[float, int]] = ()
    """Positions and styles of vertical lines."""

    def x(self, value: float) -> float:
        """The horizontal position of an x value."""
        low, high = (self._scaled(end) for end in self.x_range)
        share = (self._scaled(value) - low) / (high - low) if high > low else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        """The vertical position of a y value in [0, 1]."""
        return round(TOP + (1 - value) * (HEIGHT - TOP - BOTTOM), 2)

    def x_places(self) -> list[Tick]:
        """Ticks of the horizontal axis."""
        return [Tick(self.x(at), text) for at, text in self.x_ticks]

    def y_places(self) -> list[Tick]:
        """Ticks of the vertical axis."""
        return [Tick(self.y(at / 4), f"{at / 4:g}") for at in range(5)]

    def lines(self) -> list[PlottedLine]:
        """The series in drawing units."""
        return [
            PlottedLine(one.name, one.style % STYLES, self._path(one), self._marks(one))
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
        sizes = [3.2] * len(series.points)
        if series.counts:
            most = max(series.counts)
            sizes = [round(2 + 5 * math.sqrt(n / most), 2) for n in series.counts]
        return tuple(
            Mark(self.x(x), self.y(y), size)
            for (x, y), size in zip(series.points, sizes, strict=True)
            if y is not None
        )


@dataclass(frozen=True, slots=True)
class BarPart:
    """One part of a bar."""

    kind: str
    """CSS class."""
    name: str
    count: int
    start: float
    """In percent of the bar."""
    width: float
    """In percent of the bar."""


def stacked(counts: Sequence[tuple[str, str, int]]) -> list[BarPart]:
    """A bar of parts (kind, name, count) that add up to 100 percent, without empty parts."""
    total = sum(count for *_, count in counts)
    parts, before = [], 0
    for kind, name, count in counts:
        if count:
            parts.append(
                BarPart(
                    kind=kind,
                    name=name,
                    count=count,
                    start=round(100 * before / total, 3),
                    width=round(100 * count / total, 3),
                )
            )
        before += count
    return parts


SWEEP_POINTS = 101
"""Of a threshold sweep on the page, enough for every visible bend."""
GOLD_STYLE = 7
"""Style of gold; labelers have the styles before it."""
BY_SCORE = ("min", "product", "last", "mean", "weighted_majority")
"""Measures of best-of-N that need scores."""
WITHOUT_SCORE = ("majority", "pass", "mean_accuracy")


def style_of(sections: Sequence[LabelerSection], name: str) -> int:
    """The style of a labeler, the same in every chart of a page."""
    names = [section.labeler.name for section in sections if not section.is_gold]
    return names.index(name) % GOLD_STYLE if name in names else GOLD_STYLE


def sweep_chart(sections: Sequence[LabelerSection]) -> Chart | None:
    """The first-error F1 of every scoring labeler at every threshold; None if none gives scores."""
    swept = [section for section in sections if section.sweep is not None]
    if not swept:
        return None
    series, notes = [], []
    for section in swept:
        sweep = section.sweep
        if sweep is None:
            continue
        name = section.labeler.name
        series.append(Series(name, sweep.thinned(SWEEP_POINTS), style_of(sections, name)))
        best = sweep.best()
        if best is not None:
            notes.append(f"{name} is highest at {best[0]:.3f} with {figure(best[1])}")
    return Chart(
        id="sweep",
        title="processbench_f1 by threshold",
        text="Lines of processbench_f1 over the threshold from 0 to 1. " + "; ".join(notes) + ".",
        x_label="threshold",
        y_label="processbench_f1, all traces pooled",
        series=series,
        verticals=[
            (section.threshold, style_of(sections, section.labeler.name)) for section in swept
        ],
    )


def calibration_charts(
    sections: tuple[LabelerSection, ...],
) -> list[tuple[LabelerSection, Chart]]:
    """The chart of every labeler with scores of steps that gold knows."""
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


def calibration_chart(
    section: LabelerSection, found: ScoreReport, style: int, number: int
) -> Chart:
    """The share of correct steps over the mean score by bin; marks grow with the bin's steps."""
    bins = [part for part in found.calibration if part.mean_score is not None]
    name = section.labeler.name
    return Chart(
        id=f"calibration-{number}",
        title=name,
        text=f"Share of correct steps by mean score of {name}, in {len(bins)} bins; the mean "
        f"distance from the diagonal is {figure(found.calibration_error)}.",
        x_label="mean score",
        y_label="share correct",
        series=[
            Series(
                name,
                [(part.mean_score or 0.0, part.share_correct) for part in bins],
                style,
                [part.n for part in bins],
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
    ends = [figure(longest[at].gold_incorrect) for at in (0, -1)]
    return Chart(
        id="step-index",
        title="Share of steps called incorrect",
        text=f"Lines over step 1 to {last}: {gold} begins at {ends[0]} and ends at {ends[1]}; "
        "the table has every figure.",
        x_label="step",
        y_label="share called incorrect",
        series=series,
        x_range=(1, max(last, 2)),
        x_ticks=_counted_ticks(last, open_ended=longest[-1].open_ended),
    )


def depth_chart(sections: Sequence[LabelerSection]) -> Chart | None:
    """Positions of the lowest scores as shares of traces; None if no labeler gives scores."""
    series, notes = [], []
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
        notes.append(f"{name} has it on the last step in {figure(found.share_at_last.value)}")
    if not series:
        return None
    return Chart(
        id="depth",
        title="Position of the lowest score",
        text=f"Share of traces by the position of their lowest score: {'; '.join(notes)}.",
        x_label="position in the trace, up to this share of its steps",
        y_label="share of traces",
        series=series,
        x_ticks=[(at / 5, f"{20 * at}%") for at in range(6)],
    )


def best_of_n_chart(section: CandidateSection, number: int) -> Chart:
    """Accuracy over N by all measures."""
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
    notes = ", ".join(f"{one.replace('_', ' ')} {figure(last[one].value)}" for one in measures)
    return Chart(
        id=f"best-of-n-{number}",
        title=f"{section.labeler} on {section.subset}",
        text=f"Accuracy over N from {ns[0]} to {ns[-1]}; at N = {ns[-1]}: {notes}.",
        x_label="N candidates",
        y_label="accuracy",
        series=series,
        x_range=(ns[0], max(ns[-1], ns[0] + 1)),
        x_ticks=[(n, str(n)) for n in ns],
        logarithmic=True,
    )


def _counted_ticks(last: int, *, open_ended: bool) -> list[tuple[float, str]]:
    """At most about eight whole numbers from 1; the last one gets a "+" if it covers later steps
    too."""
    gap = max(1, math.ceil(last / 8))
    at = list(range(1, last + 1, gap))
    if at[-1] != last:
        at = [tick for tick in at if last - tick >= gap / 2] + [last]
    return [(tick, f"{tick}+" if open_ended and tick == last else str(tick)) for tick in at]


MAX_STEPS = 60
"""Most steps of one example on the page; the rest is counted."""
MAX_REMARKS = 60
"""Most remarks of one example on the page; the rest is counted."""
MAX_CHARACTERS = 3000
"""Most characters of one text on the page; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One labeler's label of one step."""

    kind: str
    """CSS class: correct, incorrect, neutral or silent."""
    text: str
    detail: str = ""
    """Counts and score, or the detail of an abstention."""
    is_first_error: bool = False
    """Whether this is the labeler's first error."""


@dataclass(frozen=True, slots=True)
class Remark:
    """A labeler's reasoning and quote for a step."""

    step: int
    """1-based."""
    labeler: str
    reasoning: str
    """May be empty."""
    quote: Quote | None
    """None without a quote."""


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """One step with every labeler's label."""

    number: int
    """1-based."""
    text: str
    cells: tuple[Cell, ...]
    """One per labeler."""
    disputed: bool
    """Whether some labelers call it incorrect and some do not."""


@dataclass(frozen=True, slots=True)
class ExampleTable:
    """An example as the page shows it."""

    rows: tuple[ExampleRow, ...]
    """The first `MAX_STEPS` steps."""
    left_out: int
    """Number of further steps."""
    remarks: tuple[Remark, ...]
    """The first `MAX_REMARKS` remarks."""
    remarks_left_out: int
    """Number of further remarks."""


def example_table(example: ExampleTrace, report: ReportInput) -> ExampleTable:
    """Lay out an example, applying each labeler's threshold."""
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
        # The first cell alone gives the detail of an abstention on the whole trace.
        return [Cell("silent", reason, label.abstention.detail)] + [Cell("silent", reason)] * (
            n_steps - 1
        )
    found = first_error(label, threshold)
    seen = EvaluatedTraces.of(
        [
            EvaluatedTrace(
                trace_id=trace.id,
                problem_id=trace.problem_id,
                subset=trace.subset,
                n_steps=n_steps,
                gold=None,
                predicted=label,
            )
        ]
    )
    known, incorrect = step_calls(seen.frame, seen.predicted, threshold)
    calls = [bool(bad) if said else None for said, bad in zip(known, incorrect, strict=True)]
    steps = label.step_labels or (StepLabel(),) * n_steps
    return [
        _cell(step, incorrect=call, is_first_error=not found.missing and found.index == index)
        for index, (step, call) in enumerate(zip(steps, calls, strict=True))
    ]


def clipped(text: str) -> str:
    """A text, or its beginning and the number of further characters.

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


def _cell(step: StepLabel, *, incorrect: bool | None, is_first_error: bool) -> Cell:
    if incorrect is None:
        reason = step.abstention.reason.value if step.abstention else "not labeled"
        return Cell("silent", reason, step.abstention.detail if step.abstention else "")
    if step.verdict is Verdict.NEUTRAL:
        return Cell("neutral", "neutral")
    counts = f"{step.successes}/{step.continuations}" if step.continuations else ""
    score = "" if step.score is None else f"{step.score:.2f}"
    detail = ", ".join(part for part in (counts, score) if part)
    verdict = "incorrect" if incorrect else "correct"
    return Cell(verdict, verdict, detail, is_first_error)


def _step(label: TraceLabel, index: int) -> StepLabel | None:
    return label.step_labels[index] if index < len(label.step_labels) else None
