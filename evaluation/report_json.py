"""The report as one JSON document: the figures of the page, by the names of `evaluate --json`."""

from __future__ import annotations

from typing import Any

from evaluation.report_input import CandidateSection, LabelerSection, ReportInput, Spending
from evaluation.report_summary import sentences, warnings

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
