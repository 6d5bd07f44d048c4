"""What stands behind a headline figure: the scores themselves, where errors are seen, what right answers hide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.bootstrap import RESAMPLES
from evaluation.discrimination import ScoreReport, score_report
from evaluation.evaluated import EvaluatedTrace
from evaluation.false_positives import FalsePositiveSlice, false_positive_slice
from evaluation.positions import MinimumPosition, StepIndexRow, minimum_position, step_index_rows
from evaluation.scored_steps import scored_steps
from evaluation.wording import figure, with_interval

ANSWERS = {True: "answer_right", False: "answer_wrong", None: "answer_unknown"}
"""Names of the groups by final answer."""


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """One labeler on one dataset, beyond its protocol."""

    step_scores: ScoreReport | None
    """None if the labeler gives no scores."""
    minimum: MinimumPosition | None
    """Over all traces; None if the labeler gives no scores."""
    minimum_by_answer: Mapping[str, MinimumPosition]
    """The same by whether the final answer is right; only groups with traces."""
    step_index: tuple[StepIndexRow, ...]
    """Gold and labeler by step index."""
    false_positives: FalsePositiveSlice
    """Right answer, wrong process: all subsets pooled."""
    false_positives_by_subset: Mapping[str, FalsePositiveSlice]
    """The same by subset, in alphabetical order."""

    def as_json(self) -> dict[str, Any]:
        """The key `diagnostics` of `stepgold evaluate`."""
        return {
            "step_scores": None if self.step_scores is None else self.step_scores.as_json(),
            "minimum_position": None
            if self.minimum is None
            else self.minimum.as_json()
            | {name: found.as_json() for name, found in self.minimum_by_answer.items()},
            "step_index": [row.as_json() for row in self.step_index],
            "right_answer_wrong_process": self.false_positives.as_json()
            | {
                "subsets": {
                    name: found.as_json() for name, found in self.false_positives_by_subset.items()
                }
            },
        }

    def lines(self) -> list[str]:
        """The same for a person, one line a topic."""
        told = []
        if self.step_scores is not None:
            scores = self.step_scores
            told.append(
                f"step scores: AUROC {with_interval(scores.auroc)}, average precision of incorrect steps "
                f"{with_interval(scores.average_precision_incorrect)}, Brier {figure(scores.brier.value)}"
            )
        if self.minimum is not None:
            told.append(
                f"lowest score on the last step: {with_interval(self.minimum.share_at_last)}"
            )
        slice_ = self.false_positives
        if slice_.n:
            told.append(
                f"right answer, wrong process: {slice_.n} traces, first error named "
                f"{with_interval(slice_.error_accuracy)}, any error seen {with_interval(slice_.detected)}"
            )
        return told


def diagnose(
    traces: Sequence[EvaluatedTrace],
    threshold: float = 0.5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Diagnostics:
    """Everything about a labeler that its protocol's figure hides; arguments as `evaluate_processbench`."""
    steps = scored_steps(traces)
    gives_scores = any(
        step.score is not None
        for trace in traces
        if trace.predicted is not None
        for step in trace.predicted.step_labels
    )
    by_answer = {
        name: group
        for said, name in ANSWERS.items()
        if (group := [trace for trace in traces if trace.final_answer_correct is said])
    }
    subsets = sorted({trace.subset for trace in traces})
    return Diagnostics(
        score_report(steps, seed, resamples) if gives_scores else None,
        minimum_position(traces, seed, resamples) if gives_scores else None,
        {name: minimum_position(group, seed, resamples) for name, group in by_answer.items()}
        if gives_scores
        else {},
        step_index_rows(traces, threshold),
        false_positive_slice(traces, threshold, seed, resamples),
        {
            name: false_positive_slice(
                [trace for trace in traces if trace.subset == name], threshold, seed, resamples
            )
            for name in subsets
        },
    )
