"""Step scores beside the truth, as columns: every measure of a score without a threshold reads these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.evaluated import EvaluatedTrace, neutral_steps, split_by_gold, step_calls
from evaluation.measures import Floats, Mask


@dataclass(frozen=True, slots=True)
class ScoredSteps:
    """The steps that have both a score and a truth; all columns have the same length."""

    score: Floats
    """In [0, 1]: how good the labeler holds the step to be."""
    correct: Mask
    """Whether gold calls the step correct."""
    problem: NDArray[np.int64]
    """Number of the step's problem, 0-based, without gaps."""
    unscored: int
    """Steps with a truth, but without a score: left out, counted."""

    def __len__(self) -> int:
        return len(self.score)


def scored_steps(traces: Iterable[EvaluatedTrace]) -> ScoredSteps:
    """The scored steps of traces with usable gold.

    Steps that gold calls neutral are left out, and where gold is a first error only, those behind it.
    """
    scores: list[float] = []
    correct: list[bool] = []
    problems: list[int] = []
    numbers: dict[str, int] = {}
    unscored = 0
    for trace in split_by_gold(traces).usable:
        if trace.gold is None:
            continue
        neutral = neutral_steps(trace, trace.gold)
        truth = step_calls(trace, trace.gold, 0.5)
        said = step_scores(trace)
        for index, (incorrect, score) in enumerate(zip(truth, said, strict=True)):
            if incorrect is None or index in neutral:
                continue
            if score is None:
                unscored += 1
                continue
            scores.append(score)
            correct.append(not incorrect)
            problems.append(numbers.setdefault(trace.problem_id, len(numbers)))
    return ScoredSteps(
        np.array(scores, dtype=np.float64),
        np.array(correct, dtype=np.bool_),
        np.array(problems, dtype=np.int64),
        unscored,
    )


def step_scores(trace: EvaluatedTrace) -> list[float | None]:
    """The labeler's score of each step; None where it gave none.

    Raises:
        ValueError: the label has another number of steps than the trace.
    """
    label = trace.predicted
    if label is None or not label.step_labels:
        return [None] * trace.n_steps
    if len(label.step_labels) != trace.n_steps:
        raise ValueError(
            f"{len(label.step_labels)} step labels for the {trace.n_steps} steps of trace '{trace.trace_id}'"
        )
    return [step.score for step in label.step_labels]
