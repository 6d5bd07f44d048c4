"""Labelers, verdicts, and the labels they put on steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from traces.evidence import Quote


class AbstentionReason(StrEnum):
    """Why a step or a trace has no verdict."""

    BLOCKED = "blocked"
    """The service refused to answer (safety, recitation, prohibited content)."""
    TRUNCATED = "truncated"
    """The reply was cut off at a token limit."""
    UNREADABLE = "unreadable"
    """The reply could not be parsed, or did not cover every step; or an image could not be read."""
    NO_EVIDENCE = "no_evidence"
    """The labeler says that the evidence does not settle the step."""
    OVER_LENGTH = "over_length"
    """The trace does not fit in the model's context window."""
    NOT_MEASURED = "not_measured"
    """The labeler did not look at this step (for example after the first error)."""
    MODEL_ERROR = "model_error"
    """The model call failed after all retries."""
    NO_ANSWER = "no_answer"
    """The problem has no gold answer to compare with."""
    UNPARSED = "unparsed"
    """No answer could be extracted from any continuation."""
    UNCERTAIN = "uncertain"
    """The labeler's signal is between its two thresholds."""
    DISAGREEMENT = "disagreement"
    """Two labelers name different first errors."""
    FILTERED = "filtered"
    """A quality filter removed the trace."""
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
"""Reasons after which the same labeler may succeed on a second try."""


@dataclass(frozen=True, slots=True)
class Abstention:
    """No verdict: the typed reason and a sentence that explains it."""

    reason: AbstentionReason
    detail: str = ""
    """One sentence of explanation; may be empty."""

    @property
    def retryable(self) -> bool:
        """Whether asking the same labeler again can help."""
        return self.reason in RETRYABLE


class Verdict(StrEnum):
    """What a labeler says about a step."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NEUTRAL = "neutral"


class LabelerKind(StrEnum):
    """What kind of labeler it is."""

    GOLD = "gold"
    JUDGE = "judge"
    MC = "mc"
    CONSENSUS = "consensus"
    PRM = "prm"
    EXPERT = "expert"


@dataclass(frozen=True, slots=True)
class Labeler:
    """Anything that puts verdicts or scores on steps."""

    name: str
    """Unique within a dataset."""
    kind: LabelerKind
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its full configuration (strict JSON); a second configuration under its name is refused."""
    model: str | None = None
    """The model as requested (`gemini:...`); None if no model is involved."""
    resolved_model: str | None = None
    """The model version that answered; None until known."""


@dataclass(frozen=True, slots=True)
class StepLabel:
    """One labeler's label of one step: a verdict, a score, both, or an abstention."""

    verdict: Verdict | None = None
    score: float | None = None
    """PRM step score or MC soft label in [0, 1]; None if there is none."""
    abstention: Abstention | None = None
    """Why there is neither verdict nor score; None otherwise."""
    successes: int | None = None
    """MC: continuations that reached the gold answer; None if not an MC label."""
    continuations: int | None = None
    """MC: continuations sampled, including unparsed ones; None if not an MC label."""
    unparsed: int | None = None
    """MC: continuations without an extractable answer; None if not an MC label."""
    unfinished: int | None = None
    """MC: continuations cut off at the token limit; None if not an MC label."""
    reasoning: str | None = None
    """The judge's reasoning; None if it gave none."""
    quote: Quote | None = None
    """What the judge cited; None if nothing."""


@dataclass(frozen=True, slots=True)
class TraceLabel:
    """One labeler's label of a whole trace.

    `step_labels` holds verdicts or scores per step; `first_error_given` and `first_error_index`
    hold the label of a labeler that only names the first error. With an `abstention` there is no
    usable label at all.
    """

    trace_id: str
    step_labels: tuple[StepLabel, ...] = ()
    """One per step, in order; empty if the labeler only gave a first error, or abstained."""
    first_error_given: bool = False
    """Whether the labeler itself named the first error (or said there is none)."""
    first_error_index: int | None = None
    """0-based; None means "no error" if `first_error_given`, else nothing."""
    abstention: Abstention | None = None
    """Why the trace has no label; None if it has one."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further details, such as the rule that kept the trace (strict JSON)."""


def abstained(trace_id: str, reason: AbstentionReason, detail: str = "") -> TraceLabel:
    """A trace label that is an abstention."""
    return TraceLabel(trace_id, abstention=Abstention(reason, detail))


@dataclass(frozen=True, slots=True)
class FirstError:
    """A predicted first error: an index, "no error" (None), or missing."""

    missing: bool
    """True if the label leaves the first error open."""
    index: int | None = None
    """0-based index; None means "no error" unless `missing`."""


MISSING_FIRST_ERROR = FirstError(missing=True)


def is_incorrect(step: StepLabel, threshold: float, *, tie_is_correct: bool = True) -> bool | None:
    """Whether a step is labeled incorrect; None if the labeler abstained on it.

    A verdict takes precedence over a score. A score is incorrect iff score < threshold; without
    `tie_is_correct` also if they are equal (PRMBench: correct iff score > threshold). Neutral is
    not an error.
    """
    if step.verdict is not None:
        return step.verdict is Verdict.INCORRECT
    if step.score is not None:
        return step.score < threshold or (step.score == threshold and not tie_is_correct)
    return None


def first_error(
    label: TraceLabel, threshold: float = 0.5, *, tie_is_correct: bool = True
) -> FirstError:
    """The first error that a label names: the only place that turns labels into first errors.

    That is `first_error_index` if the labeler gave one, else the first incorrect step (see
    `is_incorrect`). It is missing if an earlier step is an abstention or, where no step is
    incorrect, if any step is.
    """
    if label.abstention is not None:
        return MISSING_FIRST_ERROR
    if label.first_error_given:
        return FirstError(missing=False, index=label.first_error_index)
    if not label.step_labels:
        return MISSING_FIRST_ERROR
    for index, step in enumerate(label.step_labels):
        incorrect = is_incorrect(step, threshold, tie_is_correct=tie_is_correct)
        if incorrect is None:
            return MISSING_FIRST_ERROR
        if incorrect:
            return FirstError(missing=False, index=index)
    return FirstError(missing=False, index=None)


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote: what one model said about a whole trace, stored with the label made from it."""

    trace_id: str
    index: int
    """0-based number among this model's votes on the trace; part of the request key."""
    model: str
    """The model as requested."""
    resolved_model: str | None
    """The version that answered (several are joined by ", "); None if none did."""
    words: tuple[Verdict | AbstentionReason, ...]
    """For each step its verdict, or why it has none; empty if the whole vote is an abstention."""
    first_error: FirstError
    """The first error that the vote names; a vote with a `missing` one does not count."""
    request_keys: tuple[str, ...]
    """Content addresses of its calls: one, or one per step."""
    abstention: Abstention | None = None
    """Why there is no verdict on the trace; None if there is one."""
    escalated: bool = False
    """Whether this is the second model, asked because the votes were split."""
