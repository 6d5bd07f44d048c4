"""Continuations in rounds: many traces at once, each asking for what its strategy wants next.

One round is one batch for the policy: the frontiers of up to `FRONTIER` traces. A trace leaves when its
strategy wants nothing more, and another one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from labeling.answers import AnswerChecker
from labeling.drawn import Drawn
from labeling.mc_config import MonteCarloConfig
from labeling.monte_carlo import checked, label_of, mc_label, started
from labeling.stages import Policy
from labeling.strategies import strategy
from traces.context import TraceInContext
from traces.continuation import TraceContinuations
from traces.labels import TraceLabel
from traces.problem import Problem
from traces.records import Continuation

FRONTIER = 256
"""Traces whose frontiers are drawn together."""


@dataclass(slots=True)
class _Open:
    """A trace that is still being measured."""

    context: TraceInContext
    checker: AnswerChecker
    drawn: Drawn
    resolved_model: str | None = None


Word = tuple[TraceLabel, list[Continuation], str | None]
"""A trace's label, the continuations behind it, and the policy version that wrote them."""


def continue_by_strategy(
    contexts: Iterable[TraceInContext],
    policy: Policy,
    checker_factory: Callable[[Problem], AnswerChecker],
    config: MonteCarloConfig,
) -> Iterator[Word]:
    """Label traces by the configured strategy; yield them as they are done, in any order.

    Args:
        contexts: the traces; read ahead.
        policy: continues prefixes.
        checker_factory: reads and checks answers to a problem.
        config: strategy, bounds and seed.
    """
    if config.strategy != "all" or config.last_step != "rollout":
        yield from _in_rounds(contexts, policy, checker_factory, config)
        return
    # Every prefix k times is one round: traces stream through without waiting for each other.
    waiting: dict[str, TraceInContext] = {}

    def watched() -> Iterator[TraceInContext]:
        for context in contexts:
            waiting[context.trace.id] = context
            yield context

    for continued in policy.continue_traces(watched(), k=config.k, seed=config.seed):
        context = waiting.pop(continued.trace_id)
        label, drawn = mc_label(context, continued, checker_factory(context.problem), config)
        yield label, drawn, continued.resolved_model


def _in_rounds(
    contexts: Iterable[TraceInContext],
    policy: Policy,
    checker_factory: Callable[[Problem], AnswerChecker],
    config: MonteCarloConfig,
) -> Iterator[Word]:
    choose = strategy(config.strategy)
    rest = iter(contexts)
    open_: dict[str, _Open] = {}
    while True:
        for context in islice(rest, FRONTIER - len(open_)):
            checker = checker_factory(context.problem)
            open_[context.trace.id] = _Open(context, checker, started(context, checker, config))
        if not open_:
            return
        wanted = {trace_id: choose(one.drawn, config.bounds) for trace_id, one in open_.items()}
        for trace_id in [trace_id for trace_id, next_ in wanted.items() if not next_]:
            policy.release([trace_id])
            yield _finished(open_.pop(trace_id), config)
        asked = [(one.context, wanted[trace_id]) for trace_id, one in open_.items()]
        for continued in policy.continue_wanted(asked, seed=config.seed):
            refused = _take(open_[continued.trace_id], continued)
            if refused is not None:
                del open_[continued.trace_id]
                policy.release([continued.trace_id])
                yield refused, [], continued.resolved_model


def _take(one: _Open, continued: TraceContinuations) -> TraceLabel | None:
    """Enter what was drawn; the label of a trace that the policy could not continue."""
    one.resolved_model = continued.resolved_model or one.resolved_model
    if continued.abstention is not None:
        return TraceLabel(one.context.trace.id, abstention=continued.abstention)
    one.drawn.add(checked(one.context, continued.texts, one.checker))
    one.drawn.prefilled_tokens += continued.prefilled_tokens
    one.drawn.count_near_ties(continued.near_ties)
    return None


def _finished(one: _Open, config: MonteCarloConfig) -> Word:
    drawn = one.drawn
    everything = [each for of_step in drawn.by_step for each in of_step]
    label = label_of(one.context, drawn, config)
    if label.abstention is None:
        spent = {
            "rounds": drawn.rounds,
            "generated_tokens": sum(each.tokens for each in everything),
            "prefilled_tokens": drawn.prefilled_tokens,
        }
        label = replace(label, meta={**label.meta, **spent})
    return label, everything, one.resolved_model
