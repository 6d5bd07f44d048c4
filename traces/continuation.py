"""What a policy writes after the prefixes of a trace, before any answer is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from traces.abstention import Abstention


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
