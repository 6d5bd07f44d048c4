"""Consensus of labelers, quality filters on it, and what it keeps.

`strict` (arXiv 2501.07301, section 3.1.3): a trace is kept iff all labelers name the same first
error, "no error" included. `majority`: iff more than half of those that name one do. `hybrid`, of a
judge and a Monte Carlo labeler: per step, judge `correct` and soft label > 0.7 is confidently
correct, judge `incorrect` and soft label < 0.3 is confidently incorrect, everything else goes to an
expert. `bayes`: the first error with the highest posterior (`labeling.posterior`), if it is at
least `min_posterior`. An expert may decide what `hybrid` or `bayes` leaves open.

After the first error both rules keep what they have (strict: nothing; hybrid: further steps) unless
`after_first_error` is `incorrect`, the first-zero rule of Med-PRM's training labels: every step
after the first incorrect one is incorrect. The judge's and the MC labeler's own labels never
change.

All filters (`labeling.filters`) are off by default. A filtered trace is stored with its reason,
never dropped.

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

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from labeling.filters import QualityFilters, TraceFilters
from traces import (
    MISSING_FIRST_ERROR,
    Abstention,
    AbstentionReason,
    FirstError,
    InputError,
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

Rule = Literal["strict", "majority", "hybrid", "bayes"]
AfterFirstError = Literal["keep", "incorrect"]
_BAYES = Need("--rule bayes", lambda config: config.rule == "bayes")
_HYBRID = Need("--rule hybrid", lambda config: config.rule == "hybrid")


class ConsensusConfig(QualityFilters):
    """How two labels are combined, and what is kept; stored with the labeler."""

    rule: Rule = option(
        default="strict",
        choices=get_args(Rule),
        help="strict: all name the same first error. majority: more than half do. hybrid: judge "
        "and mc step by step. bayes: the most probable first error.",
    )
    min_posterior: float = option(
        default=0.9,
        between=(0, 1),
        metavar="P",
        help="bayes: keep traces whose first error has at least this posterior; 0 keeps all.",
        needs=_BAYES,
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
        if self.rule == "bayes":
            chosen["min_posterior"] = self.min_posterior
        if self.after_first_error != "keep":
            chosen["after_first_error"] = self.after_first_error
        filters = {name: getattr(self, name) for name in defaults_of(QualityFilters)}
        unset = (None, False, 0)  # the seed 0; of 0 traces per problem, "0" is a setting
        return chosen | {
            name: value
            for name, value in filters.items()
            if value not in unset or (name == "max_correct_per_problem" and value is not None)
        }


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
    return agree_among(context, {"judge": judge_label, "mc": mc_label}, config)


def agree_among(
    context: TraceInContext,
    labels: Mapping[str, TraceLabel | None],
    config: ConsensusConfig | None = None,
    *,
    posterior: Sequence[float] = (),
    filters: TraceFilters | None = None,
    expert: tuple[str, TraceLabel] | None = None,
) -> TraceLabel:
    """The consensus of any number of labels on one trace.

    Args:
        context: the trace.
        labels: labeler name (or role) -> its label; None if it has not labeled the trace yet.
            `hybrid` needs the roles `judge` and `mc`.
        config: rule, thresholds and filters; None is strict without filters.
        posterior: for `bayes`, the probability that each step is the first error, and last that
            there is none.
        filters: those of `config` after they saw every trace; None if no filter compares traces.
        expert: name and label of the expert who decides the steps that the rule leaves open.

    Returns:
        A label, or an abstention: `disagreement` (strict, majority), `uncertain` (bayes),
        `not_measured` (majority, bayes: too few labelers name a first error), `filtered`, or the
        reason of a labeler that has no label.

    Raises:
        InputError: a filter of `config` compares traces, and `filters` is missing.
    """
    config = config or ConsensusConfig()
    if filters is None:
        refuse_comparing(config)
        filters = TraceFilters(config)
    label = _by_rule(context, labels, config, posterior)
    if expert is not None:
        label = _decided_by(expert, label, len(context.trace.steps))
    if config.after_first_error == "incorrect" and label.abstention is None:
        label = _first_zero(label)
    if label.abstention is not None:
        return label
    reason = filters.reason(context, label, tuple(filter(None, labels.values())))
    return label if reason is None else reason.abstention(context.trace.id)


def refuse_comparing(config: QualityFilters) -> None:
    """Refuse filters that compare traces where traces are labeled one at a time.

    Raises:
        InputError: there is one.
    """
    if config.compares:
        raise InputError(
            "A filter compares traces with each other, which needs all of their labels first.",
            remedy="leave it out here, and give it to `stepgold consensus` or `stepgold export`",
        )


def _by_rule(
    context: TraceInContext,
    labels: Mapping[str, TraceLabel | None],
    config: ConsensusConfig,
    posterior: Sequence[float],
) -> TraceLabel:
    given = {name: label for name, label in labels.items() if label is not None}
    if config.rule == "bayes":
        silent = all(first_error(label).missing for label in given.values())
        if silent and max(posterior) < 1.0:  # only an anchor makes it 1
            detail = "no labeler names a first error"
            return abstained(context.trace.id, AbstentionReason.NOT_MEASURED, detail)
        return _most_probable(context, posterior, config)
    if config.rule == "majority":
        return _more_than_half(context, given)
    for name, label in labels.items():
        missing = _missing(context, label, name)
        if missing is not None:
            return missing
    if config.rule == "strict":
        return _same_first_error(context, given)
    return _step_by_step(context, given["judge"], given["mc"], config)


def _decided_by(expert: tuple[str, TraceLabel], label: TraceLabel, steps: int) -> TraceLabel:
    """The label with an expert's answers on the steps without a verdict; the others stay."""
    name, answers = expert
    why = label.abstention or Abstention(AbstentionReason.NOT_MEASURED)
    own = label.step_labels or (StepLabel(abstention=why),) * steps
    decided = {
        t: StepLabel(verdict, reasoning=reasoning)
        for t, (verdict, reasoning) in enumerate(_answers(answers, steps))
        if verdict is not None and own[t].verdict is None
    }
    if not decided:
        return label
    meta = {**label.meta, "expert": name, "expert_verified_steps": list(decided)}
    if "confidence" in meta:
        meta["confidence"] = [0.5 if t in decided else c for t, c in enumerate(meta["confidence"])]
    given = label if label.abstention is None else answers
    return TraceLabel(
        label.trace_id,
        tuple(decided.get(t, step) for t, step in enumerate(own)),
        given.first_error_given,
        given.first_error_index,
        meta=meta,
    )


def _answers(label: TraceLabel, steps: int) -> list[tuple[Verdict | None, str | None]]:
    """Verdict and reasoning for each step; a stated first error implies the verdicts up to it."""
    if label.step_labels or not label.first_error_given:
        return [(step.verdict, step.reasoning) for step in label.step_labels]
    error = steps if label.first_error_index is None else label.first_error_index
    implied = [Verdict.CORRECT] * error + [Verdict.INCORRECT]
    return [(verdict, None) for verdict in implied[:steps]]


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


def _same_first_error(context: TraceInContext, labels: Mapping[str, TraceLabel]) -> TraceLabel:
    trace_id, named = context.trace.id, {}
    for name, label in labels.items():
        error = first_error(label)
        if error.missing:
            return _open_step(trace_id, label, name)
        named[name] = error.index
    if len(set(named.values())) > 1:
        return abstained(trace_id, AbstentionReason.DISAGREEMENT, _opinions(named))
    return _label_of(context, next(iter(named.values())), meta={"rule": "strict"})


def _more_than_half(context: TraceInContext, labels: Mapping[str, TraceLabel]) -> TraceLabel:
    errors = {name: first_error(label) for name, label in labels.items()}
    named = {name: error.index for name, error in errors.items() if not error.missing}
    if len(named) < 2:
        detail = f"{len(named)} labelers name a first error; a majority needs two"
        return abstained(context.trace.id, AbstentionReason.NOT_MEASURED, detail)
    index, count = Counter(named.values()).most_common(1)[0]
    if 2 * count <= len(named):
        return abstained(context.trace.id, AbstentionReason.DISAGREEMENT, _opinions(named))
    return _label_of(context, index, meta={"rule": "majority", "votes": [count, len(named)]})


def _most_probable(
    context: TraceInContext, posterior: Sequence[float], config: ConsensusConfig
) -> TraceLabel:
    """The label of `bayes`; a step's score is the posterior that no error came up to it."""
    steps = len(context.trace.steps)
    rounded = [round(p, 6) for p in posterior[: steps + 1]]
    best = max(range(steps + 1), key=posterior.__getitem__)
    index = None if best == steps else best
    meta = {"rule": "bayes", "posterior": rounded}
    if posterior[best] < config.min_posterior:
        detail = f"{_describe(index)} has posterior {posterior[best]:.2f}"
        label = abstained(context.trace.id, AbstentionReason.UNCERTAIN, detail)
        return replace(label, meta=meta)
    label = _label_of(context, index, meta=meta)
    unharmed = [min(1.0, math.fsum(posterior[t + 1 : steps + 1])) for t in range(steps)]
    scored = tuple(
        step if step.abstention else replace(step, score=round(right, 6))
        for step, right in zip(label.step_labels, unharmed, strict=True)
    )
    return replace(label, step_labels=scored)


def _label_of(context: TraceInContext, index: int | None, *, meta: dict[str, Any]) -> TraceLabel:
    """The label with this first error; steps after it stay open."""
    steps = len(context.trace.steps)
    correct, incorrect = StepLabel(Verdict.CORRECT), StepLabel(Verdict.INCORRECT)
    after = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED, "after the first error"))
    labels = (
        (correct,) * steps
        if index is None
        else (correct,) * index + (incorrect,) + (after,) * (steps - index - 1)
    )
    return TraceLabel(
        context.trace.id, labels, first_error_given=True, first_error_index=index, meta=meta
    )


def _opinions(named: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name}: {_describe(index)}" for name, index in named.items())


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
    return analyze_parts([(labels, trace_ids, consensus)])


AnalyzedPart = tuple[
    Mapping[str, Mapping[str, TraceLabel]], Iterable[str], Mapping[str, TraceLabel]
]
"""The arguments of `analyze_labelers` for some of the traces."""


def analyze_parts(parts: Iterable[AnalyzedPart]) -> LabelerAnalysis:
    """What `analyze_labelers` gives for all traces of these parts, which have the same labelers."""
    n, counts = 0, dict[str, _Counts]()
    for labels, trace_ids, consensus in parts:
        traces = list(trace_ids)
        n += len(traces)
        named = {name: {t: _named(of, t) for t in traces} for name, of in labels.items()}
        kept = {t for t in traces if not _named(consensus, t).missing}
        for name, of in labels.items():
            counts.setdefault(name, _Counts()).add(name, named, kept)
            silent = (of[t].abstention for t in traces if t in of)
            counts[name].abstained.update(one.reason.value for one in silent if one is not None)
    return LabelerAnalysis(tuple(found.row(name, n) for name, found in counts.items()))


@dataclass(slots=True)
class _Counts:
    """The counts of one labeler; `kept` and `covered` by whether it names an error."""

    overlap: int = 0
    conflict: int = 0
    covered: Counter[bool] = field(default_factory=Counter)
    kept: Counter[bool] = field(default_factory=Counter)
    abstained: Counter[str] = field(default_factory=Counter)

    def add(
        self, name: str, named: Mapping[str, Mapping[str, FirstError]], kept: Collection[str]
    ) -> None:
        for trace_id, error in named[name].items():
            if error.missing:
                continue
            others = [of[trace_id] for other, of in named.items() if other != name]
            given = [other.index for other in others if not other.missing]
            self.overlap += bool(given)
            self.conflict += any(other != error.index for other in given)
            self.covered[error.index is not None] += 1
            self.kept[error.index is not None] += trace_id in kept

    def row(self, name: str, traces: int) -> LabelerCoverage:
        return LabelerCoverage(
            labeler=name,
            coverage=self.covered.total() / traces if traces else None,
            overlap=self.overlap / traces if traces else None,
            conflict=self.conflict / traces if traces else None,
            with_error=Retention(self.kept[True], self.covered[True]),
            without_error=Retention(self.kept[False], self.covered[False]),
            abstained=dict(self.abstained),
        )


def _named(labels: Mapping[str, TraceLabel], trace_id: str) -> FirstError:
    label = labels.get(trace_id)
    return MISSING_FIRST_ERROR if label is None else first_error(label)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
