"""Labelers, verdicts, and the labels they put on steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from traces.evidence import Quote


class AbstentionReason(StrEnum):
    """Why a step or a trace has no verdict (design.md section 2)."""

    BLOCKED = "blocked"
    """The service refused to answer (safety, recitation, prohibited content)."""
    TRUNCATED = "truncated"
    """The reply was cut at a token limit."""
    UNREADABLE = "unreadable"
    """The reply could not be parsed, or did not cover every step; or an image could not be read."""
    NO_EVIDENCE = "no_evidence"
    """The labeler says that the evidence does not decide the step."""
    OVER_LENGTH = "over_length"
    """The trace does not fit into the model's window."""
    NOT_MEASURED = "not_measured"
    """The labeler did not look at this step (for example after the first error)."""
    MODEL_ERROR = "model_error"
    """The model call failed after all retries."""
    NO_ANSWER = "no_answer"
    """The problem has no gold answer to compare with."""
    UNPARSED = "unparsed"
    """No answer could be extracted from any continuation."""
    UNCERTAIN = "uncertain"
    """The labeler's signal lies between its two thresholds."""
    DISAGREEMENT = "disagreement"
    """Two labelers name different first errors."""
    FILTERED = "filtered"
    """A quality filter took the trace out."""
    GOLD_UNUSABLE = "gold_unusable"
    """The gold annotation points outside the trace's steps."""


RETRYABLE = frozenset(
    {
        AbstentionReason.MODEL_ERROR,
        AbstentionReason.TRUNCATED,
        AbstentionReason.UNREADABLE,
        AbstentionReason.OVER_LENGTH,
    }
)
"""Reasons after which the same labeler may succeed when it is asked again."""


@dataclass(frozen=True, slots=True)
class Abstention:
    """No verdict, with its typed reason and a sentence for a person."""

    reason: AbstentionReason
    """The typed reason."""
    detail: str = ""
    """One sentence of explanation; may be empty."""

    @property
    def retryable(self) -> bool:
        """Whether asking the same labeler again can help."""
        return self.reason in RETRYABLE


# --- Labelers, verdicts, and the labels they put on steps


class Verdict(StrEnum):
    """A labeler's word on a step."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NEUTRAL = "neutral"


class LabelerKind(StrEnum):
    """What kind of thing puts the labels (design.md section 2)."""

    GOLD = "gold"
    JUDGE = "judge"
    MC = "mc"
    CONSENSUS = "consensus"
    PRM = "prm"
    EXPERT = "expert"


@dataclass(frozen=True, slots=True)
class Labeler:
    """Whatever puts verdicts or scores on steps."""

    name: str
    """Unique within a dataset."""
    kind: LabelerKind
    """What it is."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its full configuration (strict JSON); the same name with another one is refused."""
    model: str | None = None
    """The model as asked for (`gemini:...`); None where no model is involved."""
    resolved_model: str | None = None
    """The model version that really answered; None until known."""


@dataclass(frozen=True, slots=True)
class StepLabel:
    """One labeler's word on one step: a verdict, a score, both, or an abstention."""

    verdict: Verdict | None = None
    """correct, incorrect or neutral; None if there is none."""
    score: float | None = None
    """PRM step score or MC soft label in [0, 1]; None if there is none."""
    abstention: Abstention | None = None
    """Why there is neither; None if there is a verdict or a score."""
    successes: int | None = None
    """MC: continuations that reached the gold answer; None if not an MC label."""
    continuations: int | None = None
    """MC: continuations drawn, unparsed ones included; None if not an MC label."""
    unparsed: int | None = None
    """MC: continuations without an extractable answer; None if not an MC label."""
    unfinished: int | None = None
    """MC: continuations cut at the token limit; None if not an MC label."""
    reasoning: str | None = None
    """The judge's reasoning; None if it gave none."""
    quote: Quote | None = None
    """What the judge cited; None if nothing."""


@dataclass(frozen=True, slots=True)
class TraceLabel:
    """One labeler's word on a whole trace, step by step.

    `first_error_given` with `first_error_index` carries labelers that name a first error
    (and nothing more); `step_labels` carries per-step verdicts or scores. An `abstention`
    means that there is no usable word on the trace at all.
    """

    trace_id: str
    """The trace."""
    step_labels: tuple[StepLabel, ...] = ()
    """One per step of the trace, in order; empty if the labeler gave a first error only, or abstained."""
    first_error_given: bool = False
    """Whether the labeler itself named the first error (or said there is none)."""
    first_error_index: int | None = None
    """0-based; None means "no error" if `first_error_given`, else nothing."""
    abstention: Abstention | None = None
    """Why there is no word on the trace; None if there is one."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What else is worth keeping, e.g. the rule that kept the trace (strict JSON)."""


def abstained(trace_id: str, reason: AbstentionReason, detail: str = "") -> TraceLabel:
    """A trace label that says nothing but why."""
    return TraceLabel(trace_id, abstention=Abstention(reason, detail))


# --- The one rule by which a labeler's word becomes a first error (design.md section 3)


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


# --- One model's reading of one trace, kept beside the label that was made from it


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote: what one model said about a whole trace under one vote index."""

    trace_id: str
    """The trace."""
    index: int
    """0-based number among this model's votes on the trace; part of the request key."""
    model: str
    """The model as asked for."""
    resolved_model: str | None
    """The version that answered (several are joined by ", "); None if none did."""
    words: tuple[Verdict | AbstentionReason, ...]
    """For each step its verdict or why there is none; empty if the vote abstains as a whole."""
    first_error: FirstError
    """The first error that the vote names; `missing` if it leaves it open: such a vote does not count."""
    request_keys: tuple[str, ...]
    """Content addresses of the calls behind it: one, or one per step."""
    abstention: Abstention | None = None
    """Why there is no word on the trace; None if there is one."""
    escalated: bool = False
    """Whether the split of the others was put to this model."""
