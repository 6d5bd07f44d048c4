"""What an evaluation looks at: the gold label of a trace, and the label to evaluate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from traces import (
    MISSING_FIRST_ERROR,
    FirstError,
    StepLabel,
    TraceLabel,
    Verdict,
    first_error,
    is_incorrect,
)


@dataclass(frozen=True, slots=True)
class EvaluatedTrace:
    """One trace with its gold label and the label to evaluate."""

    trace_id: str
    problem_id: str
    """Traces of one problem are resampled together."""
    subset: str
    """The part of the dataset it is reported under."""
    n_steps: int
    """Number of steps, at least 1."""
    gold: TraceLabel | None
    """None if the trace is not annotated."""
    predicted: TraceLabel | None
    """The label to evaluate; None if the labeler has not labeled the trace."""
    final_answer_correct: bool | None = None
    """Whether the trace ends with the gold answer; None if unknown."""


@dataclass(frozen=True, slots=True)
class GoldSplit:
    """Traces that can be evaluated, and how many cannot."""

    usable: tuple[EvaluatedTrace, ...]
    """Traces whose gold label is not an abstention."""
    gold_unusable: int
    """Traces whose gold is an abstention."""
    gold_missing: int
    """Traces without any gold."""


def split_by_gold(traces: Iterable[EvaluatedTrace]) -> GoldSplit:
    """Separate the traces without usable gold, which are counted and never scored."""
    usable, unusable, missing = [], 0, 0
    for trace in traces:
        if trace.gold is None:
            missing += 1
        elif trace.gold.abstention is not None:
            unusable += 1
        else:
            usable.append(trace)
    return GoldSplit(tuple(usable), unusable, missing)


def predicted_error(label: TraceLabel | None, threshold: float) -> FirstError:
    """The first error of a label; missing if there is no label."""
    return MISSING_FIRST_ERROR if label is None else first_error(label, threshold)


def step_calls(
    trace: EvaluatedTrace,
    label: TraceLabel | None,
    threshold: float,
    *,
    tie_is_correct: bool = True,
) -> list[bool | None]:
    """Per step whether the label calls it incorrect; None for unlabeled steps.

    A label with only a first error calls the steps before it correct and does not label later ones.
    A score that equals the threshold is correct iff `tie_is_correct`.

    Raises:
        ValueError: the numbers of steps of label and trace differ.
    """
    calls: list[bool | None] = [None] * trace.n_steps
    if label is None or label.abstention is not None:
        return calls
    if label.first_error_given:
        end = trace.n_steps if label.first_error_index is None else label.first_error_index
        calls[:end] = [False] * end
        if label.first_error_index is not None:
            calls[end] = True
    for index, step in enumerate(_steps(trace, label)):
        called = is_incorrect(step, threshold, tie_is_correct=tie_is_correct)
        calls[index] = calls[index] if called is None else called
    return calls


def neutral_steps(trace: EvaluatedTrace, label: TraceLabel) -> set[int]:
    """0-based indices of the steps that a label calls neutral."""
    return {
        index for index, step in enumerate(_steps(trace, label)) if step.verdict is Verdict.NEUTRAL
    }


def _steps(trace: EvaluatedTrace, label: TraceLabel) -> tuple[StepLabel, ...]:
    if label.step_labels and len(label.step_labels) != trace.n_steps:
        raise ValueError(
            f"{len(label.step_labels)} step labels for the {trace.n_steps} steps of trace"
            f" '{trace.trace_id}'"
        )
    return label.step_labels
