"""What the pipeline needs of its stages; the parts are in retrieval, judge, inference and lab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from traces import Evidence, LabeledTrace, Problem, TraceContinuations, TraceInContext, Wanted


class Retriever(Protocol):
    """Finds evidence for problems."""

    def retrieve(self, problems: Iterable[Problem]) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
        """Yield (problem id, evidence best first) for every problem."""


class Judge(Protocol):
    """Puts verdicts on the steps of traces: RAG-as-a-judge, or the lab's likelihood judge."""

    def judge(self, contexts: Iterable[TraceInContext]) -> Iterator[LabeledTrace]:
        """Yield one label per trace as it is done, in any order; an abstention if it has none.

        Raises:
            ModelRefused, QuotaExhausted, BudgetExhausted: the run ends; what was yielded stays
                valid.
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
        """Sample exactly these continuations in one batch; yield every trace once.

        Continuation `i` of a step is the one that `continue_traces` samples.
        """

    def release(self, trace_ids: Sequence[str]) -> None:
        """Free what is cached for these traces between rounds."""
