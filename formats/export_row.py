"""What is written of a labelled trace, and what a format cannot carry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from traces.abstention import AbstentionReason
from traces.evidence import Evidence
from traces.first_error import MISSING, FirstError, first_error
from traces.labels import Labeler, TraceLabel, Verdict
from traces.problem import Problem, Trace


class FormatLimit(StrEnum):
    """Why a format cannot carry a label that is there."""

    NOT_CARRIED = "not_carried"
    """The format has no place for it (a score where verdicts are needed, its marker inside a step)."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """A trace to be written, with one labeler's word on it."""

    problem: Problem
    """The problem."""
    trace: Trace
    """The trace."""
    label: TraceLabel
    """The label to write."""
    labeler: Labeler
    """Who put it."""
    evidence: tuple[Evidence, ...] = ()
    """Evidence of the problem, best first."""
    support: tuple[tuple[Labeler, TraceLabel], ...] = ()
    """Labels that this one rests on (a consensus rests on a judge's and an MC labeler's)."""


@dataclass(frozen=True, slots=True)
class SkippedTrace:
    """A trace that was not written."""

    trace_id: str
    """The trace."""
    reason: AbstentionReason | FormatLimit
    """Why: the labeler's own reason, or that the format cannot carry the label."""
    detail: str = ""
    """One sentence."""


class CannotCarry(ValueError):
    """Raised by a format for a label it cannot write honestly."""

    def __init__(self, reason: AbstentionReason | FormatLimit, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        """Why, typed."""
        self.detail = detail
        """Why, in a sentence."""


def require_word(row: ExportRow) -> None:
    """Refuse a trace on which the labeler abstained as a whole, or said nothing."""
    if row.label.abstention is not None:
        raise CannotCarry(row.label.abstention.reason, row.label.abstention.detail)
    if not row.label.first_error_given and not row.label.step_labels:
        raise CannotCarry(AbstentionReason.NOT_MEASURED, "the labeler says nothing about the trace")


def stated_first_error(row: ExportRow) -> int | None:
    """The first error a labeler states by itself, 0-based, None for no error.

    Formats apply no threshold, so a labeler that gives scores only is refused.
    """
    require_word(row)
    if not row.label.first_error_given and any(
        step.verdict is None and step.score is not None for step in row.label.step_labels
    ):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, "the label is a score; this format carries verdicts"
        )
    found: FirstError = first_error(row.label)
    if found == MISSING:
        reason = next(
            (
                step.abstention.reason
                for step in row.label.step_labels
                if step.abstention is not None
            ),
            AbstentionReason.NOT_MEASURED,
        )
        raise CannotCarry(reason, "a step before the first error has no verdict")
    return found.index


def binary_verdicts(row: ExportRow) -> list[bool]:
    """One true (correct) or false per step, as far as the label goes.

    Neutral is no error. Steps behind the first error on which the labeler is silent are left
    out, so the list may be shorter than the trace: nothing is made up for them.
    """
    error = stated_first_error(row)
    if error is None:
        return [True] * len(row.trace.steps)
    known = [True] * error + [False]
    for step in row.label.step_labels[error + 1 :]:
        if step.verdict is None:
            break
        known.append(step.verdict is not Verdict.INCORRECT)
    return known


def whole_verdicts(row: ExportRow) -> list[bool]:
    """One true (correct) or false for every step, for formats in which no step is left open.

    A first error alone says nothing about the steps behind it, so such a label is refused.
    """
    verdicts = binary_verdicts(row)
    if len(verdicts) < len(row.trace.steps):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED,
            f"step {len(verdicts) + 1} has no verdict; this format needs one for every step",
        )
    return verdicts


def values_of(row: ExportRow) -> tuple[list[bool] | list[float], bool]:
    """What a training set says about the steps: verdicts, or scores where there are no verdicts.

    Returns:
        One value per step, as far as the label goes (see `binary_verdicts`), and whether they are
        scores in [0, 1].
    """
    require_word(row)
    steps = row.label.step_labels
    scores = [step.score for step in steps if step.score is not None]
    # A verdict wins over a score, so where there is one, scores alone would say something else.
    silent = not row.label.first_error_given and all(step.verdict is None for step in steps)
    if silent and scores and len(scores) == len(steps):
        return scores, True
    return binary_verdicts(row), False
