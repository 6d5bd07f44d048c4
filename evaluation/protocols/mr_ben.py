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
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation import measures
from evaluation.evaluated import (
    EvaluatedTrace,
    EvaluatedTraces,
    split_by_gold,
    with_first_error,
)
from evaluation.frames import RIGHT, UNKNOWN, Counts, Floats
from evaluation.measures import RESAMPLES, Estimate, Group, estimate, whole_and_subsets
from evaluation.protocols.protocol import (
    GroupFigures,
    Paper,
    Protocol,
    ProtocolReport,
    Published,
)


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
    split = with_first_error(split_by_gold(traces), threshold)
    whole, groups = whole_and_subsets(split.usable, measures.solution_rows, threshold)
    missing = split.usable.found_errors(threshold).missing
    reasons = split.usable.predicted.reason

    def report(group: Group) -> MrScore:
        unassessed = _unassessed(group, reasons)
        return _report(*group.resampled(seed, resamples), int(missing[group.at].sum()), unassessed)

    return MrBenReport(
        threshold=threshold,
        threshold_source=threshold_source,
        overall=report(whole),
        subsets={name: report(group) for name, group in groups.items()},
        gold_unusable=split.gold_unusable,
        gold_missing=split.gold_missing,
    )


def _report(sums: Floats, drawn: Floats, missing: int, unassessed: int) -> MrScore:
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
        missing=missing,
        reason_missing=unassessed,
    )


def _unassessed(group: Group, reasons: NDArray[np.int8], *, column: int = 4) -> int:
    """Right steps (or what else a column counts) whose reason was not assessed."""
    return int(((group.rows[:, column] > 0) & (reasons[group.at] == UNKNOWN)).sum())


CODING = "coding"
"""The subject of programs."""
SCRIPT = "dvlab-research/Mr-Ben, script/evaluate.py"


def published_mr_ben(traces: Iterable[EvaluatedTrace], threshold: float) -> Published:
    """The figures of MR-Ben's own script (commit 6eb1eca).

    Its total is the unweighted mean of MR-Score over subjects, ours pools all solutions. It divides
    by the numbers of correct solutions, incorrect ones, and solutions called correct without a
    check, and needs a reason for every right step: where one is lacking it fails. Of programs
    (subject `coding`) it ignores the line: step and reason are right if the reason is.
    """
    usable = split_by_gold(_as_script_reads(EvaluatedTraces.of(traces))).usable
    reasons = usable.predicted.reason
    _, groups = whole_and_subsets(usable, _script_rows, threshold)
    subsets: dict[str, dict[str, float | None]] = {}
    causes = []
    if CODING in groups:
        causes.append("the script ignores the lines of programs and counts reasons instead")
    if len(groups) > 1:
        causes.append("the script averages over subjects without weights; strict pools solutions")
    for name, group in groups.items():
        fault = _script_fault(group, reasons)
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


def _programs(traces: EvaluatedTraces) -> NDArray[np.bool_]:
    names = np.array([name == CODING for name in traces.frame.subsets], bool)
    return np.asarray(names[traces.frame.subset], bool)


def _as_script_reads(traces: EvaluatedTraces) -> EvaluatedTraces:
    """A program is incorrect for the script also where its line is unusable."""
    gold = traces.gold
    unusable = _programs(traces) & gold.present & gold.abstained
    read = replace(
        gold,
        abstained=gold.abstained & ~unusable,
        given=gold.given | unusable,
        named=gold.named | unusable,
        index=np.where(unusable, 0, gold.index),
    )
    return replace(traces, gold=read)


def _script_rows(traces: EvaluatedTraces, threshold: float | Floats) -> Counts:
    counts = measures.solution_rows(traces, threshold)
    programs = _programs(traces)
    right = (counts[:, 3] > 0) & (traces.predicted.reason == RIGHT)
    counts[programs, 4] = counts[programs, 5] = right[programs]
    return counts


def _script_fault(group: Group, reasons: NDArray[np.int8]) -> str | None:
    """Why the script cannot finish; None if it can."""
    tp, fn, fp, tn, *_ = group.rows.sum(axis=0).tolist()
    if not tp + fn:
        return "no solution is correct"
    if not fp + tn:
        return "no solution is incorrect"
    if not tp + fp:
        return "no solution was called correct"
    if _unassessed(group, reasons, column=3 if group.name == CODING else 4):
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
    rule=(
        "mcc is the Matthews correlation of calling whole solutions correct;"
        " error_step_accuracy is the share of incorrect solutions whose first error was found"
        " exactly"
    ),
    references=(
        Paper(
            cited="Zeng et al., 2024",
            key="zeng2024mrben",
            author="Zeng, Zhongshen",
            title="MR-Ben: A Meta-Reasoning Benchmark for Evaluating System-2 Thinking in LLMs",
            arxiv="2406.13975",
        ),
        Paper(
            cited="Zeng et al., 2023",
            key="zeng2023mrgsm8k",
            author="Zeng, Zhongshen",
            title="MR-GSM8K: A Meta-Reasoning Benchmark for Large Language Model Evaluation",
            arxiv="2312.17080",
        ),
    ),
)
