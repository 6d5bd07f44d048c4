"""Gather from the store what the report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from stepgold.candidates import candidate_sections, scores_outcomes
from stepgold.trials import (
    LabelerThreshold,
    ThresholdWish,
    compared_traces,
    known_gold,
    labeler_thresholds,
)
from traces import InputError, LabelerKind, TraceLabel

if TYPE_CHECKING:
    from evaluation.comparison import Comparison
    from evaluation.disagreements import Disputes
    from evaluation.report.input import (
        ExampleTrace,
        LabelerSection,
        LeaderTest,
        ReportInput,
        Spending,
    )
    from evaluation.step_words import ComparedTrace
    from storage import Store


EXAMPLES = 6
"""Traces shown in full where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class ReportWish:
    """What the report is to be about."""

    dataset: str
    """The dataset."""
    labelers: tuple[str, ...] = ()
    """Labelers in the order of the tables; empty for all but gold."""
    gold: str | None = None
    """The labeler taken as truth; None for `gold`, where there is one."""
    threshold: ThresholdWish = field(default_factory=lambda: ThresholdWish.parse("0.5"))
    """Of labelers that give scores."""
    candidates: tuple[str, ...] = ()
    """Subsets whose traces are candidates for best-of-N; empty for all with several a problem."""
    examples: int = EXAMPLES
    """Traces shown in full."""
    seed: int = 0
    """Of the bootstrap."""
    resamples: int = 2000
    """Of every interval."""
    notes: tuple[str, ...] = ()
    """What a reader must know, one sentence each."""


def gather_report(store: Store, wish: ReportWish) -> ReportInput:
    """Everything on the page.

    Raises:
        InputError: unknown dataset, labeler or subset, or no threshold can be fitted.
    """
    from evaluation.disagreements import find_disputes
    from evaluation.report.input import ReportInput

    gold = known_gold(store, wish.dataset, wish.gold)
    names = _labelers(store, wish, gold)
    everyone = [*([] if gold is None else [gold]), *names]
    traces = compared_traces(store, wish.dataset, everyone)
    limits = labeler_thresholds(store, wish.dataset, traces, everyone, gold, wish.threshold)
    sections = tuple(_section(store, wish, traces, name, gold, limits[name]) for name in everyone)
    comparison = _comparison(traces, everyone, limits, gold, wish)
    disputes = None if comparison is None else find_disputes(comparison.table)
    counts = store.traces.datasets()[wish.dataset]
    return ReportInput(
        dataset=wish.dataset,
        problems=counts.problems,
        traces=counts.traces,
        steps=counts.steps,
        subsets=Counter(trace.subset for trace in traces),
        labelers=sections,
        examples=_examples(store, wish, traces, everyone, disputes),
        disputed=(0, 0) if disputes is None else (len(disputes.traces), disputes.steps),
        comparison=comparison,
        leaders=_leaders(sections, traces, gold, wish),
        candidates=tuple(
            candidate_sections(
                traces,
                names,
                wish.candidates,
                wish.seed,
                wish.resamples,
                outcome=[
                    n for n in names if scores_outcomes(store.labels.labeler(wish.dataset, n))
                ],
            )
        ),
        spending=_spending(store),
        gold=gold,
        threshold_wish=wish.threshold.spec,
        seed=wish.seed,
        resamples=wish.resamples,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("stepgold"),
        notes=wish.notes,
    )


def _labelers(store: Store, wish: ReportWish, gold: str | None) -> list[str]:
    """The labelers under trial, each once, in order."""
    if wish.labelers:
        for name in wish.labelers:
            store.labels.labeler(wish.dataset, name)
        return [name for name in dict.fromkeys(wish.labelers) if name != gold]
    known = [summary.labeler.name for summary in store.labels.labelers(wish.dataset)]
    if not known:
        raise InputError(
            f"Dataset '{wish.dataset}' has no labels to report on.",
            remedy="label it (`stepgold judge`, `score` ...) or import scores first",
        )
    return [name for name in known if name != gold]


def _section(
    store: Store,
    wish: ReportWish,
    traces: Sequence[ComparedTrace],
    name: str,
    gold: str | None,
    limit: LabelerThreshold,
) -> LabelerSection:
    from evaluation.report.input import LabelerSection, grounding

    labeler = store.labels.labeler(wish.dataset, name)
    labels = [trace.labels[name] for trace in traces if name in trace.labels]
    quotes = grounding(labels)
    may_quote = labeler.kind is LabelerKind.JUDGE or quotes.verified or quotes.unverified
    reasons = Counter(
        label.abstention.reason.value for label in labels if label.abstention is not None
    )
    return LabelerSection(
        labeler,
        len(labels),
        sum(step.abstention is None for label in labels for step in label.step_labels),
        dict(sorted(reasons.items())),
        name == gold,
        limit.value,
        limit.source,
        limit.fit,
        **({} if gold in (None, name) else _measured(wish, traces, name, gold or "", limit)),
        grounding=quotes if may_quote and quotes.steps else None,
    )


def _measured(
    wish: ReportWish,
    traces: Sequence[ComparedTrace],
    name: str,
    gold: str,
    limit: LabelerThreshold,
) -> dict[str, Any]:
    """What a labeler is worth against gold: the figures of `evaluate`, by the same functions."""
    from evaluation.comparison import against_gold
    from evaluation.diagnostics import diagnose
    from evaluation.evaluated import predicted_error
    from evaluation.protocols.macro_f1 import evaluate_macro_f1
    from evaluation.protocols.processbench import evaluate_processbench
    from evaluation.step_words import first_error_confusion
    from evaluation.thresholds import decided_by_scores, threshold_sweep

    seen = against_gold(traces, name, gold)
    settings = (limit.value, wish.seed, wish.resamples)
    source = limit.source
    return {
        "first_errors": evaluate_processbench(seen, *settings, threshold_source=source),
        "step_measures": evaluate_macro_f1(seen, *settings, threshold_source=source),
        "diagnostics": diagnose(seen, *settings),
        "confusion": first_error_confusion(
            name,
            gold,
            (predicted_error(trace.predicted, limit.value) for trace in seen),
            (predicted_error(trace.gold, limit.value) for trace in seen),
        ),
        "sweep": threshold_sweep(seen, "processbench_f1") if decided_by_scores(seen) else None,
    }


def _comparison(
    traces: Sequence[ComparedTrace],
    names: Sequence[str],
    limits: Mapping[str, LabelerThreshold],
    gold: str | None,
    wish: ReportWish,
) -> Comparison | None:
    """Every two labelers; the paired test is left to the two that lead (`_leaders`)."""
    from evaluation.comparison import compare_labelers

    if len(names) < 2:
        return None
    return compare_labelers(
        traces,
        names,
        {name: limit.value for name, limit in limits.items()},
        gold=gold,
        paired_tests=False,
        seed=wish.seed,
        resamples=wish.resamples,
    )


def _leaders(
    sections: Sequence[LabelerSection],
    traces: Sequence[ComparedTrace],
    gold: str | None,
    wish: ReportWish,
) -> LeaderTest | None:
    """The best two by processbench_f1 on the same problems."""
    from evaluation.comparison import against_gold
    from evaluation.paired import compare_by_measure
    from evaluation.report.input import LeaderTest, headline

    measure = "processbench_f1"
    known = [section for section in sections if headline(section, measure) is not None]
    if gold is None or len(known) < 2:
        return None
    known.sort(key=lambda section: -(headline(section, measure) or 0.0))
    first, second = known[:2]
    found = compare_by_measure(
        against_gold(traces, first.labeler.name, gold),
        against_gold(traces, second.labeler.name, gold),
        measure,
        averaged=True,
        threshold=first.threshold,
        second_threshold=second.threshold,
        seed=wish.seed,
        resamples=wish.resamples,
    )
    return LeaderTest(first.labeler.name, second.labeler.name, found)


def _examples(
    store: Store,
    wish: ReportWish,
    traces: Sequence[ComparedTrace],
    names: Sequence[str],
    disputes: Disputes | None,
) -> tuple[ExampleTrace, ...]:
    """The most disputed traces, with evidence and everybody's words."""
    from evaluation.report.input import ExampleTrace

    chosen = () if disputes is None else disputes.traces[: wish.examples]
    if not chosen:
        return ()
    ids = [one.trace_id for one in chosen]
    contexts = {one.trace.id: one for one in store.traces.contexts(wish.dataset, trace_ids=ids)}
    words: dict[str, Mapping[str, TraceLabel]] = {trace.trace_id: trace.labels for trace in traces}
    return tuple(
        ExampleTrace(
            contexts[one.trace_id],
            {name: words[one.trace_id][name] for name in names if name in words[one.trace_id]},
            f"Labelers part on {len(one.steps)} of {len(contexts[one.trace_id].trace.steps)} steps.",
        )
        for one in chosen
    )


def _spending(store: Store) -> Spending:
    from evaluation.report.input import ModelCalls, Spending

    totals = store.replies.totals()
    return Spending(
        totals.sent,
        totals.cached,
        None if totals.sent and totals.unpriced == totals.sent else totals.usd,
        totals.unpriced,
        tuple(
            ModelCalls(
                row.model,
                row.purpose or "",
                row.resolved_model or "",
                row.sent,
                row.cached,
                row.usage.input_tokens,
                row.usage.output_tokens + row.usage.thinking_tokens,
                None if row.unpriced == row.sent else row.usd,
                row.unpriced,
            )
            for row in store.replies.spending()
        ),
    )
