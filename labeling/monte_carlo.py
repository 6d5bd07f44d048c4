"""Monte-Carlo labels: how often a policy reaches the gold answer from each prefix.

The MC estimate of a step is successes / continuations, unparsed and unfinished ones included in
the denominator and counted beside it (design.md section 2). It measures the value of a prefix
under a policy, not the truth of a step: a policy that corrects itself makes a wrong step look
good, which is what the consensus with a judge is for (arXiv 2501.07301).

Continuations in rounds: many traces at once, each asking for what its strategy wants next.

One round is one batch for the policy: the frontiers of up to `FRONTIER` traces. A trace leaves when its
strategy wants nothing more, and another one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from labeling.answers import TOLERANCE, AnswerChecker
from labeling.mc_config import MonteCarloConfig
from labeling.stages import Policy
from labeling.strategies import Drawn, given_up, strategy
from traces.labels import Abstention, AbstentionReason, StepLabel, TraceLabel, Verdict, abstained
from traces.problem import PolicyText, Problem, TraceContinuations, TraceInContext
from traces.records import Continuation

__all__ = ["MonteCarloConfig", "checked", "label_of", "mc_label", "started"]


INFERRED = "inferred_steps"
"""Under which a label's meta lists steps whose verdict follows from other steps' continuations."""
NEAR_TIES = "near_ties"
"""Under which a label's meta counts choices of tokens that another batch might make otherwise."""


def mc_label(
    context: TraceInContext,
    continuations: TraceContinuations,
    checker: AnswerChecker,
    config: MonteCarloConfig,
) -> tuple[TraceLabel, list[Continuation]]:
    """The label of one trace and its continuations with their answers, drawn in one go."""
    if continuations.abstention is not None:
        return TraceLabel(context.trace.id, abstention=continuations.abstention), []
    drawn = started(context, checker, config)
    drawn.add(checked(context, continuations.texts, checker))
    drawn.count_near_ties(continuations.near_ties)
    return label_of(context, drawn, config), [one for step in drawn.by_step for one in step]


def started(context: TraceInContext, checker: AnswerChecker, config: MonteCarloConfig) -> Drawn:
    """A trace of which nothing was drawn yet, with what its outcome says about its last step."""
    steps = len(context.trace.steps)
    outcome = _outcome(context, checker) if config.last_step == "outcome" else None
    return Drawn(steps, {} if outcome is None else {steps - 1: outcome})


def checked(
    context: TraceInContext, texts: Iterable[PolicyText], checker: AnswerChecker
) -> list[Continuation]:
    """Continuations with the answers they end with.

    The answer of a continuation is the last one in prefix and continuation together: a trace that
    has named its answer may be continued by nothing.
    """
    return [_checked(context, text, checker) for text in texts]


def label_of(context: TraceInContext, drawn: Drawn, config: MonteCarloConfig) -> TraceLabel:
    """The label that all continuations of a trace give.

    Every step gets its MC estimate as score, its verdict and its counts. A step whose continuations
    named no readable answer abstains (`unparsed`); one that was not continued abstains
    (`not_measured`), which is not 0 of k, unless its verdict follows from other steps: then it has a
    verdict and no counts, and stands in `meta["inferred_steps"]`. Where no step has a word the whole
    label is an abstention.
    """
    trace_id = context.trace.id
    everything = [one for of_step in drawn.by_step for one in of_step]
    if not everything and not drawn.known:
        return abstained(trace_id, AbstentionReason.NOT_MEASURED, "no continuations")
    if not drawn.known and all(one.correct is None for one in everything):
        return TraceLabel(trace_id, abstention=_unparsed(everything), meta=_uncertain(drawn))
    steps = [_step_label(drawn, step, config) for step in range(drawn.steps)]
    if config.label == "advantage":
        steps = _by_advantage(steps)
    inferred = _infer(steps, config)
    meta: dict[str, Any] = {
        "rule": config.rule(),
        "k": config.k,
        "answer_tolerance": TOLERANCE,
    }
    if config.strategy != "all":
        meta["strategy"] = config.strategy
    if drawn.known:
        meta["last_step"] = "outcome"
    meta |= _uncertain(drawn)
    if inferred:
        meta[INFERRED] = inferred
    return TraceLabel(trace_id, tuple(steps), meta=meta)


def _uncertain(drawn: Drawn) -> dict[str, Any]:
    """How many choices of tokens another batch might make otherwise, where the policy counts them."""
    return {} if drawn.near_ties is None else {NEAR_TIES: drawn.near_ties}


def _checked(context: TraceInContext, text: PolicyText, checker: AnswerChecker) -> Continuation:
    """The continuation with the answer it ends with."""
    finished = text.finish_reason == "stop"
    prefix = "\n".join(context.trace.prefix(text.step_index))
    # A text that was cut never got to its answer: what the prefix says is not its answer.
    solution = f"{prefix}\n{text.text}" if finished else text.text
    answer = checker.extract(solution, finished=finished)
    return Continuation(
        trace_id=context.trace.id,
        step_index=text.step_index,
        index=text.index,
        text=text.text,
        finish_reason=text.finish_reason,
        answer=answer,
        correct=None if answer is None else checker.is_correct(answer),
        tokens=text.tokens,
    )


def _outcome(context: TraceInContext, checker: AnswerChecker) -> bool | None:
    """Whether the trace ends right, by its own word or by its text; None if that cannot be told."""
    if context.trace.final_answer_correct is not None:
        return context.trace.final_answer_correct
    answer = checker.extract("\n".join(context.trace.steps))
    return None if answer is None else checker.is_correct(answer)


def _step_label(drawn: Drawn, step: int, config: MonteCarloConfig) -> StepLabel:
    """Soft label, hard label and counts of one step."""
    if step in drawn.known:
        verdict = Verdict.CORRECT if drawn.known[step] else Verdict.INCORRECT
        score = float(drawn.known[step])
        return StepLabel(verdict if config.label == "hard" else None, score)
    mine = drawn.by_step[step]
    if not mine:
        return StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, "no continuations"))
    successes = drawn.successes(step)
    counted = StepLabel(
        successes=successes,
        continuations=len(mine),
        unparsed=sum(one.correct is None for one in mine),
        unfinished=_unfinished(mine),
    )
    if counted.unparsed == len(mine):
        return replace(counted, abstention=_unparsed(mine))
    scored = replace(counted, score=successes / len(mine))
    hard = _hard(drawn, step, config)
    if config.label == "soft":
        return scored
    if hard is None:
        # The search went elsewhere before this step was decided: its counts stay, its word does not.
        detail = f"{successes} of {len(mine)} continuations succeeded: not enough to decide"
        return replace(counted, abstention=Abstention(AbstentionReason.NOT_MEASURED, detail))
    return replace(scored, verdict=hard)


def _hard(drawn: Drawn, step: int, config: MonteCarloConfig) -> Verdict | None:
    """The hard label; None if too little was drawn for one."""
    if config.strategy == "all":  # what there is counts, also where a server gave fewer than k
        decided: bool | None = drawn.successes(step) > config.threshold
    else:
        decided = drawn.decided(step, config.bounds)
        if decided is None and config.strategy == "adaptive":
            decided = False if given_up(drawn, step, config.bounds) else None
    return None if decided is None else Verdict.CORRECT if decided else Verdict.INCORRECT


def _by_advantage(steps: Sequence[StepLabel]) -> list[StepLabel]:
    """Verdicts by how the MC estimate moved; nothing is said where one of the two is unknown."""
    labelled = []
    for number, step in enumerate(steps):
        before = steps[number - 1].score if number else 0.0
        if step.score is None:
            labelled.append(step)
        elif before is None:
            why = Abstention(AbstentionReason.NOT_MEASURED, "the step before has no estimate")
            labelled.append(replace(step, score=None, verdict=None, abstention=why))
        else:
            moved = step.score - before
            equal = Verdict.NEUTRAL if number else Verdict.INCORRECT
            verdict = Verdict.CORRECT if moved > 0 else equal if moved == 0 else Verdict.INCORRECT
            labelled.append(replace(step, verdict=verdict))
    return labelled


def _infer(steps: list[StepLabel], config: MonteCarloConfig) -> list[int]:
    """Fill in what follows from other steps, in place; return the steps whose verdict is inferred."""
    if config.label == "soft":
        return []
    wrong = [n for n, step in enumerate(steps) if step.verdict is Verdict.INCORRECT]
    first = wrong[0] if wrong else len(steps)
    inferred = []
    for number, step in enumerate(steps):
        if number < first and config.strategy in {"binary", "adaptive"}:
            # The search took every prefix before an alive one for alive: so it is labelled.
            if _is_unmeasured(step):
                steps[number] = StepLabel(Verdict.CORRECT)
                inferred.append(number)
        elif number > first and config.after_first_error != "keep":
            if config.after_first_error == "incorrect":
                changed = step.verdict is not Verdict.INCORRECT
                steps[number] = replace(step, verdict=Verdict.INCORRECT, abstention=None)
                inferred += [number] if changed else []
            else:
                detail = "behind the first incorrect step"
                why = Abstention(AbstentionReason.NOT_MEASURED, detail)
                steps[number] = StepLabel(abstention=why)
    return inferred


def _is_unmeasured(step: StepLabel) -> bool:
    return step.abstention is not None and step.abstention.reason is AbstentionReason.NOT_MEASURED


def _unparsed(drawn: Sequence[Continuation]) -> Abstention:
    detail = f"no readable answer in {len(drawn)} continuations, {_unfinished(drawn)} of them cut"
    return Abstention(AbstentionReason.UNPARSED, detail)


def _unfinished(drawn: Sequence[Continuation]) -> int:
    return sum(one.finish_reason == "length" for one in drawn)


# --- Continuations in rounds: many traces at once, each asking for what its strategy wants next


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
