"""The page to read first: how a step gets its label.

    traces --retrieve--> evidence --judge-----> verdicts with quotes --+
                                  --continue--> Monte Carlo labels ----+--agree--> consensus

Each stage is a generator: traces in, one `LabeledTrace` per trace out. A stage knows no files, no
database and no services; those are plugged in (`labeling.stages`). A trace that cannot be labeled
goes on as an abstention with its reason. The commands run these stages one at a time and store
every label between them; `label_traces` runs them all in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from labeling.answers import AnswerChecker, unusable_gold
from labeling.consensus import ConsensusConfig, agree_among, refuse_comparing
from labeling.filters import TraceFilters
from labeling.monte_carlo import continue_by_strategy
from labeling.stages import Judge, Policy, Retriever
from labeling.strategies import MonteCarloConfig
from traces import (
    AbstentionReason,
    Evidence,
    LabeledTrace,
    Problem,
    TraceInContext,
    TraceLabel,
    abstained,
    refuse_phi,
)

PROBLEMS_AT_ONCE = 64
"""Problems whose traces `label_traces` takes through all stages before it reads further."""


@dataclass(frozen=True, slots=True)
class StagedLabels:
    """A trace with the label of every stage."""

    context: TraceInContext
    """The trace, its problem, and the evidence that the judge and the policy were given."""
    judged: LabeledTrace | None
    """The judge's label; None if it gave none."""
    measured: LabeledTrace | None
    """The Monte Carlo label with its continuations; None if the policy gave none."""
    consensus: TraceLabel
    """What both agree on, or the abstention that says why there is no agreement."""


def label_traces(
    contexts: Iterable[TraceInContext],
    *,
    judge: Judge,
    policy: Policy,
    mc: MonteCarloConfig,
    consensus: ConsensusConfig,
    retriever: Retriever | None = None,
    checkers: Callable[[Problem], AnswerChecker] = AnswerChecker.for_problem,
    withhold_phi: bool = False,
) -> Iterator[StagedLabels]:
    """Run all stages; yield every trace once, in the order given.

    The traces are read in chunks of `PROBLEMS_AT_ONCE` problems, so that memory does not grow with
    the dataset. Keep the traces of a problem together: its evidence is retrieved once per chunk.

    Args:
        contexts: the traces with their problems.
        judge: gives verdicts.
        policy: continues prefixes.
        mc: how prefixes are continued and counted.
        consensus: how the two labels are combined.
        retriever: finds evidence for the problems; None uses the evidence that `contexts` have.
        checkers: makes the reader and checker of answers to a problem.
        withhold_phi: as for `continue_traces`.

    Raises:
        ModelRefused, QuotaExhausted, BudgetExhausted: the run ends; what was yielded stays valid.
        InputError: a filter compares traces with each other, so that it needs all labels first.
    """
    refuse_comparing(consensus)
    for chunk in _chunks(contexts):
        if retriever is not None:
            problems = {context.problem.id: context.problem for context in chunk}
            found = dict(retrieve_evidence(problems.values(), retriever))
            chunk = [replace(one, evidence=found.get(one.problem.id, ())) for one in chunk]
        judged = _by_trace(judge_traces(chunk, judge))
        measured = _by_trace(
            continue_traces(chunk, policy, config=mc, checkers=checkers, withhold_phi=withhold_phi)
        )
        agreed = agree_on(
            chunk,
            {
                "judge": {trace_id: one.label for trace_id, one in judged.items()},
                "mc": {trace_id: one.label for trace_id, one in measured.items()},
            },
            config=consensus,
        )
        for context, one in zip(chunk, agreed, strict=True):
            trace_id = context.trace.id
            yield StagedLabels(context, judged.get(trace_id), measured.get(trace_id), one.label)


def retrieve_evidence(
    problems: Iterable[Problem], retriever: Retriever
) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
    """1. Retrieve: (problem id, the guideline passages relevant to it, best first)."""
    yield from retriever.retrieve(problems)


def judge_traces(contexts: Iterable[TraceInContext], judge: Judge) -> Iterator[LabeledTrace]:
    """2. Judge: a verdict on every step, with a quote that is checked against the evidence.

    Yields traces as their replies come in, in any order.
    """
    yield from judge.judge(contexts)


def continue_traces(
    contexts: Iterable[TraceInContext],
    policy: Policy,
    *,
    config: MonteCarloConfig,
    checkers: Callable[[Problem], AnswerChecker] = AnswerChecker.for_problem,
    withhold_phi: bool = False,
) -> Iterator[LabeledTrace]:
    """3. Continue: how often does the policy reach the gold answer from each prefix?

    Yields traces as they are done, in any order. Traces without a usable gold answer abstain
    (`no_answer`) and are not continued.

    Args:
        contexts: the traces, read as the policy has room for them.
        policy: continues prefixes.
        config: which prefixes are continued how often, and what the counts mean.
        checkers: makes the reader and checker of answers to a problem.
        withhold_phi: whether problems marked `phi_removed: false` abstain (`filtered`): set it if
            the policy or the answer checker is hosted and the user has not allowed it.
    """
    refused: deque[LabeledTrace] = deque()
    unusable: dict[str, str | None] = {}

    def usable() -> Iterator[TraceInContext]:
        for context in contexts:
            refusal = refuse_phi(context, hosted=withhold_phi, allow_phi=False)
            refusal = refusal or _without_answer(context, unusable)
            if refusal is None:
                yield context
            else:
                refused.append(LabeledTrace(refusal))

    for measured in continue_by_strategy(usable(), policy, checkers, config):
        while refused:
            yield refused.popleft()
        yield measured
    yield from refused


def agree_on(
    contexts: Iterable[TraceInContext],
    labels: Mapping[str, Mapping[str, TraceLabel]],
    *,
    config: ConsensusConfig,
    posterior: Callable[[TraceInContext], Sequence[float]] | None = None,
    filters: TraceFilters | None = None,
    expert: tuple[str, Mapping[str, TraceLabel]] | None = None,
) -> Iterator[LabeledTrace]:
    """4. Agree: keep what the labelers say; abstain, with the reason, where they do not agree.

    Yields traces in the order given.

    Args:
        contexts: the traces.
        labels: labeler or role (`judge`, `mc`) -> trace id -> label.
        config: rule, thresholds and filters.
        posterior: for the rule `bayes`, the posterior of a trace's first error.
        filters: those of `config` after they saw every trace; None if no filter compares traces.
        expert: name and labels of the expert who decides the steps that the rule leaves open.
    """
    for context in contexts:
        own = {name: of.get(context.trace.id) for name, of in labels.items()}
        likely = () if posterior is None else posterior(context)
        answered = None if expert is None else expert[1].get(context.trace.id)
        by = None if expert is None or answered is None else (expert[0], answered)
        yield LabeledTrace(
            agree_among(context, own, config, posterior=likely, filters=filters, expert=by)
        )


def _chunks(contexts: Iterable[TraceInContext]) -> Iterator[list[TraceInContext]]:
    """The traces in lists of at most `PROBLEMS_AT_ONCE` different problems."""
    chunk: list[TraceInContext] = []
    problems: set[str] = set()
    for context in contexts:
        if context.problem.id not in problems and len(problems) == PROBLEMS_AT_ONCE:
            yield chunk
            chunk, problems = [], set()
        chunk.append(context)
        problems.add(context.problem.id)
    if chunk:
        yield chunk


def _by_trace(labeled: Iterable[LabeledTrace]) -> dict[str, LabeledTrace]:
    return {one.label.trace_id: one for one in labeled}


def _without_answer(context: TraceInContext, unusable: dict[str, str | None]) -> TraceLabel | None:
    """The abstention of a trace without a usable gold answer; `unusable` caches it by problem."""
    problem = context.problem
    if problem.id not in unusable:
        has_gold = bool((problem.answer or "").strip())
        unusable[problem.id] = unusable_gold(problem) if has_gold else "no gold answer"
    reason = unusable[problem.id]
    if reason is None:
        return None
    return abstained(context.trace.id, AbstentionReason.NO_ANSWER, reason)
