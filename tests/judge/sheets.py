"""Small contexts for the judge's tests."""

from __future__ import annotations

from collections.abc import Sequence

from traces.evidence import Evidence, Passage
from traces.problem import Problem, Trace, TraceInContext

PASSAGE = (
    "Zentide dose is 6 mg per kg. Zentide cap is 300 mg. Zentide is halved below eGFR 40. "
    "Zentide is contraindicated in epilepsy."
)


def evidence(*texts: str) -> tuple[Evidence, ...]:
    """Evidence with the given texts, best first."""
    return tuple(
        Evidence(Passage("guide", f"doc{n}", 0, 0, len(text), text, f"Title {n}"), 0.9, n)
        for n, text in enumerate(texts)
    )


def context(
    steps: Sequence[str] = ("Zentide dose is 6 mg per kg.", "6 x 120 = 720 mg."),
    *passages: str,
    trace_id: str = "t1",
    question: str = "A patient of 120 kg needs Zentide. Which single dose?",
    options: tuple[str, ...] = (),
    answer: str | None = "GOLD-ANSWER-300",
    meta: dict[str, object] | None = None,
) -> TraceInContext:
    """A trace in context."""
    problem = Problem(f"p-{trace_id}", question, options, answer, meta=meta or {})
    return TraceInContext(problem, Trace(trace_id, problem.id, tuple(steps)), evidence(*passages))
