"""The report as one JSON document: the figures of the page, by the names of `evaluate --json`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from evaluation.figures import Estimate
from evaluation.report.input import (
    CandidateSection,
    LabelerSection,
    ReportInput,
    Spending,
    sentences,
    warnings,
)
from evaluation.step_words import KINDS
from evaluation.wording import figure, with_interval

SWEEP_POINTS = 201
"""Of a threshold sweep, which has one for every score otherwise."""


def report_json(report: ReportInput) -> dict[str, Any]:
    """Everything on the page but the example traces, which `compare --json` gives."""
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
        "leaders": None
        if report.leaders is None
        else {"first": report.leaders.first, "second": report.leaders.second}
        | report.leaders.found.as_json(),
        "comparison": None if report.comparison is None else report.comparison.as_json(),
        "disagreements_total": {"traces": report.disputed[0], "steps": report.disputed[1]},
        "best_of_n": [_candidates(one) for one in report.candidates],
        "calls": None if report.spending is None else _spending(report.spending),
        "notes": list(report.notes),
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
            "points": [list(pair) for pair in section.sweep.thinned(SWEEP_POINTS)],
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


def _spending(spending: Spending) -> dict[str, Any]:
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


# --- The report as Markdown for a pull request or a paper, and as CSV for a spreadsheet


CSV_COLUMNS = ("dataset", "gold", "labeler", "against", "subset", "group", "measure", "value", "low", "high")  # fmt: skip
"""One figure a row; low and high are the ends of its 95% interval, empty where it has none."""
FigureRow = tuple[str, str, str, str, str, Estimate]
"""labeler, against, subset, group, measure, figure."""


def render_markdown(report: ReportInput) -> str:
    """The tables of the page; every text of the data is escaped."""
    scored = [one for one in report.labelers if one.first_errors is not None]
    parts = [
        f"# {report.title}: {_plain(report.dataset)}",
        "\n".join(f"- {_plain(sentence)}" for sentence in sentences(report)),
        "\n".join(f"> **Note:** {_plain(warning)}\n" for warning in warnings(report)),
    ]
    if scored:
        parts += ["## Figures", _headline(scored)]
        subsets = sorted({name for one in scored if one.first_errors for name in one.first_errors.subsets})  # fmt: skip
        if len(subsets) > 1:
            parts += [
                part
                for name in subsets
                for part in (f"### {_plain(name)}", _headline(scored, name))
            ]
        parts += ["## First errors", _confusion(scored), "## Thresholds", _thresholds(scored)]
    if report.candidates:
        parts += ["## Best-of-N (mean over all subsets of N candidates)", _best_of_n(report)]
    if report.comparison is not None:
        alpha = with_interval(report.comparison.krippendorff_alpha)
        parts += ["## Agreement", _pairs(report), f"Krippendorff's alpha of all: {alpha}."]
    parts += ["## Models", _models(report)]
    parts.append(
        f"95% intervals by problem, {report.resamples:,} resamples, seed {report.seed}. "
        f"StepGold {report.version}, {report.made_at}."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def render_csv(report: ReportInput) -> str:
    """Every figure of the page in one long table; a cell never begins like a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for labeler, against, subset, group, measure, found in figure_rows(report):
        names = (report.dataset, report.gold or "", labeler, against, subset)
        low, high = found.ci95 or ("", "")
        value = "" if found.value is None else found.value
        writer.writerow([*map(_no_formula, names), group, measure, value, low, high])
    return out.getvalue()


def figure_rows(report: ReportInput) -> Iterator[FigureRow]:
    """Every figure by name."""
    for section in report.labelers:
        yield from _labeler_rows(section)
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
            for measure, count in (("n_error", found.n_error), ("n_correct", found.n_correct), ("missing", found.missing)):  # fmt: skip
                yield (*group, measure, Estimate(count, None))
    if section.step_measures is not None:
        steps = section.step_measures
        for subset, part in (*steps.subsets.items(), ("(pooled)", steps.overall)):
            yield name, "", subset, "macro-f1", "macro_f1", part.macro_f1
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


def _headline(scored: Sequence[LabelerSection], subset: str | None = None) -> str:
    rows = []
    for section in scored:
        first, steps = section.first_errors, section.step_measures
        if first is None or steps is None or (subset is not None and subset not in first.subsets):
            continue
        found = first.average if subset is None else first.subsets[subset]
        part = steps.overall if subset is None else steps.subsets.get(subset)
        rows.append(
            (
                section.labeler.name,
                with_interval(found.processbench_f1),
                with_interval(found.error_accuracy),
                with_interval(found.correct_accuracy),
                "-" if part is None else with_interval(part.macro_f1),
                with_interval(found.kept.share),
                with_interval(found.kept.first_error_precision),
                str(found.missing),
            )
        )
    return _table(("labeler", "processbench_f1", "error accuracy", "correct accuracy", "macro_f1", "share kept", "precision of kept", "missing"), rows)  # fmt: skip


def _confusion(scored: Sequence[LabelerSection]) -> str:
    rows = [
        (one.labeler.name, *(str(one.confusion.counts[kind]) for kind in KINDS))
        for one in scored
        if one.confusion is not None
    ]
    return _table(("labeler", *(kind.replace("_", " ") for kind in KINDS)), rows)


def _thresholds(scored: Sequence[LabelerSection]) -> str:
    rows = [
        (one.labeler.name, figure(one.threshold), one.threshold_source)
        if one.sweep is not None
        else (one.labeler.name, "-", "none needed: verdicts")
        for one in scored
    ]
    return _table(("labeler", "threshold", "where from"), rows)


def _best_of_n(report: ReportInput) -> str:
    head: tuple[str, ...] = ()
    rows = []
    for one in report.candidates:
        for n, found in one.report.by_n.items():
            head = tuple(found.accuracy)
            rows.append(
                (one.labeler, one.subset, str(n), *(figure(e.value) for e in found.accuracy.values()))
            )  # fmt: skip
    return _table(("labeler", "subset", "N", *(name.replace("_", " ") for name in head)), rows)


def _pairs(report: ReportInput) -> str:
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
    return _table(("pair", "steps", "agreement", "kappa", "Pearson", "first-error agreement"), rows)


def _models(report: ReportInput) -> str:
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
    return _table(("labeler", "kind", "model", "version that answered", "traces"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no cell of a table ended, one line."""
    for sign in ("\\", "`", "*", "[", "]", "|", "#"):
        text = text.replace(sign, "\\" + sign)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())


def _no_formula(text: str) -> str:
    """A spreadsheet runs a cell that begins like a formula: an apostrophe makes it text."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
