"""A trace with everything a labeler may look at."""

from __future__ import annotations

from dataclasses import dataclass

from traces.evidence import Evidence
from traces.problem import Problem, Trace


@dataclass(frozen=True, slots=True)
class TraceInContext:
    """What every labeling stage takes: the trace, its problem, and the evidence for it."""

    problem: Problem
    """The problem."""
    trace: Trace
    """The trace."""
    evidence: tuple[Evidence, ...] = ()
    """Retrieved evidence, best first; empty if none was retrieved."""
