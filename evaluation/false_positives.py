"""Right answer, wrong process: the traces that a judge of answers lets through (arXiv 2412.06559, table 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.bootstrap import RESAMPLES, Estimate, as_list, generator
from evaluation.evaluated import EvaluatedTrace, predicted_error, split_by_gold
from evaluation.shares import share_by_problem


@dataclass(frozen=True, slots=True)
class FalsePositiveSlice:
    """A labeler on the traces that end right and hold an error."""

    n: int
    """Traces with the right final answer in which gold finds an error."""
    n_right_answer: int
    """All traces with the right final answer and a gold first error, or lack of one."""
    answer_unknown: int
    """Traces of which nobody says whether the answer is right: not looked at."""
    error_accuracy: Estimate
    """Share of the n whose first error was named exactly; None if n is 0."""
    detected: Estimate
    """Share of the n in which the labeler sees an error anywhere; None if n is 0."""
    missing: int
    """Of the n, traces without a prediction: neither named nor detected."""

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "n": self.n,
            "n_right_answer": self.n_right_answer,
            "answer_unknown": self.answer_unknown,
            "error_accuracy": self.error_accuracy.value,
            "error_accuracy_ci95": as_list(self.error_accuracy),
            "detected": self.detected.value,
            "detected_ci95": as_list(self.detected),
            "missing": self.missing,
        }


def false_positive_slice(
    traces: Iterable[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> FalsePositiveSlice:
    """The slice of traces that end right and hold an error."""
    usable = [
        trace
        for trace in split_by_gold(traces).usable
        if not predicted_error(trace.gold, threshold).missing
    ]
    right = [trace for trace in usable if trace.final_answer_correct]
    wrong_process = [
        trace for trace in right if predicted_error(trace.gold, threshold).index is not None
    ]
    said = [predicted_error(trace.predicted, threshold) for trace in wrong_process]
    named = [
        found == predicted_error(trace.gold, threshold)
        for found, trace in zip(said, wrong_process, strict=True)
    ]

    def share(holds: Sequence[bool]) -> Estimate:
        problems = [trace.problem_id for trace in wrong_process]
        return share_by_problem(problems, holds, generator(seed, "false-positives"), resamples)

    return FalsePositiveSlice(
        len(wrong_process),
        len(right),
        sum(trace.final_answer_correct is None for trace in usable),
        share(named),
        share([found.index is not None for found in said]),
        sum(found.missing for found in said),
    )
