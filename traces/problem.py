"""Problems and their traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from traces.evidence import Evidence
from traces.labels import Abstention


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with what is needed to answer it and to check the answer."""

    id: str
    """Unique within a dataset; the trace id or a hash of the question where a format has none."""
    question: str
    """The question as shown to a model, without the options."""
    options: tuple[str, ...] = ()
    """Answer options in order (A, B, ...); empty for open questions."""
    answer: str | None = None
    """The gold answer: an option letter where there are options; None if unknown."""
    images: tuple[str, ...] = ()
    """Paths of images that belong to the question."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the source (strict JSON)."""

    @property
    def shown_question(self) -> str:
        """The question after the modality and the clinical context, where the source states them.

        Labelers, policies and retrieval see this text.
        """
        stated = {"modality": self.meta.get("modality")}
        context = self.meta.get("clinical_context")
        if isinstance(context, Mapping):
            stated |= context
        lines = [
            f"{name.replace('_', ' ').capitalize()}: {_in_words(value)}"
            for name, value in stated.items()
            if value not in (None, "", [], {})
        ]
        return "\n".join([*lines, "", self.question]) if lines else self.question


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True, slots=True)
class Trace:
    """One solution as a list of steps."""

    id: str
    """Unique within a dataset."""
    problem_id: str
    steps: tuple[str, ...]
    """The steps in order, at least one; step indices are 0-based."""
    subset: str = "default"
    """The part of the dataset under which it is reported."""
    generator: str | None = None
    """The model that wrote the trace; None if unknown."""
    final_answer: str | None = None
    """The answer the trace ends with; None if unknown."""
    final_answer_correct: bool | None = None
    """Whether that answer is the gold answer; None if unknown."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the source (strict JSON)."""

    def prefix(self, step_index: int) -> tuple[str, ...]:
        """The steps up to and including `step_index` (0-based)."""
        return self.steps[: step_index + 1]


@dataclass(frozen=True, slots=True)
class TraceInContext:
    """What every labeling stage takes: a trace, its problem, and the evidence for it."""

    problem: Problem
    trace: Trace
    evidence: tuple[Evidence, ...] = ()
    """Retrieved evidence, best first; empty if none was retrieved."""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One continuation of a prefix as the policy wrote it, before its answer is read."""

    step_index: int
    """0-based index of the last step of the prefix it continues."""
    index: int
    """0-based number among the continuations of that prefix."""
    text: str
    """The new text, without the prefix."""
    finish_reason: str
    """`stop` or `length` (or the service's own word)."""
    tokens: int = 0
    """Tokens generated."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Continuations to sample from one prefix: numbers `first` to `first + count - 1`."""

    step_index: int
    """0-based index of the last step of the prefix."""
    first: int
    """0-based number of the first one."""
    count: int
    """How many, at least 1."""


@dataclass(frozen=True, slots=True)
class TraceContinuations:
    """The continuations of one trace that were asked for."""

    trace_id: str
    texts: tuple[PolicyText, ...]
    """Sorted by (step_index, index)."""
    resolved_model: str | None = None
    """The policy version that answered; several are joined by commas."""
    abstention: Abstention | None = None
    """Set if the policy could not continue this trace at all."""
    prefilled_tokens: int = 0
    """Prefix tokens computed for these texts; 0 if a server does not report them."""
    near_ties: int | None = None
    """Token choices whose two best candidates were nearly tied, so that another batch composition
    might choose the other one; None if the policy does not count them."""


@dataclass(frozen=True, slots=True)
class SampledText:
    """One whole solution as a policy wrote it."""

    index: int
    """0-based number among the candidates of its problem."""
    text: str
    """The solution."""
    finish_reason: str
    """`stop` or `length` (or the service's own word)."""
    tokens: int = 0
    """Tokens generated."""


@dataclass(frozen=True, slots=True)
class ProblemSamples:
    """The solutions written for one problem in one round."""

    problem_id: str
    texts: tuple[SampledText, ...]
    """Sorted by number."""
    resolved_model: str | None = None
    """The policy version that answered."""
    abstention: Abstention | None = None
    """Set if the policy could not write for this problem."""
