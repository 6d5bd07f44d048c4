"""Consensus of a judge and a Monte Carlo labeler, quality filters on it, and what it keeps.

`strict` (arXiv 2501.07301, section 3.1.3): a trace is kept iff both name the same first error, "no
error" included. `hybrid`: per step, judge `correct` and soft label > 0.7 is confidently correct,
judge `incorrect` and soft label < 0.3 is confidently incorrect, everything else goes to an expert.

After the first error both rules keep what they have (strict: nothing; hybrid: further steps) unless
`after_first_error` is `incorrect`, the first-zero rule of Med-PRM's training labels: every step
after the first incorrect one is incorrect. The judge's and the MC labeler's own labels never
change.

All filters are off by default. A filtered trace is stored with its reason, never dropped.

`analyze_labelers` shows how labelers cover, overlap and contradict each other, after snorkel's
analysis of labeling functions, with the first error index as the label: a trace on which a labeler
abstains is not covered, and cannot be in conflict. Judge and Monte Carlo labels agree on far fewer
incorrect than correct traces, so retention is reported per class.

    >>> from traces.labels import AbstentionReason, TraceLabel, abstained
    >>> def says(trace, index):
    ...     return TraceLabel(trace, first_error_given=True, first_error_index=index)
    >>> judge = {"t1": says("t1", 2), "t2": says("t2", None), "t3": says("t3", 0)}
    >>> silent = abstained("t2", AbstentionReason.UNPARSED)
    >>> mc = {"t1": says("t1", 2), "t2": silent, "t3": says("t3", 1)}
    >>> consensus = {"t1": says("t1", 2)}
    >>> labels = {"judge": judge, "mc": mc}
    >>> print(analyze_labelers(labels, ["t1", "t2", "t3", "t4"], consensus=consensus).table())
    labeler  coverage  overlap  conflict  error kept  no error kept
    judge        0.75     0.50      0.25  1/2 (0.50)     0/1 (0.00)
    mc           0.50     0.50      0.25  1/2 (0.50)              -
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from traces import (
    MISSING_FIRST_ERROR,
    Abstention,
    AbstentionReason,
    Config,
    FirstError,
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
        help="Keep traces whose first error (or, without one, any step) has a verified quote.",
    )
    no_error_before_right_answer: bool = option(
        default=False,
        help="Drop traces that have an error but end in the right answer (lucky or corrected).",
    )
    error_before_wrong_answer: bool = option(
        default=False,
        help="Drop traces that have no error but end in a wrong answer (an error was missed).",
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
        metavar="P",
        help="hybrid: soft labels above this support `correct`.",
        needs=_HYBRID,
    )
    low: float = option(
        default=0.3,
        between=(0, 1),
        metavar="P",
        help="hybrid: soft labels below this support `incorrect`.",
        needs=_HYBRID,
    )
    most_confident: float = option(
        default=0.95,
        between=(0, 1),
        metavar="P",
        help="hybrid: cap on a step's confidence.",
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


@dataclass(frozen=True, slots=True)
class Retention:
    """How many traces of a class a consensus keeps."""

    kept: int
    """Traces of the class that have a consensus."""
    traces: int
    """Traces of the class."""

    @property
    def share(self) -> float | None:
        """kept / traces, in [0, 1]; None for an empty class."""
        return self.kept / self.traces if self.traces else None

    def __str__(self) -> str:
        return f"{self.kept}/{self.traces} ({self.share:.2f})" if self.traces else "-"


@dataclass(frozen=True, slots=True)
class LabelerCoverage:
    """One labeler compared with the others over a set of traces. Shares are in [0, 1]; None if
    there are no traces."""

    labeler: str
    """Name of the labeler."""
    coverage: float | None
    """Share of the traces on which it names a first error, "no error" included."""
    overlap: float | None
    """Share of the traces on which it and another labeler do."""
    conflict: float | None
    """Share of the traces on which another labeler names a different first error."""
    with_error: Retention
    """Traces on which it names an error."""
    without_error: Retention
    """Traces on which it says there is none."""
    abstained: Mapping[str, int]
    """Its abstentions by reason; traces that it has not labeled are not counted."""


@dataclass(frozen=True, slots=True)
class LabelerAnalysis:
    """Coverage, overlap, conflict and retention of several labelers."""

    rows: tuple[LabelerCoverage, ...]
    """One per labeler, in the order given."""

    def table(self) -> str:
        """The figures as an aligned text table, one row per labeler."""
        head = ["labeler", "coverage", "overlap", "conflict", "error kept", "no error kept"]
        cells = [
            [
                row.labeler,
                *(_share(value) for value in (row.coverage, row.overlap, row.conflict)),
                str(row.with_error),
                str(row.without_error),
            ]
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        return "\n".join(
            "  ".join(
                [line[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            )
            for line in (head, *cells)
        )


def analyze_labelers(
    labels: Mapping[str, Mapping[str, TraceLabel]],
    trace_ids: Iterable[str],
    *,
    consensus: Mapping[str, TraceLabel],
) -> LabelerAnalysis:
    """Compare labelers, and count what a consensus keeps of the traces each calls (in)correct.

    Args:
        labels: labeler name -> trace id -> label. Add `gold` to see the retention per true class.
        trace_ids: the traces that count, labeled or not.
        consensus: trace id -> the consensus label.
    """
    traces = list(trace_ids)
    named = {name: {t: _named(of, t) for t in traces} for name, of in labels.items()}
    kept = {t for t in traces if not _named(consensus, t).missing}
    return LabelerAnalysis(tuple(_row(name, labels[name], named, kept) for name in labels))


def _row(
    name: str,
    labels: Mapping[str, TraceLabel],
    named: Mapping[str, Mapping[str, FirstError]],
    kept: set[str],
) -> LabelerCoverage:
    own = named[name]
    covered = {t: error.index for t, error in own.items() if not error.missing}
    overlap = conflict = 0
    for trace_id, index in covered.items():
        others = [of[trace_id] for other, of in named.items() if other != name]
        given = [other.index for other in others if not other.missing]
        overlap += bool(given)
        conflict += any(other != index for other in given)
    with_error = {t for t, index in covered.items() if index is not None}
    without_error = covered.keys() - with_error
    silent = (labels[t].abstention for t in own if t in labels)
    return LabelerCoverage(
        labeler=name,
        coverage=len(covered) / len(own) if own else None,
        overlap=overlap / len(own) if own else None,
        conflict=conflict / len(own) if own else None,
        with_error=Retention(len(with_error & kept), len(with_error)),
        without_error=Retention(len(without_error & kept), len(without_error)),
        abstained=dict(Counter(one.reason.value for one in silent if one is not None)),
    )


def _named(labels: Mapping[str, TraceLabel], trace_id: str) -> FirstError:
    label = labels.get(trace_id)
    return MISSING_FIRST_ERROR if label is None else first_error(label)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
