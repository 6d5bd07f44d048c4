"""What the report says in sentences: who is best, how sure that is, and what a reader must not overlook."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.report_input import LabelerSection, ReportInput
from evaluation.wording import figure, with_interval


def best_labeler(sections: Sequence[LabelerSection], measure: str) -> str | None:
    """The labeler with the highest headline figure; None where two share it, or none has one."""
    known = [
        (value, section.labeler.name)
        for section in sections
        if (value := headline(section, measure)) is not None
    ]
    best = [name for value, name in known if value == max(value for value, _ in known)]
    return best[0] if len(best) == 1 else None


def headline(section: LabelerSection, measure: str) -> float | None:
    """A labeler's `processbench_f1` or `macro_f1` on the dataset as a whole; None if not defined."""
    if measure == "processbench_f1" and section.first_errors is not None:
        return section.first_errors.average.processbench_f1.value
    if measure == "macro_f1" and section.step_measures is not None:
        return section.step_measures.overall.macro_f1.value
    return None


def sentences(report: ReportInput) -> list[str]:
    """The page in a few sentences, each with its figure."""
    told = []
    scored = [section for section in report.labelers if section.first_errors is not None]
    if not scored:
        told.append("No labeler is held against gold: there is nothing to compare it with.")
    for section in scored:
        if section.labeler.name == best_labeler(scored, "processbench_f1") and section.first_errors:
            found = section.first_errors.average.processbench_f1
            told.append(
                f"{section.labeler.name} finds first errors best: processbench_f1 {with_interval(found)}."
            )
    told += _leaders(report)
    for section in scored:
        if section.labeler.name == best_labeler(scored, "macro_f1") and section.step_measures:
            found = section.step_measures.overall.macro_f1
            told.append(
                f"{section.labeler.name} leads step by step: macro_f1 {with_interval(found)}."
            )
    if report.comparison is not None:
        alpha = report.comparison.krippendorff_alpha
        told.append(
            f"All labelers together agree with Krippendorff's alpha {with_interval(alpha)}; "
            f"they part on {report.disputed[1]:,} steps of {report.disputed[0]:,} traces."
        )
    for section in report.labelers:
        quotes = section.grounding
        if quotes is not None and quotes.verified + quotes.unverified:
            told.append(
                f"{quotes.verified:,} of the {quotes.verified + quotes.unverified:,} quotes of "
                f"{section.labeler.name} stand in the evidence."
            )
    return told


def warnings(report: ReportInput) -> list[str]:
    """What makes figures on the page better than they should be, or not comparable."""
    told = []
    for section in report.labelers:
        fit = section.threshold_fit
        if fit is not None and fit.in_sample:
            told.append(
                f"The threshold of {section.labeler.name} was fitted on {fit.dataset}/{fit.subset}, which "
                f"is evaluated here ({', '.join(fit.in_sample)}): its figures are optimistic."
            )
        found = section.first_errors
        if found is not None and found.average.missing:
            n = found.average.n_error + found.average.n_correct
            told.append(
                f"{section.labeler.name} has no prediction on {found.average.missing:,} of {n:,} traces; "
                "they count as wrong."
            )
    return told


def _leaders(report: ReportInput) -> list[str]:
    test = report.leaders
    head = None if test is None else test.found.headline
    if test is None or head is None or head.difference is None or head.p_value is None:
        return []
    if not head.difference or head.ci95 is None:
        best = [
            section.labeler.name
            for section in report.labelers
            if headline(section, "processbench_f1") == head.first
        ]
        return [f"{', '.join(best)} share the highest processbench_f1, {figure(head.first)}."]
    verdict = "more than chance" if head.p_value < 0.05 else "not more than chance would give"
    return [
        f"Its lead over {test.second} is {figure(head.difference)} "
        f"[{figure(head.ci95[0])}, {figure(head.ci95[1])}], p = {head.p_value:.4f} by a paired "
        f"bootstrap: {verdict}."
    ]
