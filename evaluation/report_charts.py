"""The charts of the report, each from the figures that stand in its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.best_of_n import BestOfNReport
from evaluation.charts import Chart, Series
from evaluation.discrimination import ScoreReport
from evaluation.positions import DEPTHS, StepIndexRow
from evaluation.report_input import CandidateSection, LabelerSection
from evaluation.wording import figure

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
        "sweep",
        "processbench_f1 by threshold",
        "Lines of processbench_f1 over the threshold from 0 to 1. " + "; ".join(told) + ".",
        "threshold",
        "processbench_f1, all traces pooled",
        series,
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
        f"calibration-{number}",
        name,
        f"Share of correct steps by mean score of {name}, in {len(bins)} bins; the mean distance "
        f"from the diagonal is {figure(found.calibration_error)}.",
        "mean score",
        "share correct",
        [
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
        "step-index",
        "Share of steps called incorrect",
        f"Lines over step 1 to {last}: {gold} begins at {figure(longest[0].gold_incorrect)} and ends "
        f"at {figure(longest[-1].gold_incorrect)}; the table has every figure.",
        "step",
        "share called incorrect",
        series,
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
        "depth",
        "Where the lowest score stands",
        f"Share of traces by the position of their lowest score: {'; '.join(told)}.",
        "position in the trace, up to this share of its steps",
        "share of traces",
        series,
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
        f"best-of-n-{number}",
        f"{section.labeler} on {section.subset}",
        f"Accuracy over N from {ns[0]} to {ns[-1]}; at N = {ns[-1]}: {told}.",
        "N candidates",
        "accuracy",
        series,
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
