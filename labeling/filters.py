"""Quality filters: what is taken out of a training set although the labelers agree.

All are off unless asked for, and a filtered trace is stored with its reason, never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from traces.abstention import AbstentionReason
from traces.context import TraceInContext
from traces.first_error import first_error
from traces.labels import TraceLabel, Verdict, abstained


@dataclass(frozen=True, slots=True)
class QualityFilters:
    """What has to hold for a trace to be kept; the default keeps everything."""

    min_steps: int | None = None
    """Fewest steps (Med-PRM: 3); None for no limit."""
    max_steps: int | None = None
    """Most steps (Med-PRM: 9); None for no limit."""
    require_verified_quote: bool = False
    """Whether the judge must have verified quotes: on the first error, or anywhere if none."""
    no_error_before_right_answer: bool = False
    """Whether a trace with an error must not end in the right answer (a lucky or repaired one)."""
    error_before_wrong_answer: bool = False
    """Whether a trace without an error must not end in a wrong answer (an error was missed)."""


def filtered(
    context: TraceInContext,
    label: TraceLabel,
    judge_label: TraceLabel,
    filters: QualityFilters,
) -> TraceLabel:
    """The label itself, or the abstention `filtered` with the filter that took the trace out."""
    if label.abstention is not None:
        return label
    reason = filter_reason(context, label, judge_label, filters)
    if reason is None:
        return label
    return abstained(context.trace.id, AbstentionReason.FILTERED, reason)


def filter_reason(
    context: TraceInContext,
    label: TraceLabel,
    judge_label: TraceLabel,
    filters: QualityFilters,
) -> str | None:
    """Which filter a labelled trace does not pass, as a sentence; None if it passes all."""
    steps = len(context.trace.steps)
    if filters.min_steps is not None and steps < filters.min_steps:
        return f"{steps} steps, fewer than {filters.min_steps}"
    if filters.max_steps is not None and steps > filters.max_steps:
        return f"{steps} steps, more than {filters.max_steps}"
    error = first_error(label)
    right = context.trace.final_answer_correct
    if filters.no_error_before_right_answer and right is True and _names_error(label):
        return "an error, but the final answer is right"
    if (
        filters.error_before_wrong_answer
        and right is False
        and not error.missing
        and error.index is None
    ):
        return "no error, but the final answer is wrong"
    if filters.require_verified_quote and not _is_grounded(label, judge_label):
        return "no verified quote"
    return None


def _names_error(label: TraceLabel) -> bool:
    """Whether any step is called incorrect, also behind steps that are left open."""
    error = first_error(label)
    if not error.missing:
        return error.index is not None
    return any(step.verdict is Verdict.INCORRECT for step in label.step_labels)


def _is_grounded(label: TraceLabel, judge_label: TraceLabel) -> bool:
    """Whether the judge cited what stands in the evidence where it matters."""
    error = first_error(label)
    steps = judge_label.step_labels
    if error.index is not None:
        steps = steps[error.index : error.index + 1]
    return any(step.quote is not None and step.quote.verified for step in steps)
