"""Traces to evaluate, built from plain lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.evaluated import EvaluatedTrace
from evaluation.frames import FirstErrors
from traces.labels import Abstention, AbstentionReason, FirstError, StepLabel, TraceLabel, Verdict

VERDICTS = {1: Verdict.CORRECT, 0: Verdict.NEUTRAL, -1: Verdict.INCORRECT}
SILENT = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED))
ABSTAINED = TraceLabel("t", abstention=Abstention(AbstentionReason.GOLD_UNUSABLE))
N_STEPS = 10


def first(index: int | None) -> TraceLabel:
    """A label that gives a first error only; -1 is no error."""
    return TraceLabel("t", first_error_given=True, first_error_index=None if index == -1 else index)


def verdicts(numbers: Sequence[int | None]) -> TraceLabel:
    """A label with one verdict (1, 0, -1) or silence (None) per step."""
    return TraceLabel(
        "t", tuple(SILENT if number is None else StepLabel(VERDICTS[number]) for number in numbers)
    )


def scores(values: Sequence[float | None]) -> TraceLabel:
    """A label with one score or silence per step."""
    return TraceLabel(
        "t", tuple(SILENT if value is None else StepLabel(score=value) for value in values)
    )


def trace(
    gold: TraceLabel | None,
    predicted: TraceLabel | None,
    *,
    id: str = "t",
    problem: str | None = None,
    subset: str = "default",
    n_steps: int | None = None,
) -> EvaluatedTrace:
    """One trace; its length is that of its step labels, else `N_STEPS`."""
    lengths = [
        len(label.step_labels)
        for label in (gold, predicted)
        if label is not None and label.step_labels
    ]
    return EvaluatedTrace(
        id, problem or id, subset, n_steps or (lengths[0] if lengths else N_STEPS), gold, predicted
    )


def errors(*found: FirstError) -> FirstErrors:
    """First errors as columns."""
    return FirstErrors(
        missing=np.array([one.missing for one in found], dtype=np.bool_),
        named=np.array([one.index is not None for one in found], dtype=np.bool_),
        index=np.array([one.index or 0 for one in found], dtype=np.int64),
    )


def first_errors(
    labels: Sequence[int],
    predictions: Sequence[int | None],
    *,
    subset: str = "default",
    per_problem: int = 1,
) -> list[EvaluatedTrace]:
    """Traces from ProcessBench's own numbers; None is a missing prediction."""
    return [
        trace(
            first(label),
            None if predicted is None else first(predicted),
            id=f"{subset}{number}",
            problem=f"{subset}p{number // per_problem}",
            subset=subset,
        )
        for number, (label, predicted) in enumerate(zip(labels, predictions, strict=True))
    ]
