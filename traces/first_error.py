"""The one rule by which a labeler's word becomes a first error (design.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from traces.labels import StepLabel, TraceLabel, Verdict


@dataclass(frozen=True, slots=True)
class FirstError:
    """A prediction: a first error index, "no error" (None), or missing."""

    missing: bool
    """True if the labeler's word leaves the first error open."""
    index: int | None = None
    """0-based index; None means "no error" unless `missing`."""


MISSING = FirstError(missing=True)


def is_incorrect(step: StepLabel, threshold: float, *, tie_is_correct: bool = True) -> bool | None:
    """Whether one step is called incorrect; None if the labeler abstained on it.

    A verdict wins over a score; a score is incorrect iff score < threshold (equal is correct,
    unless `tie_is_correct` says otherwise: PRMBench's rule is correct iff score > threshold);
    neutral is no error.
    """
    if step.verdict is not None:
        return step.verdict is Verdict.INCORRECT
    if step.score is not None:
        return step.score < threshold or (step.score == threshold and not tie_is_correct)
    return None


def first_error(
    label: TraceLabel, threshold: float = 0.5, *, tie_is_correct: bool = True
) -> FirstError:
    """The first error of one labeler on one trace.

    `first_error_index` if the labeler gave one; else the first incorrect verdict; else the first
    score < threshold. An abstained step before it, or anywhere if there is none, makes it missing.
    `tie_is_correct` as in `is_incorrect`.
    """
    if label.abstention is not None:
        return MISSING
    if label.first_error_given:
        return FirstError(missing=False, index=label.first_error_index)
    if not label.step_labels:
        return MISSING
    for index, step in enumerate(label.step_labels):
        incorrect = is_incorrect(step, threshold, tie_is_correct=tie_is_correct)
        if incorrect is None:
            return MISSING
        if incorrect:
            return FirstError(missing=False, index=index)
    return FirstError(missing=False, index=None)
