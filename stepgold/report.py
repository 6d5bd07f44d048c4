"""The report: what it shows is gathered from the store, rendered, and written whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from stepgold.candidates import candidate_sections, scores_outcomes
from stepgold.results import Result
from stepgold.trials import (
    LabelerThreshold,
    TrialOptions,
    compared_traces,
    known_gold,
    labeler_thresholds,
)
from traces import InputError, LabelerKind, TraceLabel
from traces.config import StrPath, argument, option

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
    from stepgold.workspace import WorkspaceFolder
    from storage import Store


ReportFormat = Literal["html", "md", "json", "csv"]


class ReportOptions(TrialOptions):
    """What the report is about, and where it goes."""

    out: StrPath = argument(kw_only=False, metavar="OUT", help="File to write.")
    labeler: Sequence[str] = option(
        default=(), metavar="NAME", help="Only this labeler; may be repeated [default: all]."
    )
    gold: str | None = option(
        default=None,
        metavar="NAME",
        help="Labeler taken as truth [default: gold, if it exists].",
    )
    format: ReportFormat | None = option(
        default=None,
        choices=get_args(ReportFormat),
        help="Format of the report [default: by the suffix of OUT, else html].",
    )
    candidates: Sequence[str] = option(
        default=(),
        metavar="SUBSET",
        help="Subset whose traces are candidates for best-of-N; may be repeated [default: all].",
    )
    examples: int = option(
        default=6, between=(0, 100), metavar="N", help="Disputed traces to show in full."
    )

    def check(self) -> None:
        """Take the format from the suffix where none was asked for."""
        super().check()
        if self.format is None:
            suffix = Path(self.out).suffix.removeprefix(".").lower()
            known = suffix in get_args(ReportFormat)
            object.__setattr__(self, "format", suffix if known else "html")


@dataclass(frozen=True, kw_only=True, repr=False)
class ReportResult(Result):
    """A report that was written."""

    dataset: str
    """Name of the dataset."""
    gold: str | None
    """The labeler taken as truth; None if there is none."""
    labelers: tuple[str, ...]
    """The labelers on the page, without gold."""
    format: ReportFormat
    """How it is written."""
    out: Path
    """The file."""
    size: int
    """Its size, bytes."""

    def as_json(self) -> dict[str, Any]:
        """The contract's document."""
        return {
            "command": "report",
            "dataset": self.dataset,
            "gold": self.gold,
            "labelers": list(self.labelers),
            "format": self.format,
            "out": str(self.out),
            "bytes": self.size,
        }

    def words(self) -> str:
        """One line."""
        names = ", ".join(self.labelers) or "no labeler"
        return f"report on {names}: {self.out} ({self.size / 1000:,.0f} kB)"


def report(workspace: WorkspaceFolder, options: ReportOptions) -> ReportResult:
    """Write headline figures, curves, agreement, cost and disputed traces on one page.

    Raises:
        InputError: unknown dataset, labeler or subset, or the file cannot be written.
    """
    with workspace.open_store() as store:
        gathered = gather_report(store, options)
    out, chosen = Path(options.out), options.format or "html"
    return ReportResult(
        dataset=options.dataset,
        gold=gathered.gold,
        labelers=tuple(each.labeler.name for each in gathered.labelers if not each.is_gold),
        format=chosen,
        out=out,
        size=_write(_rendered(gathered, chosen), out),
    )


def _write(text: str, out: Path) -> int:
    """Write a file whole or not at all; returns its size in bytes."""
    content = text.encode("utf-8")
    unfinished = out.with_name(f".{out.name}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(out)
    except OSError as fault:
        raise InputError(
            f"The report cannot be written: {fault.strerror}.",
            where=str(out),
            remedy="name a file in a folder you may write to",
        ) from fault
    return len(content)


def _rendered(gathered: ReportInput, chosen: ReportFormat) -> str:
    if chosen == "html":
        from evaluation.report.page import render_report

        return render_report(gathered)
    from evaluation.report.tables import render_csv, render_markdown, report_json

    if chosen == "json":
        return json.dumps(report_json(gathered), ensure_ascii=False, allow_nan=False, indent=1)
    return render_csv(gathered) if chosen == "csv" else render_markdown(gathered)


def gather_report(store: Store, options: ReportOptions) -> ReportInput:
    """Everything on the page.

    Raises:
        InputError: unknown dataset, labeler or subset, or no threshold can be fitted.
    """
    from evaluation.disagreements import find_disputes
    from evaluation.report.input import ReportInput

    gold = known_gold(store, options.dataset, options.gold)
    names = _labelers(store, options, gold)
    everyone = [*([] if gold is None else [gold]), *names]
    traces = compared_traces(store, options.dataset, everyone)
    limits = labeler_thresholds(store, options, traces, everyone, gold=gold)
    sections = tuple(
        _section(store, options, traces, name, gold, limits[name]) for name in everyone
    )
    comparison = _comparison(traces, everyone, limits, gold, options)
    disputes = None if comparison is None else find_disputes(comparison.table)
    counts = store.traces.datasets()[options.dataset]
    return ReportInput(
        dataset=options.dataset,
        problems=counts.problems,
        traces=counts.traces,
        steps=counts.steps,
        subsets=Counter(trace.subset for trace in traces),
        labelers=sections,
        examples=_examples(store, options, traces, everyone, disputes),
        disputed=(0, 0) if disputes is None else (len(disputes.traces), disputes.steps),
        comparison=comparison,
        leaders=_leaders(sections, traces, gold, options),
        candidates=tuple(
            candidate_sections(
                traces,
                {n: scores_outcomes(store.labels.labeler(options.dataset, n)) for n in names},
                options.candidates,
                options,
            )
        ),
        spending=_spending(store),
        gold=gold,
        threshold_wish=str(options.threshold),
        seed=options.seed,
        resamples=options.resamples,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("stepgold"),
    )


def _labelers(store: Store, options: ReportOptions, gold: str | None) -> list[str]:
    """The labelers under trial, each once, in order."""
    if options.labeler:
        for name in options.labeler:
            store.labels.labeler(options.dataset, name)
        return [name for name in dict.fromkeys(options.labeler) if name != gold]
    known = [summary.labeler.name for summary in store.labels.labelers(options.dataset)]
    if not known:
        raise InputError(
            f"Dataset '{options.dataset}' has no labels to report on.",
            remedy="label it (`stepgold judge`, `score` ...) or import scores first",
        )
    return [name for name in known if name != gold]


def _section(
    store: Store,
    options: ReportOptions,
    traces: Sequence[ComparedTrace],
    name: str,
    gold: str | None,
    limit: LabelerThreshold,
) -> LabelerSection:
    from evaluation.report.input import LabelerSection, grounding

    labeler = store.labels.labeler(options.dataset, name)
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
        **({} if gold in (None, name) else _measured(options, traces, name, gold or "", limit)),
        grounding=quotes if may_quote and quotes.steps else None,
    )


def _measured(
    options: ReportOptions,
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
    drawn: dict[str, Any] = {"seed": options.seed, "resamples": options.resamples}
    settings = drawn | {"threshold": limit.value, "threshold_source": limit.source}
    return {
        "first_errors": evaluate_processbench(seen, **settings),
        "step_measures": evaluate_macro_f1(seen, **settings),
        "diagnostics": diagnose(seen, limit.value, **drawn),
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
    options: ReportOptions,
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
        seed=options.seed,
        resamples=options.resamples,
    )


def _leaders(
    sections: Sequence[LabelerSection],
    traces: Sequence[ComparedTrace],
    gold: str | None,
    options: ReportOptions,
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
        seed=options.seed,
        resamples=options.resamples,
    )
    return LeaderTest(first.labeler.name, second.labeler.name, found)


def _examples(
    store: Store,
    options: ReportOptions,
    traces: Sequence[ComparedTrace],
    names: Sequence[str],
    disputes: Disputes | None,
) -> tuple[ExampleTrace, ...]:
    """The most disputed traces, with evidence and everybody's words."""
    from evaluation.report.input import ExampleTrace

    chosen = () if disputes is None else disputes.traces[: options.examples]
    if not chosen:
        return ()
    ids = [one.trace_id for one in chosen]
    contexts = {one.trace.id: one for one in store.traces.contexts(options.dataset, trace_ids=ids)}
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
