"""The parity gate: a server's scores are taken only where they are those of the checkpoint at hand.

A server that reads another tokenizer's ids, other weights or other positions gives scores that look like
scores. So before anything is stored, some traces are scored by both. Limits as in the facts on
scoring (`max |dp| < 0.02`, the same first error on 99.5% of the traces).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from traces import PrmError, TraceLabel

THRESHOLD: Final = 0.5
"""A step below it is wrong, for the first error."""
AGREEMENT: Final = 0.995
"""Share of traces whose first error must be the same."""
NEAR_TIE: Final = 2.0**-8
"""A first error that differs does not count against the server where both scores lie this close to the
threshold: that is one step of bfloat16 there, and which side it falls on says nothing."""

Compared = tuple[str, int, float, float]
"""Trace, 0-based step, the checkpoint's score, the server's."""


@dataclass(frozen=True, slots=True)
class ParityRules:
    """How much may differ, and on how many traces it is looked at."""

    sample: int = 32
    """Traces scored by both, drawn by the seed; all where there are fewer."""
    limit: float = 0.02
    """Largest difference of a step score, in (0, 1]."""
    seed: int = 0
    """Of the draw."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What the comparison found."""

    traces: int
    """Traces scored by both, at least 1."""
    steps: int
    """Their steps with a score."""
    max_difference: float
    """Largest difference of a step score, in [0, 1]."""
    worst: Compared
    """Where it is."""
    first_errors: int
    """Traces whose first error is the same."""
    near_ties: int
    """Traces whose first error differs at a step that is a near tie."""

    @property
    def agreement(self) -> float:
        """Share of traces whose first error is the same, near ties counted as the same."""
        return (self.first_errors + self.near_ties) / self.traces

    def passes(self, limit: float) -> bool:
        """Whether the server may score."""
        return self.max_difference <= limit and self.agreement >= AGREEMENT

    def as_dict(self) -> dict[str, Any]:
        """For the labeler's configuration."""
        return {
            "traces": self.traces,
            "steps": self.steps,
            "max_difference": round(self.max_difference, 9),
            "first_error_agreement": self.agreement,
            "near_ties": self.near_ties,
        }


def compare(here: Mapping[str, TraceLabel], there: Mapping[str, TraceLabel]) -> Parity:
    """Hold the server's labels against the checkpoint's.

    Args:
        here: by the engine on this machine, at least one trace with a score.
        there: by the server, for the same traces.

    Raises:
        PrmError: the server gave no score where the checkpoint gives one, or the other way round; or
            there is nothing to compare.
    """
    told: list[Compared] = []
    same, ties = 0, 0
    for trace_id, ours in here.items():
        mine, theirs = _scores(ours), _scores(there.get(trace_id))
        if [score is None for score in mine] != [score is None for score in theirs]:
            raise PrmError(
                "The server scores other steps than the checkpoint on this machine"
                f"{_why(there.get(trace_id))}.",
                where=f'trace "{trace_id}"',
                remedy="look at the server's log, or ask it by another --route",
            )
        steps = [
            (trace_id, step, a, b)
            for step, (a, b) in enumerate(zip(mine, theirs, strict=True))
            if a is not None and b is not None
        ]
        told += steps
        apart = _first_error_apart(steps)
        same += apart is None
        ties += apart is not None and _is_near_tie(apart)
    if not told:
        raise PrmError(
            "No trace can be scored both by the server and on this machine: nothing can be compared.",
            remedy="import traces that fit into the window",
        )
    worst = max(told, key=_difference)
    return Parity(len(here), len(told), _difference(worst), worst, same, ties)


def _first_error_apart(steps: Sequence[Compared]) -> Compared | None:
    """The step at which the two see their first error apart; None if they see the same."""
    for one in steps:
        _, _, here, there = one
        if (here < THRESHOLD) != (there < THRESHOLD):
            return one
        if here < THRESHOLD:
            return None
    return None


def _is_near_tie(one: Compared) -> bool:
    _, _, here, there = one
    return max(abs(here - THRESHOLD), abs(there - THRESHOLD)) <= NEAR_TIE


def _difference(one: Compared) -> float:
    _, _, here, there = one
    return abs(here - there)


def refusal(spec: str, parity: Parity, limit: float) -> PrmError:
    """What is told of a server that does not pass."""
    trace_id, step, here, there = parity.worst
    return PrmError(
        f'"{spec}" does not score as the checkpoint does, so nothing was stored: step scores differ by up'
        f" to {parity.max_difference:.4f} (at most {limit:g}), first errors agree on"
        f" {parity.agreement:.1%} of {parity.traces} traces (at least {AGREEMENT:.1%}).",
        where=f'trace "{trace_id}", step {step + 1}: {here:.4f} here, {there:.4f} there',
        remedy="serve the weights of --checkpoint, unquantised, with --family's head; --parity-limit"
        " sets what may differ",
    )


def _scores(label: TraceLabel | None) -> list[float | None]:
    return [] if label is None else [step.score for step in label.step_labels]


def _why(label: TraceLabel | None) -> str:
    told = label.abstention if label is not None else None
    return f": {told.detail.rstrip('.')}" if told is not None and told.detail else ""
