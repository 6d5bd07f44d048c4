"""THE PAGE: how a step gets its label.

    problems --retrieve--> evidence --judge-------> verdicts with quotes --+
                                    --continue----> Monte-Carlo labels ----+--agree--> keep

Each stage is a generator over traces and knows nothing of files, databases or services: those are
plugged in (`labeling.stages`), and what could not be labelled flows on with its reason. The
commands call the same stages one by one and put the store between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from labeling.answers import AnswerChecker, unusable_gold
from labeling.consensus import ConsensusConfig, agree
from labeling.mc_config import MonteCarloConfig
from labeling.monte_carlo import continue_by_strategy
from labeling.stages import Judge, Policy, Retriever
from traces.evidence import Evidence
from traces.labels import AbstentionReason, TraceLabel, abstained
from traces.privacy import refuse_phi
from traces.problem import Problem, Trace, TraceInContext
from traces.records import Continuation


class Measured(NamedTuple):
    """What the Monte-Carlo stage says about one trace."""

    label: TraceLabel
    """Soft labels, hard labels and counts, or an abstention."""
    continuations: list[Continuation]
    """What the policy wrote, with the answers read from it; empty if it was not asked."""
    resolved_model: str | None
    """The policy version that really answered; None if unknown."""


class Labelled(NamedTuple):
    """A trace with every word that was said about it."""

    context: TraceInContext
    """The trace, its problem and its evidence."""
    judged: TraceLabel | None
    """The judge's word; None if it said none."""
    measured: Measured | None
    """The Monte-Carlo stage's word; None if it said none."""
    consensus: TraceLabel
    """What both say, or why there is nothing that both say."""


def label_traces(
    problems: Iterable[Problem],
    traces: Iterable[Trace],
    retriever: Retriever,
    judge: Judge,
    policy: Policy,
    mc: MonteCarloConfig,
    consensus: ConsensusConfig,
) -> Iterator[Labelled]:
    """The whole flow, from bare traces to labels that two labelers agree on."""
    by_id = {problem.id: problem for problem in problems}
    evidence = dict(retrieve_evidence(by_id.values(), retriever))
    contexts = [
        TraceInContext(by_id[trace.problem_id], trace, evidence.get(trace.problem_id, ()))
        for trace in traces
    ]
    judged = {word.trace_id: word for word in judge_traces(contexts, judge)}
    measured = {
        word.label.trace_id: word
        for word in continue_traces(contexts, policy, AnswerChecker.for_problem, mc)
    }
    mc_labels = {trace_id: word.label for trace_id, word in measured.items()}
    agreed = agree_on(contexts, judged, mc_labels, consensus)
    for context, word in zip(contexts, agreed, strict=True):
        trace_id = context.trace.id
        yield Labelled(context, judged.get(trace_id), measured.get(trace_id), word)


def retrieve_evidence(
    problems: Iterable[Problem], retriever: Retriever
) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
    """1. Retrieve: the guideline passages that bear on each problem, best first."""
    yield from retriever.retrieve(problems)


def judge_traces(contexts: Iterable[TraceInContext], judge: Judge) -> Iterator[TraceLabel]:
    """2. Judge: a verdict on every step, each with a quote that is looked up in the evidence."""
    yield from judge.judge(contexts)


def continue_traces(
    contexts: Iterable[TraceInContext],
    policy: Policy,
    checker_factory: Callable[[Problem], AnswerChecker],
    config: MonteCarloConfig,
    *,
    hosted: bool = False,
    allow_phi: bool = False,
) -> Iterator[Measured]:
    """3. Continue: from every prefix, how often does the policy reach the gold answer?

    Which prefixes, how often, the strategy says. Traces without a gold answer that can be checked, and those that must not leave this machine
    (`hosted` says whether the policy is elsewhere), abstain and are never sent.
    """
    unsent: deque[Measured] = deque()
    refusals: dict[str, str | None] = {}

    def sendable() -> Iterator[TraceInContext]:
        for context in contexts:
            refusal = refuse_phi(context, hosted=hosted, allow_phi=allow_phi)
            refusal = refusal or _without_answer(context, refusals)
            if refusal is None:
                yield context
            else:
                unsent.append(Measured(refusal, [], None))

    for word in continue_by_strategy(sendable(), policy, checker_factory, config):
        while unsent:
            yield unsent.popleft()
        yield Measured(*word)
    yield from unsent


def agree_on(
    contexts: Iterable[TraceInContext],
    judge_labels: Mapping[str, TraceLabel],
    mc_labels: Mapping[str, TraceLabel],
    config: ConsensusConfig,
) -> Iterator[TraceLabel]:
    """4. Agree: what both say is the label, what only one says is not."""
    for context in contexts:
        trace_id = context.trace.id
        yield agree(context, judge_labels.get(trace_id), mc_labels.get(trace_id), config)


def keep(labels: Iterable[TraceLabel]) -> Iterator[TraceLabel]:
    """5. Keep: the labels fit for a training set; the others stay stored with their reason."""
    for word in labels:
        if word.abstention is None:
            yield word


def _without_answer(context: TraceInContext, known: dict[str, str | None]) -> TraceLabel | None:
    """The abstention of a trace whose gold answer is missing or unusable; asked once a problem."""
    problem = context.problem
    if problem.id not in known:
        has_gold = bool((problem.answer or "").strip())
        known[problem.id] = unusable_gold(problem) if has_gold else "no gold answer"
    why = known[problem.id]
    return None if why is None else abstained(context.trace.id, AbstentionReason.NO_ANSWER, why)
