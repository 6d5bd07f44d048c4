"""Renders the report: one self-contained HTML page, and the same figures as JSON, Markdown or
CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from evaluation.label_table import EXPLAINED, KINDS, FirstErrorConfusion
from evaluation.measures import Estimate
from evaluation.report.input import (
    CandidateSection,
    ExampleTrace,
    Grounding,
    LabelerSection,
    ModelSpending,
    ReportInput,
    best_labeler,
    floor_rows,
    sentences,
    warnings,
)
from evaluation.report.layout import (
    BY_SCORE,
    WITHOUT_SCORE,
    BarPart,
    best_of_n_chart,
    calibration_charts,
    clipped,
    depth_chart,
    environment,
    example_table,
    stacked,
    step_index_chart,
    sweep_chart,
)
from evaluation.wording import (
    UNDEFINED,
    FigureTable,
    figure,
    latex_text,
    markdown_table,
    markdown_text,
    no_formula,
    with_interval,
)

MARK = 1.8
"""Width of the mark on a bar, in percent."""
MAX_CANDIDATE_CHARTS = 8
"""Most best-of-N charts on a page; the tables are complete."""


def render_report(report: ReportInput) -> str:
    """The report as one HTML page, with inline styles and figures and with all texts escaped."""
    templates = environment()

    def table(example: ExampleTrace) -> Any:
        return example_table(example, report)

    templates.filters.update(
        figure=figure, configuration=_configuration, clipped=clipped, table=table
    )
    templates.globals.update(
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
    return templates.get_template("report.html.j2").render(
        report=report, contents=_contents(report, shown), **shown
    )


def bar_geometry(estimated: Estimate) -> dict[str, float] | None:
    """Positions of an estimate and its interval on a bar from 0 to 100; None if undefined."""
    if estimated.value is None:
        return None

    def place(value: float) -> float:
        # Kappa may be below 0, where the bar begins.
        return 100 * min(max(value, 0.0), 1.0)

    low, high = (place(end) for end in estimated.ci95 or (estimated.value, estimated.value))
    # The mark stays inside the bar at both ends.
    mark = min(max(place(estimated.value) - MARK / 2, 0), 100 - MARK)
    return {"low": round(low, 2), "width": round(high - low, 2), "mark": round(mark, 2)}


def _shown(report: ReportInput) -> dict[str, Any]:
    """The templates' variables besides the input itself."""
    scored = [section for section in report.labelers if section.first_errors is not None]
    return {
        "scored": scored,
        "subsets": _subsets(scored),
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
        "calibrated": calibration_charts(report.labelers),
        "by_index": step_index_chart(report.labelers, report.gold or "gold"),
        "depths": depth_chart(report.labelers),
        "candidate_charts": [
            best_of_n_chart(one, number)
            for number, one in enumerate(report.candidates[:MAX_CANDIDATE_CHARTS])
        ],
        "grounded": [one for one in report.labelers if one.grounding is not None],
        "sentences": sentences(report),
        "warnings": warnings(report),
        "floors": floor_rows(report),
    }


def _subsets(scored: Sequence[LabelerSection]) -> list[str]:
    """All subsets with first errors, in alphabetical order."""
    return sorted({name for one in scored if one.first_errors for name in one.first_errors.subsets})


def _contents(report: ReportInput, shown: dict[str, Any]) -> list[tuple[str, str]]:
    """The sections of the page in order, by id."""
    scored = bool(shown["scored"])
    known = [
        ("short", "In short", True),
        ("figures", "Results", scored),
        ("first-errors", "First errors", scored),
        ("thresholds", "Thresholds", scored),
        ("calibration", "Scores as probabilities", scored and bool(shown["calibrated"])),
        ("positions", "Step by step", scored and shown["by_index"] is not None),
        ("best-of-n", "Choosing among candidates", bool(report.candidates)),
        ("agreement", "Agreement", report.comparison is not None),
        ("grounding", "Grounding", bool(shown["grounded"])),
        ("runs", "Models and cost", True),
        ("examples", "Disagreements", bool(report.examples)),
        ("methods", "Methods", report.methods is not None),
    ]
    return [(id_, title) for id_, title, there in known if there]


def _confusion_parts(found: FirstErrorConfusion) -> list[BarPart]:
    return stacked([(kind, kind.replace("_", " "), found.counts[kind]) for kind in KINDS])


def _grounding_parts(found: Grounding) -> list[BarPart]:
    return stacked(
        [
            ("verified", "verified", found.verified),
            ("unverified", "unverified", found.unverified),
            ("absent", "absent", found.absent),
        ]
    )


def _heat(kappa: float | None) -> float:
    """Color strength of a cell of the agreement matrix, in [0, 1]."""
    return 0.0 if kappa is None else round(min(max(kappa, 0.0), 1.0), 3)


def _configuration(section: LabelerSection) -> str:
    return json.dumps(section.labeler.config, indent=1, ensure_ascii=False, sort_keys=True)


JSON_SWEEP_POINTS = 201
"""Most points of a threshold sweep in the JSON document."""


def report_json(report: ReportInput) -> dict[str, Any]:
    """The whole page as one document, without the example traces (see `compare --json`)."""
    return {
        "dataset": report.dataset,
        "gold": report.gold,
        "problems": report.problems,
        "traces": report.traces,
        "steps": report.steps,
        "subsets": dict(report.subsets),
        "threshold": report.threshold_wish,
        "seed": report.seed,
        "resamples": report.resamples,
        "made_at": report.made_at,
        "version": report.version,
        "in_short": sentences(report),
        "warnings": warnings(report),
        "labelers": [_labeler(section, report) for section in report.labelers],
        "floors": dict(floor_rows(report)),
        "leaders": None
        if report.leaders is None
        else {"first": report.leaders.first, "second": report.leaders.second}
        | report.leaders.found.as_json(),
        "comparison": None if report.comparison is None else report.comparison.as_json(),
        "disagreements_total": {"traces": report.disputed[0], "steps": report.disputed[1]},
        "best_of_n": [_candidates(one) for one in report.candidates],
        "calls": None if report.spending is None else _spending(report.spending),
        "notes": list(report.notes),
        "methods": None if report.methods is None else report.methods.as_json(),
    }


def _labeler(section: LabelerSection, report: ReportInput) -> dict[str, Any]:
    names = {
        "dataset": report.dataset,
        "labeler": section.labeler.name,
        "gold": report.gold or "",
    }
    needs_none = section.sweep is None
    return {
        "name": section.labeler.name,
        "kind": section.labeler.kind.value,
        "model": section.labeler.model,
        "resolved_model": section.labeler.resolved_model,
        "config": dict(section.labeler.config),
        "traces": section.traces,
        "steps": section.steps,
        "abstained": dict(section.abstained),
        "threshold": None if needs_none else section.threshold,
        "threshold_source": "none needed: verdicts" if needs_none else section.threshold_source,
        "threshold_fit": None if section.threshold_fit is None else section.threshold_fit.as_json(),
        "processbench": None
        if section.first_errors is None
        else section.first_errors.as_json(**names),
        "macro_f1": None
        if section.step_measures is None
        else section.step_measures.as_json(**names),
        "diagnostics": None if section.diagnostics is None else section.diagnostics.as_json(),
        "first_errors": None if section.confusion is None else section.confusion.as_json(),
        "threshold_sweep": None
        if section.sweep is None
        else {
            "measure": section.sweep.measure,
            "thresholds": len(section.sweep.thresholds),
            "points": [list(pair) for pair in section.sweep.thinned(JSON_SWEEP_POINTS)],
        },
        "grounding": None if section.grounding is None else section.grounding.as_json(),
    }


def _candidates(one: CandidateSection) -> dict[str, Any]:
    return {
        "labeler": one.labeler,
        "subset": one.subset,
        "unknown_correctness": one.unknown_correctness,
        **one.report.as_json(),
    }


def _spending(spending: ModelSpending) -> dict[str, Any]:
    return {
        "sent": spending.sent,
        "cached": spending.cached,
        "usd": spending.usd,
        "unpriced": spending.unpriced,
        "models": [
            {
                "model": call.model,
                "purpose": call.purpose or None,
                "resolved_model": call.resolved_model or None,
                "sent": call.sent,
                "cached": call.cached,
                "input_tokens": call.input_tokens,
                "output_tokens": call.output_tokens,
                "usd": call.usd,
                "unpriced": call.unpriced,
            }
            for call in spending.models
        ],
    }


CSV_COLUMNS = (
    "dataset", "gold", "labeler", "against", "subset", "group", "measure", "value", "low", "high",
)  # fmt: skip
"""One figure a row; low and high are its 95% interval, empty without one."""
FigureRow = tuple[str, str, str, str, str, Estimate]
"""Labeler, against, subset, group, measure, figure."""


def report_tables(report: ReportInput) -> Iterator[tuple[int, FigureTable]]:
    """The tables of the page, each with the level of its heading."""
    scored = [one for one in report.labelers if one.first_errors is not None]
    if scored:
        yield 2, _headline("Results", scored)
        if floors := floor_rows(report):
            rows = [(name, *map(figure, figures.values())) for name, figures in floors]
            yield 3, FigureTable(title="Floors", head=("floor", *floors[0][1]), rows=rows)
        subsets = _subsets(scored)
        for name in subsets if len(subsets) > 1 else ():
            yield 3, _headline(name, scored, name)
        yield 2, _confusion(scored)
        yield 2, _thresholds(scored)
    if report.candidates:
        yield 2, _best_of_n(report)
    if report.comparison is not None:
        yield 2, _pairs(report)
    yield 2, _models(report)


def _closing(report: ReportInput) -> list[str]:
    """What follows the tables: alpha, if labelers were compared, and how figures were drawn."""
    drawn = (
        f"95% intervals by problem, {report.resamples:,} resamples, seed {report.seed}. "
        f"StepGold {report.version}, {report.made_at}."
    )
    if report.comparison is None:
        return [drawn]
    alpha = with_interval(report.comparison.krippendorff_alpha)
    return [f"Krippendorff's alpha of all: {alpha}.", drawn]


def render_markdown(report: ReportInput) -> str:
    """The tables of the page as Markdown, with all texts escaped."""
    parts = [
        f"# {report.title}: {markdown_text(report.dataset)}",
        "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences(report)),
        "\n".join(f"> **Note:** {markdown_text(warning)}\n" for warning in warnings(report)),
    ]
    for level, table in report_tables(report):
        parts += [f"{'#' * level} {markdown_text(table.title)}"]
        parts += [markdown_table(table.head, table.rows, best=table.best)]
    parts += _closing(report)
    if report.methods is not None:
        parts += ["## Methods", report.methods.formatted("md")]
    return "\n\n".join(part for part in parts if part) + "\n"


LATEX_HEAD = r"""\documentclass[landscape]{article}
\usepackage[margin=1cm]{geometry}
\usepackage{booktabs}
\setlength{\parindent}{0pt}
\setlength{\parskip}{1ex}
\begin{document}
\footnotesize"""
"""Needs nothing beyond texlive-latex-recommended of Debian."""


def render_latex(report: ReportInput) -> str:
    """The tables of the page as a LaTeX document, with all texts escaped."""
    parts = [
        LATEX_HEAD,
        rf"\section*{{{latex_text(f'{report.title}: {report.dataset}')}}}",
        *(latex_text(sentence) for sentence in sentences(report)),
        *(rf"\textbf{{Note:}} {latex_text(warning)}" for warning in warnings(report)),
    ]
    for level, table in report_tables(report):
        kind = "section" if level == 2 else "subsection"
        parts += [rf"\{kind}*{{{latex_text(table.title)}}}", table.latex()]
    parts += map(latex_text, _closing(report))
    if report.methods is not None:
        parts += [r"\section*{Methods}", latex_text(report.methods.text())]
        parts += [f"\\begin{{verbatim}}\n{report.methods.bibtex()}\n\\end{{verbatim}}"]
    parts.append(r"\end{document}")
    return "\n\n".join(parts) + "\n"


def render_csv(report: ReportInput) -> str:
    """Every figure of the page in one long table; no cell begins like a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for labeler, against, subset, group, measure, found in figure_rows(report):
        names = (report.dataset, report.gold or "", labeler, against, subset)
        low, high = found.ci95 or ("", "")
        value = "" if found.value is None else found.value
        writer.writerow([*map(no_formula, names), group, measure, value, low, high])
    return out.getvalue()


def figure_rows(report: ReportInput) -> Iterator[FigureRow]:
    """Every figure by name."""
    for section in report.labelers:
        yield from _labeler_rows(section)
    for floor, figures in floor_rows(report):
        for measure, value in figures.items():
            yield floor, "", "", "floor", measure, Estimate(value, None)
    for one in report.candidates:
        for n, found in one.report.by_n.items():
            for measure, estimated in found.accuracy.items():
                yield one.labeler, "", one.subset, f"best_of_{n}", measure, estimated
    if report.comparison is not None:
        for pair in report.comparison.pairs:
            names = (pair.a, pair.b, "", "comparison")
            yield (*names, "agreement", pair.agreement)
            yield (*names, "cohen_kappa", pair.cohen_kappa)
            yield (*names, "pearson", Estimate(pair.pearson, None))
            yield (*names, "first_error_agreement", pair.first_error_agreement)
        alpha = report.comparison.krippendorff_alpha
        yield "", "", "", "comparison", "krippendorff_alpha", alpha


def _labeler_rows(section: LabelerSection) -> Iterator[FigureRow]:
    name = section.labeler.name
    if section.first_errors is not None:
        named = section.first_errors.subsets | {"(average)": section.first_errors.average}
        for subset, found in named.items():
            group = (name, "", subset, "processbench")
            yield (*group, "processbench_f1", found.processbench_f1)
            yield (*group, "error_accuracy", found.error_accuracy)
            yield (*group, "correct_accuracy", found.correct_accuracy)
            yield (*group, "kept_share", found.kept.share)
            yield (*group, "first_error_precision", found.kept.first_error_precision)
            yield (*group, "n_error", Estimate(found.n_error, None))
            yield (*group, "n_correct", Estimate(found.n_correct, None))
            yield (*group, "missing", Estimate(found.missing, None))
    if section.step_measures is not None:
        steps = section.step_measures
        for subset, part in (*steps.subsets.items(), ("(pooled)", steps.overall)):
            yield name, "", subset, "macro-f1", "macro_f1", part.macro_f1
        yield name, "", "(average)", "macro-f1", "macro_f1", steps.mean_of_subsets
    if section.confusion is not None:
        for kind in KINDS:
            count = section.confusion.counts[kind]
            yield name, "", "", "first_errors", kind, Estimate(count, None)
    if section.diagnostics is not None and section.diagnostics.step_scores is not None:
        scores = section.diagnostics.step_scores
        group = (name, "", "", "step_scores")
        yield (*group, "auroc", scores.auroc)
        yield (*group, "average_precision_incorrect", scores.average_precision_incorrect)
        yield (*group, "brier", scores.brier)
        yield (*group, "calibration_error", Estimate(scores.calibration_error, None))
    if section.sweep is not None:
        yield name, "", "", "threshold", "threshold", Estimate(section.threshold, None)


HEADLINE = (
    "labeler",
    "processbench_f1",
    "error accuracy",
    "correct accuracy",
    "macro_f1",
    "share kept",
    "precision of kept",
    "missing",
)


def _headline(
    title: str, scored: Sequence[LabelerSection], subset: str | None = None
) -> FigureTable:
    """One line per labeler, the best of each figure of accuracy in bold."""
    undefined = Estimate(None, None)
    names, figures, missing = [], [], []
    for section in scored:
        first, steps = section.first_errors, section.step_measures
        if first is None or steps is None or (subset is not None and subset not in first.subsets):
            continue
        found = first.average if subset is None else first.subsets[subset]
        part = steps.overall if subset is None else steps.subsets.get(subset)
        names.append(section.labeler.name)
        missing.append(str(found.missing))
        figures.append(
            (
                found.processbench_f1,
                found.error_accuracy,
                found.correct_accuracy,
                undefined if part is None else part.macro_f1,
                found.kept.share,
                found.kept.first_error_precision,
            )
        )
    best = set()
    for column in range(4):
        known = {at: v for at, row in enumerate(figures) if (v := row[column].value) is not None}
        best |= {(at, column + 1) for at, value in known.items() if value == max(known.values())}
    rows = [
        (name, *map(with_interval, row), left)
        for name, row, left in zip(names, figures, missing, strict=True)
    ]
    return FigureTable(title=title, head=HEADLINE, rows=rows, best=frozenset(best))


def _confusion(scored: Sequence[LabelerSection]) -> FigureTable:
    rows = [
        (one.labeler.name, *(str(one.confusion.counts[kind]) for kind in KINDS))
        for one in scored
        if one.confusion is not None
    ]
    return FigureTable(
        title="First errors",
        head=("labeler", *(kind.replace("_", " ") for kind in KINDS)),
        rows=rows,
    )


def _thresholds(scored: Sequence[LabelerSection]) -> FigureTable:
    rows = [
        (one.labeler.name, figure(one.threshold), one.threshold_source)
        if one.sweep is not None
        else (one.labeler.name, "-", "none needed: verdicts")
        for one in scored
    ]
    return FigureTable(title="Thresholds", head=("labeler", "threshold", "source"), rows=rows)


def _best_of_n(report: ReportInput) -> FigureTable:
    head: tuple[str, ...] = ()
    rows = []
    for section in report.candidates:
        for n, found in section.report.by_n.items():
            head = tuple(found.accuracy)
            figures = (figure(one.value) for one in found.accuracy.values())
            rows.append((section.labeler, section.subset, str(n), *figures))
    return FigureTable(
        title="Best-of-N (mean over all subsets of N candidates)",
        head=("labeler", "subset", "N", *(name.replace("_", " ") for name in head)),
        rows=rows,
    )


def _pairs(report: ReportInput) -> FigureTable:
    pairs = () if report.comparison is None else report.comparison.pairs
    rows = [
        (
            f"{pair.a} / {pair.b}",
            str(pair.n_steps),
            with_interval(pair.agreement),
            with_interval(pair.cohen_kappa),
            figure(pair.pearson),
            with_interval(pair.first_error_agreement),
        )
        for pair in pairs
    ]
    return FigureTable(
        title="Agreement",
        head=("pair", "steps", "agreement", "kappa", "Pearson", "first-error agreement"),
        rows=rows,
    )


def _models(report: ReportInput) -> FigureTable:
    rows = [
        (
            one.labeler.name,
            one.labeler.kind.value,
            one.labeler.model or "-",
            one.labeler.resolved_model or "-",
            str(one.traces),
        )
        for one in report.labelers
    ]
    return FigureTable(
        title="Models", head=("labeler", "kind", "model", "resolved version", "traces"), rows=rows
    )
