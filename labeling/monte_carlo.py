"""Monte-Carlo labels: how often a policy reaches the gold answer from each prefix.

The MC estimate of a step is successes / continuations, unparsed and unfinished ones included in
the denominator and counted beside it (design.md section 2). It measures the value of a prefix
under a policy, not the truth of a step: a policy that corrects itself makes a wrong step look
good, which is what the consensus with a judge is for (arXiv 2501.07301).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from labeling.answers import AnswerChecker
from traces.abstention import Abstention, AbstentionReason
from traces.context import TraceInContext
from traces.continuation import PolicyText, TraceContinuations
from traces.labels import StepLabel, TraceLabel, Verdict, abstained
from traces.records import Continuation


@dataclass(frozen=True, slots=True)
class MonteCarloConfig:
    """How prefixes are continued and counted; stored with the labeler."""

    k: int = 16
    """Continuations a prefix, at least 1."""
    threshold: int = 0
    """Hard label: a step is correct iff successes > threshold (0: any success)."""
    seed: int = 0
    """Seed of the policy's sampling."""

    def as_dict(self) -> dict[str, Any]:
        """The configuration as the labeler stores it."""
        return asdict(self)


def mc_label(
    context: TraceInContext,
    continuations: TraceContinuations,
    checker: AnswerChecker,
    config: MonteCarloConfig,
) -> tuple[TraceLabel, list[Continuation]]:
    """The label of one trace and its continuations with their answers.

    Every step gets its soft label as score, its hard label as verdict and its counts. A step whose
    continuations named no readable answer abstains (`unparsed`); one that was not continued
    abstains (`not_measured`), which is not 0 of k. Where that holds for every step, or the policy
    could not continue the trace at all, the whole label is an abstention.

    The answer of a continuation is the last one in prefix and continuation together: a trace that
    has named its answer may be continued by nothing.
    """
    trace_id = context.trace.id
    if continuations.abstention is not None:
        return TraceLabel(trace_id, abstention=continuations.abstention), []
    if not continuations.texts:
        return abstained(trace_id, AbstentionReason.NOT_MEASURED, "no continuations"), []
    by_step: list[list[Continuation]] = [[] for _ in context.trace.steps]
    for text in continuations.texts:
        by_step[text.step_index].append(_checked(context, text, checker))
    drawn = [one for of_step in by_step for one in of_step]
    if all(one.correct is None for one in drawn):
        return TraceLabel(trace_id, abstention=_unparsed(drawn)), drawn
    steps = tuple(_step_label(of_step, config) for of_step in by_step)
    meta = {"rule": f"successes > {config.threshold}", "k": config.k}
    return TraceLabel(trace_id, steps, meta=meta), drawn


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


def _step_label(drawn: Sequence[Continuation], config: MonteCarloConfig) -> StepLabel:
    """Soft label, hard label and counts of one step."""
    if not drawn:
        return StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, "no continuations"))
    successes = sum(one.correct is True for one in drawn)
    counted = StepLabel(
        successes=successes,
        continuations=len(drawn),
        unparsed=sum(one.correct is None for one in drawn),
        unfinished=_unfinished(drawn),
    )
    if counted.unparsed == len(drawn):
        return replace(counted, abstention=_unparsed(drawn))
    verdict = Verdict.CORRECT if successes > config.threshold else Verdict.INCORRECT
    return replace(counted, verdict=verdict, score=successes / len(drawn))


def _unparsed(drawn: Sequence[Continuation]) -> Abstention:
    detail = f"no readable answer in {len(drawn)} continuations, {_unfinished(drawn)} of them cut"
    return Abstention(AbstentionReason.UNPARSED, detail)


def _unfinished(drawn: Sequence[Continuation]) -> int:
    return sum(one.finish_reason == "length" for one in drawn)
