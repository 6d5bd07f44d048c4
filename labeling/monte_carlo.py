"""Monte Carlo labels: how often a policy reaches the gold answer from each prefix.

The MC estimate of a step is successes / continuations; unparsed and unfinished continuations count
in the denominator and are reported beside it. It measures the value of a prefix under a policy, not
whether the step is right: a policy that corrects itself makes a wrong step look good. That is why
the consensus combines it with a judge (arXiv 2501.07301).

Continuations are sampled in rounds. A round is one batch for the policy: what the strategies of up
to `FRONTIER` traces ask for next. A trace leaves when its strategy wants nothing more, and the next
one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from labeling.stages import Policy
from labeling.strategies import MonteCarloConfig, TraceProgress, given_up, strategy_named
from traces import (
    Abstention,
    AbstentionReason,
    Continuation,
    LabeledTrace,
    PolicyText,
    Problem,
    StepLabel,
    TraceContinuations,
    TraceInContext,
    TraceLabel,
    Verdict,
    abstained,
)

if TYPE_CHECKING:
    # Imported where it is used: a config with its help must not load the reader of answers.
    from labeling.answers import AnswerChecker

FRONTIER = 256
"""Traces whose continuations are sampled in one round."""
INFERRED = "inferred_steps"
"""Key of a label's meta: steps whose verdict follows from other steps' continuations."""
NEAR_TIES = "near_ties"
"""Key of a label's meta: nearly tied token choices, see `TraceContinuations.near_ties`."""


def mc_label(
    context: TraceInContext,
    continuations: TraceContinuations,
    checker: AnswerChecker,
    config: MonteCarloConfig,
) -> LabeledTrace:
    """The label of a trace whose continuations were all sampled in one round."""
    if continuations.abstention is not None:
        label = TraceLabel(context.trace.id, abstention=continuations.abstention)
        return LabeledTrace(label, resolved_model=continuations.resolved_model)
    progress = start_progress(context, checker, config)
    progress.add(check_texts(context, continuations.texts, checker))
    progress.count_near_ties(continuations.near_ties)
    return LabeledTrace(
        label_progress(context, progress, config),
        tuple(progress.all_continuations()),
        resolved_model=continuations.resolved_model,
    )


def start_progress(
    context: TraceInContext, checker: AnswerChecker, config: MonteCarloConfig
) -> TraceProgress:
    """A trace before the first round; its outcome may already label the last step."""
    steps = len(context.trace.steps)
    outcome = _outcome(context, checker) if config.last_step == "outcome" else None
    return TraceProgress(steps, {} if outcome is None else {steps - 1: outcome})


def check_texts(
    context: TraceInContext, texts: Iterable[PolicyText], checker: AnswerChecker
) -> list[Continuation]:
    """Continuations with their final answers, checked.

    The answer is the last one in prefix and continuation together, because a policy may add nothing
    to a prefix that already names its answer.
    """
    return [_checked(context, text, checker) for text in texts]


def label_progress(
    context: TraceInContext, progress: TraceProgress, config: MonteCarloConfig
) -> TraceLabel:
    """The label that the continuations of a trace give.

    Every step gets its MC estimate as score, its verdict and its counts. A step abstains if its
    continuations contain no readable answer (`unparsed`) or if it was not continued
    (`not_measured`, which is not 0 of k). If the verdict of a step without continuations follows
    from other steps, it has the verdict without counts and is listed in `meta["inferred_steps"]`.
    The whole label is an abstention if no step has a label.
    """
    trace_id = context.trace.id
    everything = progress.all_continuations()
    if not everything and not progress.known:
        return abstained(trace_id, AbstentionReason.NOT_MEASURED, "no continuations")
    near_ties = {} if progress.near_ties is None else {NEAR_TIES: progress.near_ties}
    if not progress.known and all(one.correct is None for one in everything):
        return TraceLabel(trace_id, abstention=_unparsed(everything), meta=near_ties)
    steps = [_step_label(progress, step, config) for step in range(progress.steps)]
    if config.label == "advantage":
        steps = _by_advantage(steps)
    inferred = _infer(steps, config)
    meta: dict[str, Any] = {
        "rule": config.rule(),
        "k": config.k,
        "answer_tolerance": config.answer_tolerance,
    }
    if config.strategy != "all":
        meta["strategy"] = config.strategy
    if progress.known:
        meta["last_step"] = "outcome"
    meta |= near_ties
    if inferred:
        meta[INFERRED] = inferred
    return TraceLabel(trace_id, tuple(steps), meta=meta)


def _checked(context: TraceInContext, text: PolicyText, checker: AnswerChecker) -> Continuation:
    finished = text.finish_reason == "stop"
    prefix = "\n".join(context.trace.prefix(text.step_index))
    # A truncated continuation has not reached its answer: the one in the prefix is not its own.
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
    """Whether the final answer is right, as stated or as read from the text; None if unknown."""
    if context.trace.final_answer_correct is not None:
        return context.trace.final_answer_correct
    answer = checker.extract("\n".join(context.trace.steps))
    return None if answer is None else checker.is_correct(answer)


def _step_label(progress: TraceProgress, step: int, config: MonteCarloConfig) -> StepLabel:
    """Soft label, hard label and counts of one step."""
    if step in progress.known:
        verdict = Verdict.CORRECT if progress.known[step] else Verdict.INCORRECT
        score = float(progress.known[step])
        return StepLabel(verdict if config.label == "hard" else None, score)
    mine = progress.by_step[step]
    if not mine:
        return StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, "no continuations"))
    successes = progress.successes(step)
    counted = StepLabel(
        successes=successes,
        continuations=len(mine),
        unparsed=sum(one.correct is None for one in mine),
        unfinished=_unfinished(mine),
    )
    if counted.unparsed == len(mine):
        return replace(counted, abstention=_unparsed(mine))
    scored = replace(counted, score=successes / len(mine))
    hard = _hard(progress, step, config)
    if config.label == "soft":
        return scored
    if hard is None:
        # The search moved on before this step was decided: keep its counts, not a verdict.
        detail = f"{successes} of {len(mine)} continuations succeeded: not enough to decide"
        return replace(counted, abstention=Abstention(AbstentionReason.NOT_MEASURED, detail))
    return replace(scored, verdict=hard)


def _hard(progress: TraceProgress, step: int, config: MonteCarloConfig) -> Verdict | None:
    """The hard label; None if there are too few continuations for one."""
    if config.strategy == "all":  # a server may have returned fewer than k
        decided: bool | None = progress.successes(step) > config.threshold
    else:
        decided = progress.decided(step, config.bounds)
        if decided is None and config.strategy == "adaptive":
            decided = False if given_up(progress, step, config.bounds) else None
    return None if decided is None else Verdict.CORRECT if decided else Verdict.INCORRECT


def _by_advantage(steps: Sequence[StepLabel]) -> list[StepLabel]:
    """Verdicts by how the MC estimate changed; an abstention where one of the two is unknown."""
    labeled = []
    for number, step in enumerate(steps):
        before = steps[number - 1].score if number else 0.0
        if step.score is None:
            labeled.append(step)
        elif before is None:
            why = Abstention(AbstentionReason.NOT_MEASURED, "the step before has no estimate")
            labeled.append(replace(step, score=None, verdict=None, abstention=why))
        else:
            change = step.score - before
            equal = Verdict.NEUTRAL if number else Verdict.INCORRECT
            verdict = Verdict.CORRECT if change > 0 else equal if change == 0 else Verdict.INCORRECT
            labeled.append(replace(step, verdict=verdict))
    return labeled


def _infer(steps: list[StepLabel], config: MonteCarloConfig) -> list[int]:
    """Fill in, in place, what follows from other steps; return the steps with inferred verdicts."""
    if config.label == "soft":
        return []
    wrong = [n for n, step in enumerate(steps) if step.verdict is Verdict.INCORRECT]
    first = wrong[0] if wrong else len(steps)
    inferred = []
    for number, step in enumerate(steps):
        if number < first and config.strategy in {"binary", "adaptive"}:
            # The search assumes that every prefix before one that succeeds would succeed too.
            if _is_unmeasured(step):
                steps[number] = StepLabel(Verdict.CORRECT)
                inferred.append(number)
        elif number > first and config.after_first_error != "keep":
            if config.after_first_error == "incorrect":
                changed = step.verdict is not Verdict.INCORRECT
                steps[number] = replace(step, verdict=Verdict.INCORRECT, abstention=None)
                inferred += [number] if changed else []
            else:
                detail = "after the first incorrect step"
                why = Abstention(AbstentionReason.NOT_MEASURED, detail)
                steps[number] = StepLabel(abstention=why)
    return inferred


def _is_unmeasured(step: StepLabel) -> bool:
    return step.abstention is not None and step.abstention.reason is AbstentionReason.NOT_MEASURED


def _unparsed(sampled: Sequence[Continuation]) -> Abstention:
    detail = (
        f"no readable answer in {len(sampled)} continuations, {_unfinished(sampled)} of them cut"
    )
    return Abstention(AbstentionReason.UNPARSED, detail)


def _unfinished(sampled: Sequence[Continuation]) -> int:
    return sum(one.finish_reason == "length" for one in sampled)


@dataclass(slots=True)
class _OpenTrace:
    """A trace that is still being measured."""

    context: TraceInContext
    checker: AnswerChecker
    progress: TraceProgress
    resolved_model: str | None = None


def continue_by_strategy(
    contexts: Iterable[TraceInContext],
    policy: Policy,
    checkers: Callable[[Problem], AnswerChecker],
    config: MonteCarloConfig,
) -> Iterator[LabeledTrace]:
    """Label traces by the configured strategy; yield them as they are done, in any order.

    Args:
        contexts: the traces; read ahead.
        policy: continues prefixes.
        checkers: makes the reader and checker of answers to a problem.
        config: strategy, bounds and seed.
    """
    if config.strategy != "all" or config.last_step != "rollout":
        yield from _in_rounds(contexts, policy, checkers, config)
        return
    # Every prefix k times is a single round: traces stream without waiting for each other.
    waiting: dict[str, TraceInContext] = {}

    def watched() -> Iterator[TraceInContext]:
        for context in contexts:
            waiting[context.trace.id] = context
            yield context

    for continued in policy.continue_traces(watched(), k=config.k, seed=config.seed):
        context = waiting.pop(continued.trace_id)
        yield mc_label(context, continued, checkers(context.problem), config)


def _in_rounds(
    contexts: Iterable[TraceInContext],
    policy: Policy,
    checkers: Callable[[Problem], AnswerChecker],
    config: MonteCarloConfig,
) -> Iterator[LabeledTrace]:
    choose = strategy_named(config.strategy)
    rest = iter(contexts)
    open_: dict[str, _OpenTrace] = {}
    while True:
        for context in islice(rest, FRONTIER - len(open_)):
            checker = checkers(context.problem)
            progress = start_progress(context, checker, config)
            open_[context.trace.id] = _OpenTrace(context, checker, progress)
        if not open_:
            return
        wanted = {trace_id: choose(one.progress, config.bounds) for trace_id, one in open_.items()}
        for trace_id in [trace_id for trace_id, next_ in wanted.items() if not next_]:
            policy.release([trace_id])
            yield _finish(open_.pop(trace_id), config)
        asked = [(one.context, wanted[trace_id]) for trace_id, one in open_.items()]
        for continued in policy.continue_wanted(asked, seed=config.seed):
            refused = _add_round(open_[continued.trace_id], continued)
            if refused is not None:
                del open_[continued.trace_id]
                policy.release([continued.trace_id])
                yield LabeledTrace(refused, resolved_model=continued.resolved_model)


def _add_round(one: _OpenTrace, continued: TraceContinuations) -> TraceLabel | None:
    """Add what was sampled; return the abstention of a trace that the policy could not continue."""
    one.resolved_model = continued.resolved_model or one.resolved_model
    if continued.abstention is not None:
        return TraceLabel(one.context.trace.id, abstention=continued.abstention)
    one.progress.add(check_texts(one.context, continued.texts, one.checker))
    one.progress.prefilled_tokens += continued.prefilled_tokens
    one.progress.count_near_ties(continued.near_ties)
    return None


def _finish(one: _OpenTrace, config: MonteCarloConfig) -> LabeledTrace:
    progress = one.progress
    everything = progress.all_continuations()
    label = label_progress(one.context, progress, config)
    if label.abstention is None:
        spent = {
            "rounds": progress.rounds,
            "generated_tokens": sum(each.tokens for each in everything),
            "prefilled_tokens": progress.prefilled_tokens,
        }
        label = replace(label, meta={**label.meta, **spent})
    return LabeledTrace(label, tuple(everything), resolved_model=one.resolved_model)
