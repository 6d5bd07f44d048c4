"""Consensus of a judge and a Monte Carlo labeler, and quality filters on what they agree on.

`strict` (arXiv 2501.07301, section 3.1.3): a trace is kept iff both name the same first error, "no
error" included. `hybrid`: per step, judge `correct` and soft label > 0.7 is confidently correct,
judge `incorrect` and soft label < 0.3 is confidently incorrect, everything else goes to an expert.

After the first error both rules keep what they have (strict: nothing; hybrid: further steps) unless
`after_first_error` is `incorrect`, the first-zero rule of Med-PRM's training labels: every step
after the first incorrect one is incorrect. The judge's and the MC labeler's own labels never
change.

All filters are off by default. A filtered trace is stored with its reason, never dropped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

from traces import (
    Abstention,
    AbstentionReason,
    Config,
    Need,
    StepLabel,
    TraceInContext,
    TraceLabel,
    Verdict,
    abstained,
    defaults_of,
    first_error,
    option,
)


class QualityFilters(Config):
    """Conditions for keeping a trace; the defaults keep every trace."""

    min_steps: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Keep traces of at least N steps (Med-PRM: 3).",
    )
    max_steps: int | None = option(
        default=None,
        metavar="N",
        between=(1, None),
        help="Keep traces of at most N steps (Med-PRM: 9).",
    )
    require_verified_quote: bool = option(
        default=False,
        help="Keep traces with a verified quote on the first error, or on any step without one.",
    )
    no_error_before_right_answer: bool = option(
        default=False, help="Drop traces with an error but a right answer (lucky or corrected)."
    )
    error_before_wrong_answer: bool = option(
        default=False, help="Drop traces without an error but a wrong answer (an error was missed)."
    )


def filter_reason(
    context: TraceInContext,
    label: TraceLabel,
    judge_label: TraceLabel,
    filters: QualityFilters,
) -> str | None:
    """Why a filter removes a labeled trace; None if it passes all filters."""
    steps = len(context.trace.steps)
    if filters.min_steps is not None and steps < filters.min_steps:
        return f"{steps} steps, fewer than {filters.min_steps}"
    if filters.max_steps is not None and steps > filters.max_steps:
        return f"{steps} steps, more than {filters.max_steps}"
    error = first_error(label)
    right = context.trace.final_answer_correct
    if filters.no_error_before_right_answer and right is True and _names_error(label):
        return "an error, but the final answer is right"
    if (
        filters.error_before_wrong_answer
        and right is False
        and not error.missing
        and error.index is None
    ):
        return "no error, but the final answer is wrong"
    if filters.require_verified_quote and not _is_grounded(label, judge_label):
        return "no verified quote"
    return None


def _names_error(label: TraceLabel) -> bool:
    """Whether any step is labeled incorrect, even after steps that are left open."""
    error = first_error(label)
    if not error.missing:
        return error.index is not None
    return any(step.verdict is Verdict.INCORRECT for step in label.step_labels)


def _is_grounded(label: TraceLabel, judge_label: TraceLabel) -> bool:
    """Whether the judge has a verified quote: on the first error, if there is one."""
    error = first_error(label)
    steps = judge_label.step_labels
    if error.index is not None:
        steps = steps[error.index : error.index + 1]
    return any(step.quote is not None and step.quote.verified for step in steps)


Rule = Literal["strict", "hybrid"]
AfterFirstError = Literal["keep", "incorrect"]
_HYBRID = Need("--rule hybrid", lambda config: config.rule == "hybrid")


class ConsensusConfig(QualityFilters):
    """How two labels are combined, and what is kept; stored with the labeler."""

    rule: Rule = option(
        default="strict",
        choices=get_args(Rule),
        help="strict: both name the same first error. hybrid: per step, with confidence.",
    )
    after_first_error: AfterFirstError = option(
        default="keep",
        choices=get_args(AfterFirstError),
        help="How to label steps after the first error: as the rule does, or incorrect.",
    )
    high: float = option(
        default=0.7,
        between=(0, 1),
        help="hybrid: a soft label above it supports `correct`.",
        needs=_HYBRID,
    )
    low: float = option(
        default=0.3,
        between=(0, 1),
        help="hybrid: a soft label below it supports `incorrect`.",
        needs=_HYBRID,
    )
    most_confident: float = option(
        default=0.95,
        between=(0, 1),
        help="hybrid: upper bound on a step's confidence.",
        needs=_HYBRID,
    )

    def as_dict(self) -> dict[str, Any]:
        """The configuration as the labeler stores it; only options that have an effect."""
        chosen: dict[str, Any] = {"rule": self.rule}
        if self.rule == "hybrid":
            chosen |= {"high": self.high, "low": self.low, "most_confident": self.most_confident}
        if self.after_first_error != "keep":
            chosen["after_first_error"] = self.after_first_error
        filters = {name: getattr(self, name) for name in defaults_of(QualityFilters)}
        return chosen | {name: value for name, value in filters.items() if value}


def agree(
    context: TraceInContext,
    judge_label: TraceLabel | None,
    mc_label: TraceLabel | None,
    config: ConsensusConfig | None = None,
) -> TraceLabel:
    """The consensus of two labels on one trace.

    Args:
        context: the trace.
        judge_label: the judge's label; None if it has not labeled the trace yet.
        mc_label: the Monte Carlo labeler's label; None likewise.
        config: rule, thresholds and filters; None is strict without filters.

    Returns:
        A label, or an abstention: `disagreement` (strict), `filtered`, or the reason of the labeler
        that has no label.
    """
    config = config or ConsensusConfig()
    missing = _missing(context, judge_label, "judge") or _missing(context, mc_label, "mc")
    if missing is not None or judge_label is None or mc_label is None:
        return missing or abstained(context.trace.id, AbstentionReason.NOT_MEASURED)
    if config.rule == "strict":
        label = _same_first_error(context, judge_label, mc_label)
    else:
        label = _step_by_step(context, judge_label, mc_label, config)
    if config.after_first_error == "incorrect":
        label = _first_zero(label)
    if label.abstention is not None:
        return label
    reason = filter_reason(context, label, judge_label, config)
    if reason is None:
        return label
    return abstained(context.trace.id, AbstentionReason.FILTERED, reason)


def _missing(context: TraceInContext, label: TraceLabel | None, role: str) -> TraceLabel | None:
    """The abstention of a trace that a labeler has not labeled; None if it has."""
    trace_id = context.trace.id
    if label is None:
        return abstained(trace_id, AbstentionReason.NOT_MEASURED, f"{role}: no label yet")
    if label.abstention is None:
        return None
    return abstained(trace_id, label.abstention.reason, f"{role}: {label.abstention.detail}")


def _first_zero(label: TraceLabel) -> TraceLabel:
    """The label with every step after the first incorrect one incorrect."""
    steps = label.step_labels
    first = next((t for t, step in enumerate(steps) if step.verdict is Verdict.INCORRECT), None)
    if first is None:
        return label
    rest = (StepLabel(Verdict.INCORRECT),) * (len(steps) - first - 1)
    meta = {**label.meta, "after_first_error": "incorrect"}
    if "confidence" in meta:  # these steps were not measured
        meta["confidence"] = [*meta["confidence"][: first + 1], *(None for _ in rest)]
    return replace(label, step_labels=steps[: first + 1] + rest, meta=meta)


def _same_first_error(
    context: TraceInContext, judge_label: TraceLabel, mc_label: TraceLabel
) -> TraceLabel:
    trace_id, step_count = context.trace.id, len(context.trace.steps)
    named = {}
    for role, label in (("judge", judge_label), ("mc", mc_label)):
        error = first_error(label)
        if error.missing:
            return _open_step(trace_id, label, role)
        named[role] = error.index
    if named["judge"] != named["mc"]:
        detail = f"judge: {_describe(named['judge'])}, mc: {_describe(named['mc'])}"
        return abstained(trace_id, AbstentionReason.DISAGREEMENT, detail)
    index = named["judge"]
    correct, incorrect = StepLabel(Verdict.CORRECT), StepLabel(Verdict.INCORRECT)
    after = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, "after the first error"))
    steps = (
        (correct,) * step_count
        if index is None
        else (correct,) * index + (incorrect,) + (after,) * (step_count - index - 1)
    )
    return TraceLabel(
        trace_id,
        steps,
        first_error_given=True,
        first_error_index=index,
        meta={"rule": "strict"},
    )


def _open_step(trace_id: str, label: TraceLabel, role: str) -> TraceLabel:
    """The abstention of a trace whose first error a step without a verdict leaves open."""
    for index, step in enumerate(label.step_labels):
        if step.abstention is not None:
            detail = f"{role}, step {index + 1}: {step.abstention.detail}"
            return abstained(trace_id, step.abstention.reason, detail)
    return abstained(trace_id, AbstentionReason.NOT_MEASURED, f"{role}: no step labels")


def _describe(index: int | None) -> str:
    return "no error" if index is None else f"first error at step {index + 1}"


def _step_by_step(
    context: TraceInContext, judge_label: TraceLabel, mc_label: TraceLabel, config: ConsensusConfig
) -> TraceLabel:
    trace_id, step_count = context.trace.id, len(context.trace.steps)
    for role, label in (("judge", judge_label), ("mc", mc_label)):
        if len(label.step_labels) != step_count:
            detail = f"{role}: a first error without step labels"
            return abstained(trace_id, AbstentionReason.NOT_MEASURED, detail)
    pairs = zip(judge_label.step_labels, mc_label.step_labels, strict=True)
    merged = [_merge(judged, measured, config) for judged, measured in pairs]
    steps = tuple(step for step, _ in merged)
    meta = {"rule": "hybrid", "confidence": [confidence for _, confidence in merged]}
    return TraceLabel(trace_id, steps, meta=meta)


def _merge(
    judged: StepLabel, measured: StepLabel, config: ConsensusConfig
) -> tuple[StepLabel, float | None]:
    """One step and its confidence: 0.5 if uncertain, None if a labeler abstained."""
    for role, step in (("judge", judged), ("mc", measured)):
        if step.abstention is not None:
            reason = Abstention(step.abstention.reason, f"{role}: {step.abstention.detail}")
            return StepLabel(abstention=reason), None
    estimate = measured.score
    if estimate is not None and judged.verdict is Verdict.CORRECT and estimate > config.high:
        confidence = min(estimate, config.most_confident)
        return StepLabel(Verdict.CORRECT, score=confidence), confidence
    if estimate is not None and judged.verdict is Verdict.INCORRECT and estimate < config.low:
        confidence = min(1 - estimate, config.most_confident)
        # A score says how good a step is, so a confident error has a low one.
        return StepLabel(Verdict.INCORRECT, score=1 - confidence), confidence
    verdict = judged.verdict.value if judged.verdict else "nothing"
    detail = f"judge: {verdict}, mc: {'nothing' if estimate is None else f'{estimate:.2f}'}"
    return StepLabel(abstention=Abstention(AbstentionReason.UNCERTAIN, detail)), 0.5
