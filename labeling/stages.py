"""The stages as the pipeline sees them. Implementations live in retrieval, judge, inference, lab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from traces.context import TraceInContext
from traces.continuation import PolicyText, TraceContinuations
from traces.evidence import Evidence
from traces.labels import TraceLabel
from traces.problem import Problem

__all__ = ["Judge", "Policy", "PolicyText", "Retriever", "TraceContinuations"]


class Retriever(Protocol):
    """Finds evidence for problems."""

    def retrieve(self, problems: Iterable[Problem]) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
        """Yield (problem id, evidence best first) for every problem."""


class Judge(Protocol):
    """Puts verdicts on the steps of traces (RAG-as-a-judge, or the lab's likelihood judge)."""

    def judge(self, contexts: Iterable[TraceInContext]) -> Iterator[TraceLabel]:
        """Yield one label per trace as they come, in any order.

        What cannot be judged is an abstention. Raises ModelRefused, QuotaExhausted and
        BudgetExhausted, which end the run; what was yielded before stays valid.
        """


class Policy(Protocol):
    """Continues prefixes of traces."""

    @property
    def spec(self) -> str:
        """The policy as the user named it."""

    def continue_traces(
        self, contexts: Iterable[TraceInContext], *, k: int, seed: int
    ) -> Iterator[TraceContinuations]:
        """Continue every prefix of every trace `k` times; yield traces as they are done."""
