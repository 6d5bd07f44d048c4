"""ProcessBench's protocol (arXiv 2412.06559, section 4.1): exact first errors, two accuracies.

Per subset: the share of erroneous traces whose first error was predicted exactly, the share of
correct traces called correct, and their harmonic mean. The average is the unweighted mean over
subsets. A missing prediction counts as wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import measures
from evaluation.evaluated import EvaluatedTrace, split_by_gold, with_first_error
from evaluation.frames import Floats
from evaluation.measures import RESAMPLES, Estimate, Formula, mean_estimate, whole_and_subsets
from evaluation.protocols.protocol import (
    GroupFigures,
    Paper,
    Protocol,
    ProtocolReport,
    Published,
)
from evaluation.wording import figures_json


@dataclass(frozen=True, slots=True)
class KeptTraces:
    """A labeler on the traces it labeled, the relevant ones if it is used as a filter."""

    n: int
    """Traces with a prediction."""
    share: Estimate
    """Their share of all traces with usable gold."""
    first_error_precision: Estimate
    """Share of them that are exactly right, "no error" included."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name; `ci95` belongs to the precision."""
        return figures_json(self, lead="first_error_precision")


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstErrorReport(GroupFigures):
    """The first-error measures of one subset."""

    lead = "processbench_f1"
    columns = (
        ("traces", "n"),
        ("error accuracy", "error_accuracy"),
        ("correct accuracy", "correct_accuracy"),
        ("processbench_f1", "processbench_f1"),
        ("missing", "missing"),
        ("share kept", "kept.share"),
        ("precision of kept", "kept.first_error_precision"),
    )

    n_error: int
    """Traces with an error."""
    n_correct: int
    """Traces without one."""
    error_accuracy: Estimate
    """Share of exact first errors among the former."""
    correct_accuracy: Estimate
    """Share of "no error" among the latter."""
    processbench_f1: Estimate
    """Harmonic mean of the two; None if one group is empty."""
    missing: int
    """Traces without a prediction."""
    kept: KeptTraces

    @property
    def n(self) -> int:
        """Traces with usable gold."""
        return self.n_error + self.n_correct


class ProcessBenchReport(ProtocolReport[FirstErrorReport]):
    """The result of the protocol `processbench`."""

    __slots__ = ()
    protocol = title = "processbench"
    figures = FirstErrorReport
    whole_key = "average"

    @property
    def average(self) -> FirstErrorReport:
        """Counts added up, measures averaged over subsets without weights (None if one is None)."""
        return self.overall


def evaluate_processbench(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    threshold_source: str = "given",
) -> ProcessBenchReport:
    """Evaluate one labeler by ProcessBench's protocol.

    Args:
        traces: every trace of the dataset, with gold and prediction where they exist.
        threshold: in [0, 1]; a score below it makes a step incorrect, an equal one does not.
        seed: of the bootstrap; the same seed gives the same intervals.
        resamples: draws of problems per subset.
    """
    split = with_first_error(split_by_gold(traces), threshold)
    _, groups = whole_and_subsets(split.usable, measures.first_error_rows, threshold)
    drawn = {name: group.resampled(seed, resamples) for name, group in groups.items()}
    return ProcessBenchReport(
        threshold=threshold,
        threshold_source=threshold_source,
        subsets={name: _report([sums], [draws]) for name, (sums, draws) in drawn.items()},
        overall=_report(
            [sums for sums, _ in drawn.values()], [draws for _, draws in drawn.values()]
        ),
        gold_unusable=split.gold_unusable,
        gold_missing=split.gold_missing,
    )


def _report(totals: Sequence[Floats], draws: Sequence[Floats]) -> FirstErrorReport:
    def mean(formula: Formula) -> Estimate:
        return mean_estimate(formula, totals, draws)

    sums = np.sum(totals, axis=0) if totals else np.zeros(len(measures.FIRST_ERROR_COLUMNS))
    n_error, _, n_correct, _, n_kept, _ = (int(count) for count in sums)
    return FirstErrorReport(
        n_error=n_error,
        n_correct=n_correct,
        error_accuracy=mean(measures.error_accuracy),
        correct_accuracy=mean(measures.correct_accuracy),
        processbench_f1=mean(measures.processbench_f1),
        missing=n_error + n_correct - n_kept,
        kept=KeptTraces(n_kept, mean(measures.kept_share), mean(measures.first_error_precision)),
    )


SCRIPT = "QwenLM/ProcessBench, code/run_eval.py"


def published_processbench(traces: Iterable[EvaluatedTrace], threshold: float) -> Published:
    """The figures of ProcessBench's own script (commit e802463).

    It divides by the sum of both accuracies and by the number of traces of each group without a
    check, so that a zero becomes nan, and one nan makes the average nan.
    """
    _, groups = whole_and_subsets(
        split_by_gold(traces).usable, measures.first_error_rows, threshold
    )
    subsets, causes = {}, []
    for name, group in groups.items():
        n_error, hit_error, n_correct, hit_correct, *_ = group.rows.sum(axis=0).tolist()
        error = hit_error / n_error if n_error else None
        correct = hit_correct / n_correct if n_correct else None
        f1 = None
        if error is None or correct is None:
            causes.append(f"{name} has no traces of one group, whose mean is nan in the script")
        elif error + correct == 0:
            causes.append(f"both accuracies of {name} are 0, and the script divides 0 by 0 (nan)")
        else:
            f1 = 2 * error * correct / (error + correct)
        subsets[name] = {
            "error_accuracy": error,
            "correct_accuracy": correct,
            "processbench_f1": f1,
        }
    known = [value for each in subsets.values() if (value := each["processbench_f1"]) is not None]
    whole = len(known) == len(subsets) > 0
    return Published(
        source=SCRIPT,
        overall={"processbench_f1": sum(known) / len(known) if whole else None},
        subsets=subsets,
        causes=tuple(causes),
    )


PROTOCOL = Protocol(
    name="processbench",
    evaluate=evaluate_processbench,
    measures=("processbench_f1", "error_accuracy", "correct_accuracy", "first_error_precision"),
    averaged=True,
    as_published=published_processbench,
    rule=(
        "processbench_f1 is the harmonic mean of the share of erroneous traces whose first"
        " error was found exactly and the share of error-free traces called correct; the"
        " average is the unweighted mean over subsets, and a missing prediction counts as wrong"
    ),
    references=(
        Paper(
            cited="Zheng et al., 2024",
            key="zheng2024processbench",
            author="Zheng, Chujie",
            title="ProcessBench: Identifying Process Errors in Mathematical Reasoning",
            arxiv="2412.06559",
        ),
    ),
)
