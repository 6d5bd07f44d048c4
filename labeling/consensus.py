"""Consensus of judge and Monte-Carlo labeler: what both say is kept, what only one says is not.

`strict` (arXiv 2501.07301, section 3.1.3): a trace is kept iff both name the same first error, "no
error" included. `hybrid` (the owner's design, design.md section 5): step by step, judge `correct`
and soft label > 0.7 is confidently correct, judge `incorrect` and soft label < 0.3 confidently
incorrect, anything else is for an expert.

Behind the first error both rules keep what they have (`keep`: strict says nothing there, hybrid goes
on step by step). `incorrect` is the first-zero rule of Med-PRM's training labels: behind the first
incorrect step every step is incorrect. The labels of judge and MC labeler stay as they are.

Quality filters: what is taken out of a training set although the labelers agree.

All are off unless asked for, and a filtered trace is stored with its reason, never dropped.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from traces.errors import InputError
from traces.labels import (
    Abstention,
    AbstentionReason,
    StepLabel,
    TraceLabel,
    Verdict,
    abstained,
    first_error,
)
from traces.problem import TraceInContext


@dataclass(frozen=True, slots=True)
class QualityFilters:
    """What has to hold for a trace to be kept; the default keeps everything."""

    min_steps: int | None = None
    """Fewest steps (Med-PRM: 3); None for no limit."""
    max_steps: int | None = None
    """Most steps (Med-PRM: 9); None for no limit."""
    require_verified_quote: bool = False
    """Whether the judge must have verified quotes: on the first error, or anywhere if none."""
    no_error_before_right_answer: bool = False
    """Whether a trace with an error must not end in the right answer (a lucky or repaired one)."""
    error_before_wrong_answer: bool = False
    """Whether a trace without an error must not end in a wrong answer (an error was missed)."""


def filtered(
    context: TraceInContext,
    label: TraceLabel,
    judge_label: TraceLabel,
    filters: QualityFilters,
) -> TraceLabel:
    """The label itself, or the abstention `filtered` with the filter that took the trace out."""
    if label.abstention is not None:
        return label
    reason = filter_reason(context, label, judge_label, filters)
    if reason is None:
        return label
    return abstained(context.trace.id, AbstentionReason.FILTERED, reason)


def filter_reason(
    context: TraceInContext,
    label: TraceLabel,
    judge_label: TraceLabel,
    filters: QualityFilters,
) -> str | None:
    """Which filter a labelled trace does not pass, as a sentence; None if it passes all."""
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
    """Whether any step is called incorrect, also behind steps that are left open."""
    error = first_error(label)
    if not error.missing:
        return error.index is not None
    return any(step.verdict is Verdict.INCORRECT for step in label.step_labels)


def _is_grounded(label: TraceLabel, judge_label: TraceLabel) -> bool:
    """Whether the judge cited what stands in the evidence where it matters."""
    error = first_error(label)
    steps = judge_label.step_labels
    if error.index is not None:
        steps = steps[error.index : error.index + 1]
    return any(step.quote is not None and step.quote.verified for step in steps)


# --- Consensus of judge and Monte-Carlo labeler: what both say is kept, what only one says is not


Rule = Literal["strict", "hybrid"]
AfterFirstError = Literal["keep", "incorrect"]


@dataclass(frozen=True, slots=True)
class ConsensusConfig:
    """How two labelers are brought together; stored with the labeler."""

    rule: Rule = "strict"
    """strict: same first error; hybrid: per step, with confidence."""
    high: float = 0.7
    """Hybrid: a soft label above it supports `correct`."""
    low: float = 0.3
    """Hybrid: a soft label below it supports `incorrect`."""
    most_confident: float = 0.95
    """Hybrid: no step is more confident than this."""
    after_first_error: AfterFirstError = "keep"
    """keep: steps behind the first error as the rule leaves them; incorrect: Med-PRM's first-zero."""
    filters: QualityFilters = field(default_factory=QualityFilters)
    """What is taken out although both agree; nothing by default."""

    def as_dict(self) -> dict[str, Any]:
        """The configuration as the labeler stores it: the numbers of `hybrid` only where used."""
        chosen: dict[str, Any] = {"rule": self.rule}
        if self.rule == "hybrid":
            chosen |= {"high": self.high, "low": self.low, "most_confident": self.most_confident}
        if self.after_first_error != "keep":
            chosen["after_first_error"] = self.after_first_error
        return chosen | {name: value for name, value in asdict(self.filters).items() if value}


def require_rule(rule: str) -> Rule:
    """The rule by its name.

    Raises:
        InputError: there is no such rule.
    """
    return _one_of(rule, get_args(Rule), "a consensus rule")  # type: ignore[return-value]


def require_after_first_error(word: str) -> AfterFirstError:
    """What becomes of the steps behind the first error, by its name.

    Raises:
        InputError: there is no such choice.
    """
    choices = get_args(AfterFirstError)
    return _one_of(word, choices, "a choice for --after-first-error")  # type: ignore[return-value]


def _one_of(word: str, known: tuple[str, ...], what: str) -> str:
    if word in known:
        return word
    raise InputError(f"'{word}' is not {what}.", remedy=f"use one of: {', '.join(known)}")


def agree(
    context: TraceInContext,
    judge_label: TraceLabel | None,
    mc_label: TraceLabel | None,
    config: ConsensusConfig | None = None,
) -> TraceLabel:
    """The consensus of two labels on one trace.

    Args:
        context: the trace.
        judge_label: the judge's word; None if it has not come to the trace.
        mc_label: the Monte-Carlo labeler's word; None likewise.
        config: rule, thresholds and filters; None is strict without filters.

    Returns:
        A label; or an abstention: `disagreement` (strict), the reason of the labeler that has no
        word, or `filtered`.
    """
    config = config or ConsensusConfig()
    missing = _missing_word(context, judge_label, "judge") or _missing_word(context, mc_label, "mc")
    if missing is not None or judge_label is None or mc_label is None:
        return missing or abstained(context.trace.id, AbstentionReason.NOT_MEASURED)
    if config.rule == "strict":
        label = _same_first_error(context, judge_label, mc_label)
    else:
        label = _step_by_step(context, judge_label, mc_label, config)
    if config.after_first_error == "incorrect":
        label = _first_zero(label)
    return filtered(context, label, judge_label, config.filters)


def _missing_word(
    context: TraceInContext, label: TraceLabel | None, role: str
) -> TraceLabel | None:
    """The abstention of a trace on which a labeler has no word at all."""
    trace_id = context.trace.id
    if label is None:
        return abstained(trace_id, AbstentionReason.NOT_MEASURED, f"{role}: no label yet")
    if label.abstention is None:
        return None
    return abstained(trace_id, label.abstention.reason, f"{role}: {label.abstention.detail}")


def _first_zero(label: TraceLabel) -> TraceLabel:
    """Every step behind the first incorrect one incorrect, whatever was said of it."""
    steps = label.step_labels
    first = next((t for t, step in enumerate(steps) if step.verdict is Verdict.INCORRECT), None)
    if first is None:
        return label
    rest = (StepLabel(Verdict.INCORRECT),) * (len(steps) - first - 1)
    meta = {**label.meta, "after_first_error": "incorrect"}
    if "confidence" in meta:  # nobody measured these steps
        meta["confidence"] = [*meta["confidence"][: first + 1], *(None for _ in rest)]
    return replace(label, step_labels=steps[: first + 1] + rest, meta=meta)


# strict ------------------------------------------------------------------------------------------


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
        detail = f"judge: {_say(named['judge'])}, mc: {_say(named['mc'])}"
        return abstained(trace_id, AbstentionReason.DISAGREEMENT, detail)
    index = named["judge"]
    correct, incorrect = StepLabel(Verdict.CORRECT), StepLabel(Verdict.INCORRECT)
    after = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, "after the first error"))
    steps = (
        (correct,) * step_count
        if index is None
        else (correct,) * index + (incorrect,) + (after,) * (step_count - index - 1)
    )
    return TraceLabel(trace_id, steps, True, index, meta={"rule": "strict"})


def _open_step(trace_id: str, label: TraceLabel, role: str) -> TraceLabel:
    """The abstention where a step without a verdict leaves a labeler's first error open."""
    for index, step in enumerate(label.step_labels):
        if step.abstention is not None:
            detail = f"{role}, step {index + 1}: {step.abstention.detail}"
            return abstained(trace_id, step.abstention.reason, detail)
    return abstained(trace_id, AbstentionReason.NOT_MEASURED, f"{role}: no word on the steps")


def _say(index: int | None) -> str:
    return "no error" if index is None else f"first error at step {index + 1}"


# hybrid ------------------------------------------------------------------------------------------


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
    """One step with the confidence in it: 0.5 where uncertain, None where a labeler is silent."""
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
        # The score of a step is how good it is, so a confident error has a low one.
        return StepLabel(Verdict.INCORRECT, score=1 - confidence), confidence
    word = judged.verdict.value if judged.verdict else "nothing"
    detail = f"judge: {word}, mc: {'nothing' if estimate is None else f'{estimate:.2f}'}"
    return StepLabel(abstention=Abstention(AbstentionReason.UNCERTAIN, detail)), 0.5
