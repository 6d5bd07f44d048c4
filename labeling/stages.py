"""The stages as the pipeline sees them. Implementations live in retrieval, judge, inference, lab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from traces.evidence import Evidence
from traces.labels import TraceLabel
from traces.problem import PolicyText, Problem, TraceContinuations, TraceInContext, Wanted

__all__ = ["Judge", "Policy", "PolicyText", "Retriever", "TraceContinuations", "Wanted"]


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

    def continue_wanted(
        self, asked: Sequence[tuple[TraceInContext, Sequence[Wanted]]], *, seed: int
    ) -> Iterator[TraceContinuations]:
        """One round: draw just these continuations, of all traces together; yield every trace once.

        Continuation `i` of a step is the one that `continue_traces` draws.
        """

    def release(self, trace_ids: Sequence[str]) -> None:
        """Let go what is kept of these traces between rounds."""
