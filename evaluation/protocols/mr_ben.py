"""MR-Score (arXiv 2312.17080 and 2406.13975; dvlab-research/MR-GSM8K, eval_mr_gsm8k.py): is it right, where is it wrong, why.

0.2 max(0, MCC) + 0.3 step accuracy + 0.5 reason accuracy. MCC is over "solution correct"; both
accuracies are over the solutions that are incorrect: the step counts only if the solution was called
incorrect, the reason only if the step was right. Whether a reason is right is for an expert (or
another judge) to say: a label carries it as `reason_correct` in its meta. Without that word on every
right step, the reason part and the total are null. A missing prediction counts as the other class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evaluation import figures as measures
from evaluation.evaluated import EvaluatedTrace, predicted_error, split_by_gold
from evaluation.figures import RESAMPLES, Estimate, Group, as_list, estimate, whole_and_subsets
from evaluation.protocols.table import PooledReport
from evaluation.wording import with_interval


@dataclass(frozen=True, slots=True)
class MrScore:
    """MR-Score and its parts in one subset, or in all solutions pooled."""

    n_correct: int
    """Solutions without an error."""
    n_incorrect: int
    """Solutions with one."""
    mcc: Estimate
    """Matthews correlation in [-1, 1], 0 where its denominator is 0; None without any solution."""
    step_accuracy: Estimate
    """In [0, 1]; None if no solution is incorrect."""
    reason_accuracy: Estimate
    """In [0, 1]; None if no solution is incorrect, or nobody looked at a reason that counts."""
    mr_score: Estimate
    """In [0, 1]; None if a part is."""
    missing: int
    """Solutions without a prediction."""
    reason_missing: int
    """Rightly named steps whose reason nobody looked at."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name; `ci95` belongs to mr_score, each part has its own."""
        return {
            "mr_score": self.mr_score.value,
            "ci95": as_list(self.mr_score),
            "mcc": self.mcc.value,
            "mcc_ci95": as_list(self.mcc),
            "step_accuracy": self.step_accuracy.value,
            "step_accuracy_ci95": as_list(self.step_accuracy),
            "reason_accuracy": self.reason_accuracy.value,
            "reason_accuracy_ci95": as_list(self.reason_accuracy),
            "n_correct": self.n_correct,
            "n_incorrect": self.n_incorrect,
            "missing": self.missing,
            "reason_missing": self.reason_missing,
        }

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        return (
            with_interval(self.mr_score),
            with_interval(self.mcc),
            with_interval(self.step_accuracy),
            with_interval(self.reason_accuracy),
            str(self.n_correct),
            str(self.n_incorrect),
            str(self.missing),
        )


class MrBenReport(PooledReport[MrScore]):
    """The protocol's result for one labeler on one dataset."""

    __slots__ = ()
    protocol = "mr-ben"
    title = "mr-ben"
    columns = ("mr_score", "mcc", "step accuracy", "reason accuracy", "correct", "incorrect", "missing")  # fmt: skip

    def remark(self) -> str:
        """Why there is no MR-Score, if for that reason."""
        reasons = self.overall.reason_missing
        if not reasons:
            return ""
        return f"\n{reasons} rightly named steps have no word on their reason: no MR-Score"


def evaluate_mr_ben(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    threshold_source: str = "given",
) -> MrBenReport:
    """Evaluate one labeler by MR-Score; arguments as `evaluate_processbench`."""
    split = split_by_gold(traces)
    usable = [trace for trace in split.usable if not predicted_error(trace.gold, threshold).missing]
    whole, groups = whole_and_subsets(usable, measures.solution_row, threshold)
    return MrBenReport(
        threshold=threshold,
        threshold_source=threshold_source,
        overall=_report(whole, threshold, seed, resamples),
        subsets={
            name: _report(group, threshold, seed, resamples) for name, group in groups.items()
        },
        gold_unusable=split.gold_unusable + len(split.usable) - len(usable),
        gold_missing=split.gold_missing,
    )


def _report(group: Group, threshold: float, seed: int, resamples: int) -> MrScore:
    sums, drawn = group.resampled(seed, resamples)
    unread = sum(
        bool(hit) and measures.stated_reason(trace) is None
        for trace, hit in zip(group.traces, group.rows[:, 4], strict=True)
    )
    unknown = Estimate(None, None)
    return MrScore(
        n_correct=int(sums[0] + sums[1]),
        n_incorrect=int(sums[2] + sums[3]),
        mcc=estimate(measures.mcc, sums, drawn),
        step_accuracy=estimate(measures.error_step_accuracy, sums, drawn),
        reason_accuracy=unknown
        if unread
        else estimate(measures.error_reason_accuracy, sums, drawn),
        mr_score=unknown if unread else estimate(measures.mr_score, sums, drawn),
        missing=sum(predicted_error(trace.predicted, threshold).missing for trace in group.traces),
        reason_missing=unread,
    )
