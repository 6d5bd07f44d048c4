"""MR-Score (arXiv 2312.17080 and 2406.13975): is the solution right, where is it wrong, and why.

0.2 max(0, MCC) + 0.3 step accuracy + 0.5 reason accuracy, as in dvlab-research/MR-GSM8K,
eval_mr_gsm8k.py. MCC is over "solution correct"; both accuracies are over incorrect solutions: the
step counts only if the solution was called incorrect, the reason only if the step was right. An
expert (or another judge) decides whether a reason is right: `reason_correct` in the label's meta.
Unless all right steps have it, the reason part and the total are null. A missing prediction counts
as the other class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from evaluation import measures
from evaluation.evaluated import EvaluatedTrace, predicted_error, split_by_gold
from evaluation.measures import RESAMPLES, Estimate, Group, estimate, whole_and_subsets
from evaluation.protocols.protocol import GroupFigures, Protocol, ProtocolReport, Published
from traces import TraceLabel


@dataclass(frozen=True, kw_only=True, slots=True)
class MrScore(GroupFigures):
    """MR-Score and its parts in one subset, or in all solutions pooled."""

    lead = "mr_score"
    columns = (
        ("mr_score", "mr_score"),
        ("mcc", "mcc"),
        ("step accuracy", "step_accuracy"),
        ("reason accuracy", "reason_accuracy"),
        ("correct", "n_correct"),
        ("incorrect", "n_incorrect"),
        ("missing", "missing"),
    )

    n_correct: int
    """Solutions without an error."""
    n_incorrect: int
    """Solutions with one."""
    mcc: Estimate
    """Matthews correlation in [-1, 1], 0 where its denominator is 0; None without any solution."""
    step_accuracy: Estimate
    """In [0, 1]; None if no solution is incorrect."""
    reason_accuracy: Estimate
    """In [0, 1]; None if no solution is incorrect, or a reason that counts was not assessed."""
    mr_score: Estimate
    """In [0, 1]; None if a part is."""
    missing: int
    """Solutions without a prediction."""
    reason_missing: int
    """Right steps whose reason was not assessed."""


class MrBenReport(ProtocolReport[MrScore]):
    """The result of the protocol `mr-ben`."""

    __slots__ = ()
    protocol = title = "mr-ben"
    figures = MrScore

    def remark(self) -> str:
        """Says if reasons that were not assessed leave MR-Score undefined."""
        reasons = self.overall.reason_missing
        if not reasons:
            return ""
        return f"\nthe reasons of {reasons} right steps were not assessed: no MR-Score"


def evaluate_mr_ben(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    threshold_source: str = "given",
) -> MrBenReport:
    """Evaluate one labeler by MR-Score; arguments as in `evaluate_processbench`."""
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
    unassessed = _unassessed(group)
    unknown = Estimate(None, None)
    return MrScore(
        n_correct=int(sums[0] + sums[1]),
        n_incorrect=int(sums[2] + sums[3]),
        mcc=estimate(measures.mcc, sums, drawn),
        step_accuracy=estimate(measures.error_step_accuracy, sums, drawn),
        reason_accuracy=unknown
        if unassessed
        else estimate(measures.error_reason_accuracy, sums, drawn),
        mr_score=unknown if unassessed else estimate(measures.mr_score, sums, drawn),
        missing=sum(predicted_error(trace.predicted, threshold).missing for trace in group.traces),
        reason_missing=unassessed,
    )


def _unassessed(group: Group, *, column: int = 4) -> int:
    """Right steps (or what else a column counts) whose reason was not assessed."""
    return sum(
        bool(hit) and measures.stated_reason(trace) is None
        for trace, hit in zip(group.traces, group.rows[:, column], strict=True)
    )


CODING = "coding"
"""The subject of programs."""
SCRIPT = "dvlab-research/Mr-Ben, script/evaluate.py"


def published_mr_ben(traces: Sequence[EvaluatedTrace], threshold: float) -> Published:
    """The figures of MR-Ben's own script (commit 6eb1eca).

    Its total is the unweighted mean of MR-Score over subjects, ours pools all solutions. It divides
    by the numbers of correct solutions, incorrect ones, and solutions called correct without a
    check, and needs a reason for every right step: where one is lacking it fails. Of programs
    (subject `coding`) it ignores the line: step and reason are right if the reason is.
    """
    read = [_as_script_reads(trace) for trace in traces]
    _, groups = whole_and_subsets(split_by_gold(read).usable, _script_row, threshold)
    subsets: dict[str, dict[str, float | None]] = {}
    causes = []
    if CODING in groups:
        causes.append("the script ignores the lines of programs and counts reasons instead")
    if len(groups) > 1:
        causes.append("the script averages over subjects without weights; strict pools solutions")
    for name, group in groups.items():
        fault = _script_fault(group)
        if fault is not None:
            causes.append(f"the script fails on {name}: {fault}")
            subsets[name] = dict.fromkeys(("mr_score", "mcc", "step_accuracy", "reason_accuracy"))
            continue
        subsets[name] = _script_figures(group)
    known = [value for each in subsets.values() if (value := each["mr_score"]) is not None]
    whole = len(known) == len(subsets) > 0
    return Published(
        source=SCRIPT,
        overall={"mr_score": sum(known) / len(known) if whole else None},
        subsets=subsets,
        causes=tuple(causes),
    )


def _as_script_reads(trace: EvaluatedTrace) -> EvaluatedTrace:
    """A program is incorrect for the script also where its line is unusable."""
    gold = trace.gold
    if trace.subset != CODING or gold is None or gold.abstention is None:
        return trace
    label = TraceLabel(trace.trace_id, first_error_given=True, first_error_index=0)
    return replace(trace, gold=label)


def _script_row(trace: EvaluatedTrace, threshold: float) -> tuple[int, ...]:
    counts = measures.solution_row(trace, threshold)
    if trace.subset != CODING:
        return counts
    right = int(counts[3] and measures.stated_reason(trace) is True)
    return (*counts[:4], right, right)


def _script_fault(group: Group) -> str | None:
    """Why the script cannot finish; None if it can."""
    tp, fn, fp, tn, *_ = group.rows.sum(axis=0).tolist()
    if not tp + fn:
        return "no solution is correct"
    if not fp + tn:
        return "no solution is incorrect"
    if not tp + fp:
        return "no solution was called correct"
    if _unassessed(group, column=3 if group.name == CODING else 4):
        return "the reason of a right step was not assessed"
    return None


def _script_figures(group: Group) -> dict[str, float | None]:
    tp, fn, fp, tn, steps, reasons = group.rows.sum(axis=0).tolist()
    numerator = tp * tn - fp * fn
    denominator = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    matthews = numerator / denominator if numerator and denominator else 0.0
    step, reason = steps / (fp + tn), reasons / (fp + tn)
    return {
        "mr_score": 0.2 * max(0, matthews) + 0.3 * step + 0.5 * reason,
        "mcc": matthews,
        "step_accuracy": step,
        "reason_accuracy": reason,
    }


PROTOCOL = Protocol(
    name="mr-ben",
    evaluate=evaluate_mr_ben,
    # Most labels do not state whether their reason is right, so MR-Score itself cannot lead.
    measures=("mcc", "error_step_accuracy"),
    as_published=published_mr_ben,
)
