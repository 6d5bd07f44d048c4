"""Labelers, verdicts, and the labels they put on steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from traces.abstention import Abstention, AbstentionReason
from traces.evidence import Quote


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
