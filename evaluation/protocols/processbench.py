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
from evaluation.evaluated import EvaluatedTrace, predicted_error, split_by_gold
from evaluation.measures import (
    RESAMPLES,
    Estimate,
    Floats,
    Formula,
    as_list,
    mean_estimate,
    whole_and_subsets,
)
from evaluation.protocols.protocol import Protocol
from evaluation.wording import left_out_note, plain_table, threshold_note, with_interval


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
        return {
            "n": self.n,
            "share": self.share.value,
            "first_error_precision": self.first_error_precision.value,
            "ci95": as_list(self.first_error_precision),
        }


@dataclass(frozen=True, slots=True)
class FirstErrorReport:
    """The first-error measures of one subset."""

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

    def as_json(self) -> dict[str, Any]:
        """The figures by name; `ci95` belongs to processbench_f1."""
        return {
            "n_error": self.n_error,
            "n_correct": self.n_correct,
            "error_accuracy": self.error_accuracy.value,
            "correct_accuracy": self.correct_accuracy.value,
            "processbench_f1": self.processbench_f1.value,
            "ci95": as_list(self.processbench_f1),
            "missing": self.missing,
            "kept": self.kept.as_json(),
        }


@dataclass(frozen=True, slots=True)
class ProcessBenchReport:
    """The protocol's result for one labeler on one dataset."""

    threshold: float
    """A step is correct iff its score is at least this."""
    threshold_source: str
    """`given`, or the subset it was fitted on."""
    subsets: dict[str, FirstErrorReport]
    """By subset name, in alphabetical order."""
    average: FirstErrorReport
    """Counts added up, every measure the unweighted mean over subsets (None if one is None)."""
    gold_unusable: int
    """Traces left out because their gold is an abstention or has no first error."""
    gold_missing: int
    """Traces left out because they have no gold."""

    def as_json(self, *, dataset: str, labeler: str, gold: str) -> dict[str, Any]:
        """The document of `stepgold evaluate --protocol processbench`."""
        return {
            "protocol": "processbench",
            "dataset": dataset,
            "labeler": labeler,
            "gold": gold,
            "threshold": self.threshold,
            "threshold_source": self.threshold_source,
            "subsets": {name: report.as_json() for name, report in self.subsets.items()},
            "average": {
                "processbench_f1": self.average.processbench_f1.value,
                "ci95": as_list(self.average.processbench_f1),
                "kept": self.average.kept.as_json(),
            },
            "gold_unusable": self.gold_unusable,
            "gold_missing": self.gold_missing,
        }

    def table(self, labeler: str) -> str:
        """The figures as a table, one line per subset."""
        named = [*self.subsets.items(), ("average", self.average)]
        rows = [
            (
                name,
                str(report.n_error + report.n_correct),
                with_interval(report.error_accuracy),
                with_interval(report.correct_accuracy),
                with_interval(report.processbench_f1),
                str(report.missing),
                with_interval(report.kept.share),
                with_interval(report.kept.first_error_precision),
            )
            for name, report in named
        ]
        head = (
            "subset",
            "traces",
            "error accuracy",
            "correct accuracy",
            "processbench_f1",
            "missing",
            "share kept",
            "precision of kept",
        )
        return (
            f"{labeler}: processbench, 95% intervals by problem\n{plain_table(head, rows)}"
            f"{threshold_note(self.threshold, self.threshold_source)}"
            f"{left_out_note(self.gold_unusable + self.gold_missing)}"
        )


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
    split = split_by_gold(traces)
    usable = [trace for trace in split.usable if not predicted_error(trace.gold, threshold).missing]
    _, groups = whole_and_subsets(usable, measures.first_error_row, threshold)
    drawn = {name: group.resampled(seed, resamples) for name, group in groups.items()}
    return ProcessBenchReport(
        threshold=threshold,
        threshold_source=threshold_source,
        subsets={name: _report([sums], [draws]) for name, (sums, draws) in drawn.items()},
        average=_report(
            [sums for sums, _ in drawn.values()], [draws for _, draws in drawn.values()]
        ),
        # Gold without annotation of a step before its first error has no first error.
        gold_unusable=split.gold_unusable + len(split.usable) - len(usable),
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


PROTOCOL = Protocol(
    name="processbench",
    evaluate=evaluate_processbench,
    measures=("processbench_f1", "error_accuracy", "correct_accuracy", "first_error_precision"),
    averaged=True,
)
