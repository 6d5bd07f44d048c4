"""What has been drawn of one trace so far: continuations by step, and what is known without any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from traces.records import Continuation


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the hard label of a step is decided."""

    k: int
    """Continuations at most."""
    threshold: int
    """A step is correct iff successes > threshold among `k`."""


@dataclass(slots=True)
class Drawn:
    """Counts of one trace, step by step; strategies look at nothing else."""

    steps: int
    """Steps of the trace."""
    known: Mapping[int, bool] = field(default_factory=dict)
    """Hard labels that need no continuation (a last step taken from the outcome)."""
    by_step: list[list[Continuation]] = field(init=False)
    """Continuations by step, by number."""
    rounds: int = 0
    """How often something was drawn."""
    prefilled_tokens: int = 0
    """Tokens of prefixes computed for it."""
    near_ties: int | None = None
    """Choices of tokens that another batch might make otherwise; None where the policy does not count."""

    def __post_init__(self) -> None:
        self.by_step = [[] for _ in range(self.steps)]

    def add(self, continuations: Iterable[Continuation]) -> None:
        """Take what was drawn in a round."""
        for one in continuations:
            self.by_step[one.step_index].append(one)
        for of_step in self.by_step:
            of_step.sort(key=lambda one: one.index)
        self.rounds += 1

    def count_near_ties(self, more: int | None) -> None:
        """Add what the policy counted in a round, if it does."""
        if more is not None:
            self.near_ties = more + (self.near_ties or 0)

    def n(self, step: int) -> int:
        """Continuations of a step so far."""
        return len(self.by_step[step])

    def successes(self, step: int) -> int:
        """Of these, how many reached the gold answer."""
        return sum(one.correct is True for one in self.by_step[step])

    def decided(self, step: int, bounds: Bounds) -> bool | None:
        """The hard label that all `k` continuations give, whatever the rest says; None if open."""
        if step in self.known:
            return self.known[step]
        successes = self.successes(step)
        if successes > bounds.threshold:
            return True
        left = bounds.k - self.n(step)
        return False if successes + left <= bounds.threshold else None
