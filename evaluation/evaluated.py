"""What an evaluation looks at: the truth on a trace, and a labeler's word on it."""

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
    """One trace with its gold label and the label under trial."""

    trace_id: str
    """The trace."""
    problem_id: str
    """Its problem: traces of one problem are resampled together."""
    subset: str
    """The part of the dataset it is reported under."""
    n_steps: int
    """Number of steps, at least 1."""
    gold: TraceLabel | None
    """The truth; None if nobody annotated the trace."""
    predicted: TraceLabel | None
    """The label under trial; None if the labeler has none stored."""
    final_answer_correct: bool | None = None
    """Whether the trace ends with the gold answer; None if unknown."""


@dataclass(frozen=True, slots=True)
class GoldSplit:
    """Traces that can be evaluated, and how many cannot."""

    usable: tuple[EvaluatedTrace, ...]
    """Traces with a gold label that says something."""
    gold_unusable: int
    """Traces whose gold is an abstention."""
    gold_missing: int
    """Traces without any gold."""


def split_by_gold(traces: Iterable[EvaluatedTrace]) -> GoldSplit:
    """Set the traces apart that have no usable truth: they are counted, never scored."""
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
    """The first error of a label that may not be there; missing if it is not."""
    return MISSING_FIRST_ERROR if label is None else first_error(label, threshold)


def step_calls(
    trace: EvaluatedTrace,
    label: TraceLabel | None,
    threshold: float,
    *,
    tie_is_correct: bool = True,
) -> list[bool | None]:
    """Per step whether the label calls it incorrect; None where it is silent.

    A label that gives a first error only calls the steps before it correct and is silent behind it.
    A score that equals the threshold is correct iff `tie_is_correct`.

    Raises:
        ValueError: the label has another number of steps than the trace.
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
        said = is_incorrect(step, threshold, tie_is_correct=tie_is_correct)
        calls[index] = calls[index] if said is None else said
    return calls


def neutral_steps(trace: EvaluatedTrace, label: TraceLabel) -> set[int]:
    """0-based indices of the steps that a label calls neutral."""
    return {
        index for index, step in enumerate(_steps(trace, label)) if step.verdict is Verdict.NEUTRAL
    }


def _steps(trace: EvaluatedTrace, label: TraceLabel) -> tuple[StepLabel, ...]:
    if label.step_labels and len(label.step_labels) != trace.n_steps:
        raise ValueError(
            f"{len(label.step_labels)} step labels for the {trace.n_steps} steps of trace '{trace.trace_id}'"
        )
    return label.step_labels
