"""Problems and their traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from traces.evidence import Evidence
from traces.labels import Abstention


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with what is needed to answer and to check it."""

    id: str
    """Unique within a dataset. Formats that list traces only use the trace id or a hash of the question."""
    question: str
    """The question as shown to a model, without the options."""
    options: tuple[str, ...] = ()
    """Answer options in order (A, B, ...); empty for open questions."""
    answer: str | None = None
    """The gold answer: an option letter where there are options; None if unknown."""
    images: tuple[str, ...] = ()
    """Paths of images that belong to the question."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the source said beyond our fields (strict JSON)."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One solution as a list of steps."""

    id: str
    """Unique within a dataset."""
    problem_id: str
    """The problem this trace tries to solve."""
    steps: tuple[str, ...]
    """The steps in order, at least one; step index is 0-based."""
    subset: str = "default"
    """The part of the dataset it is reported under."""
    generator: str | None = None
    """The model that wrote the trace; None if unknown."""
    final_answer: str | None = None
    """The answer the trace ends with; None if unknown."""
    final_answer_correct: bool | None = None
    """Whether that answer is the gold answer; None if unknown."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the source said beyond our fields (strict JSON)."""

    def prefix(self, step_index: int) -> tuple[str, ...]:
        """The steps up to and with `step_index` (0-based)."""
        return self.steps[: step_index + 1]


# --- A trace with everything a labeler may look at


@dataclass(frozen=True, slots=True)
class TraceInContext:
    """What every labeling stage takes: the trace, its problem, and the evidence for it."""

    problem: Problem
    """The problem."""
    trace: Trace
    """The trace."""
    evidence: tuple[Evidence, ...] = ()
    """Retrieved evidence, best first; empty if none was retrieved."""


# --- What a policy writes after the prefixes of a trace, before any answer is looked at


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One completion as a policy wrote it, before its answer is looked at."""

    step_index: int
    """0-based index of the last step of the prefix it continues."""
    index: int
    """0-based number of the continuation for that prefix."""
    text: str
    """The new text, without the prefix."""
    finish_reason: str
    """`stop` or `length` (or the service's own word)."""
    tokens: int = 0
    """Tokens generated."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Continuations to be drawn from one prefix: numbers `first` to `first + count - 1`."""

    step_index: int
    """0-based index of the last step of the prefix."""
    first: int
    """0-based number of the first one."""
    count: int
    """How many, at least 1."""


@dataclass(frozen=True, slots=True)
class TraceContinuations:
    """All continuations of one trace."""

    trace_id: str
    """The trace."""
    texts: tuple[PolicyText, ...]
    """Sorted by (step_index, index)."""
    resolved_model: str | None = None
    """The policy version that really answered; several are joined by commas."""
    abstention: Abstention | None = None
    """Set if the policy could not continue this trace at all."""
    prefilled_tokens: int = 0
    """Tokens of prefixes that were computed for these texts; 0 where a server does not say."""
    near_ties: int | None = None
    """Choices of tokens in which the two best lay too near to be sure of; None where nobody counts."""


@dataclass(frozen=True, slots=True)
class SampledText:
    """One whole solution as a policy wrote it."""

    index: int
    """0-based number of the candidate for its problem."""
    text: str
    """The solution."""
    finish_reason: str
    """`stop` or `length` (or the service's own word)."""
    tokens: int = 0
    """Tokens generated."""


@dataclass(frozen=True, slots=True)
class ProblemSamples:
    """What was written for one problem in one round."""

    problem_id: str
    """The problem."""
    texts: tuple[SampledText, ...]
    """Sorted by number."""
    resolved_model: str | None = None
    """The policy version that really answered."""
    abstention: Abstention | None = None
    """Set if the policy could not write for this problem."""
