"""`report`: gather figures and disputed traces from the store, render them, and write one file."""

from __future__ import annotations

import json
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
    labels_on,
)
from traces import InputError, LabelerKind, StrPath, argument, option, unfinished

if TYPE_CHECKING:
    from evaluation import (
        ComparedTraces,
        Comparison,
        Disputes,
        ExampleTrace,
        FloorReport,
        LabelerSection,
        LeaderTest,
        Methods,
        ModelSpending,
        ReportInput,
    )
    from stepgold.workspace import WorkspaceFolder
    from storage import Store


ReportFormat = Literal["html", "md", "json", "csv", "tex"]


class ReportOptions(TrialOptions):
    """What the report covers, and where it is written."""

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
        help="Format of the report [default: by the ending of OUT].",
    )
    candidates: Sequence[str] = option(
        default=(),
        metavar="SUBSET",
        help="Subset whose traces are candidates for best-of-N; may be repeated [default: all].",
    )
    figures: StrPath | None = option(
        default=None,
        metavar="DIR",
        help="Also write every chart there, as SVG, PDF and CSV of its points.",
    )
    examples: int = option(
        default=6, between=(0, 100), metavar="N", help="Disputed traces to show in full."
    )

    def check(self) -> None:
        """Choose the format by the ending if none was given; without an ending it is html.

        Raises:
            InputError: no format has the ending.
        """
        super().check()
        if self.format is None:
            suffix = Path(self.out).suffix.removeprefix(".").lower()
            known = get_args(ReportFormat)
            chosen = {"": "html", "htm": "html"}.get(suffix, suffix)
            if chosen not in known:
                raise InputError(
                    f"No report is written as .{suffix}.",
                    where=str(self.out),
                    remedy=f"end the file in .{', .'.join(known)}, or choose one with --format",
                )
            object.__setattr__(self, "format", chosen)


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
    """Its format."""
    out: Path
    """The file."""
    size: int
    """Its size in bytes."""
    figures: tuple[Path, ...] = ()
    """The files of the charts; empty if none were asked for."""
    not_in_font: str = ""
    """Characters of names that the PDFs cannot show."""

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
            "figures": [str(path) for path in self.figures],
            "not_in_font": self.not_in_font,
        }

    def words(self) -> str:
        """One line, and one about the figures."""
        names = ", ".join(self.labelers) or "no labeler"
        lines = [f"report on {names}: {self.out} ({self.size / 1000:,.0f} kB)"]
        if self.figures:
            charts = len({path.stem for path in self.figures})
            lines.append(f"{charts} charts as SVG, PDF and CSV: {self.figures[0].parent}")
        if self.not_in_font:
            lines.append(
                f"the font of the PDFs lacks {' '.join(self.not_in_font)}: convert those SVGs"
            )
        return "\n".join(lines)


def report(workspace: WorkspaceFolder, options: ReportOptions) -> ReportResult:
    """Write headline figures, curves, agreement, cost and disputed traces on one page.

    Raises:
        InputError: unknown dataset, labeler or subset, or the file cannot be written.
    """
    from evaluation import require_figures

    if options.figures is not None:
        require_figures()
    with workspace.open_store() as store:
        gathered = gather_report(store, options)
    figures, not_in_font = _write_figures(gathered, options)
    out, chosen = Path(options.out), options.format or "html"
    return ReportResult(
        dataset=options.dataset,
        gold=gathered.gold,
        labelers=tuple(each.labeler.name for each in gathered.labelers if not each.is_gold),
        format=chosen,
        out=out,
        size=_write(_rendered(gathered, chosen).encode(), out),
        figures=figures,
        not_in_font=not_in_font,
    )


def _write_figures(report: ReportInput, options: ReportOptions) -> tuple[tuple[Path, ...], str]:
    """Write the charts; their files, and the characters that the PDFs cannot show."""
    from evaluation import report_figures

    if options.figures is None:
        return (), ""
    folder, charts = Path(options.figures), report_figures(report)
    files = {folder / name: content for one in charts for name, content in one.files().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(
            f"The figures cannot be written: {fault.strerror}.",
            where=str(folder),
            remedy="name a folder that you may write to",
        ) from fault
    for path, content in files.items():
        _write(content, path)
    return tuple(files), "".join(sorted({sign for one in charts for sign in one.not_in_font}))


def _write(content: bytes, out: Path) -> int:
    """Write a file atomically; returns its size in bytes."""
    try:
        with unfinished(out) as beside:
            beside.write_bytes(content)
    except OSError as fault:
        raise InputError(
            f"The report cannot be written: {fault.strerror}.",
            where=str(out),
            remedy="name a file in a folder you may write to",
        ) from fault
    return len(content)


def _rendered(gathered: ReportInput, chosen: ReportFormat) -> str:
    if chosen == "html":
        from evaluation import render_report

        return render_report(gathered)
    from evaluation import render_csv, render_latex, render_markdown, report_json

    if chosen == "json":
        return json.dumps(report_json(gathered), ensure_ascii=False, allow_nan=False, indent=1)
    if chosen == "tex":
        return render_latex(gathered)
    return render_csv(gathered) if chosen == "csv" else render_markdown(gathered)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """The data that the parts of the page share."""

    store: Store
    options: ReportOptions
    gold: str | None
    labelers: Sequence[str]
    """Gold first, if there is one."""
    traces: ComparedTraces
    limits: Mapping[str, LabelerThreshold]

    @property
    def drawn(self) -> dict[str, Any]:
        """Seed and resamples of the bootstrap."""
        return {"seed": self.options.seed, "resamples": self.options.resamples}


def gather_report(store: Store, options: ReportOptions) -> ReportInput:
    """Gather everything on the page.

    Raises:
        InputError: unknown dataset, labeler or subset, or no threshold can be fitted.
    """
    from evaluation import ReportInput, find_disputes

    gold = known_gold(store, options.dataset, options.gold)
    names = _labelers(store, options, gold)
    everyone = [*([] if gold is None else [gold]), *names]
    traces = compared_traces(store, options.dataset, everyone)
    limits = labeler_thresholds(store, options, traces, everyone, gold=gold)
    found = _Gathered(store, options, gold=gold, labelers=everyone, traces=traces, limits=limits)
    sections = tuple(_section(found, name) for name in everyone)
    comparison = _comparison(found)
    disputes = None if comparison is None else find_disputes(comparison.table)
    counts = store.traces.datasets()[options.dataset]
    frame = traces.frame
    sizes = {name: int((frame.subset == at).sum()) for at, name in enumerate(frame.subsets)}
    outcomes = {
        name: scores_outcomes(store.labels.labeler(options.dataset, name)) for name in names
    }
    return ReportInput(
        dataset=options.dataset,
        problems=counts.problems,
        traces=counts.traces,
        steps=counts.steps,
        subsets=sizes,
        labelers=sections,
        floors=_floors(found),
        examples=() if disputes is None else _examples(found, disputes),
        disputed=(0, 0) if disputes is None else (len(disputes), disputes.steps),
        comparison=comparison,
        leaders=_leaders(found, sections),
        candidates=tuple(
            candidate_sections(
                store,
                options.dataset,
                outcomes,
                subsets=options.candidates,
                known=list(sizes),
                options=options,
            )
        ),
        spending=_spending(store),
        gold=gold,
        threshold_wish=str(options.threshold),
        seed=options.seed,
        resamples=options.resamples,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("stepgold"),
        methods=_methods(found, sections),
    )


def _methods(found: _Gathered, sections: Sequence[LabelerSection]) -> Methods | None:
    """The paragraph for a paper; None without gold or without a labeler beside it."""
    from evaluation import Methods, protocol_named, threshold_words

    scored = {one.labeler.name: one for one in sections if one.first_errors is not None}
    if found.gold is None or not scored:
        return None
    figures = {name: one.first_errors for name, one in scored.items() if one.first_errors}
    return Methods(
        dataset=found.options.dataset,
        gold=found.gold,
        traces=len(found.traces.frame),
        problems=len(set(found.traces.frame.problem.tolist())),
        left_out=max(one.gold_unusable + one.gold_missing for one in figures.values()),
        subsets=found.traces.frame.subsets,
        thresholds={
            name: threshold_words(one.threshold, one.threshold_source, needed=one.sweep is not None)
            for name, one in scored.items()
        },
        missing={name: one.average.missing for name, one in figures.items()},
        protocols=[protocol_named(name) for name in ("processbench", "macro-f1")],
        version=version("stepgold"),
        **found.drawn,
    )


def _labelers(store: Store, options: ReportOptions, gold: str | None) -> list[str]:
    """The labelers to report on, each once, in order."""
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


def _section(found: _Gathered, name: str) -> LabelerSection:
    from evaluation import Grounding, LabelerSection

    store, dataset, limit = found.store, found.options.dataset, found.limits[name]
    summary = next(each for each in store.labels.labelers(dataset) if each.labeler.name == name)
    quotes = Grounding.of(
        store.labels.votes.quotes(dataset, name), store.labels.votes.quote_methods(dataset, name)
    )
    may_quote = summary.labeler.kind is LabelerKind.JUDGE or quotes.verified or quotes.unverified
    return LabelerSection(
        summary.labeler,
        traces=summary.traces,
        steps=summary.steps,
        abstained=store.labels.abstentions(dataset, name),
        is_gold=name == found.gold,
        threshold=limit.value,
        threshold_source=limit.source,
        threshold_fit=limit.fit,
        grounding=quotes if may_quote and quotes.steps else None,
        **({} if found.gold in (None, name) else _measured(found, name, str(found.gold))),
    )


def _measured(found: _Gathered, name: str, gold: str) -> dict[str, Any]:
    """A labeler's figures against gold, by the functions of `evaluate`."""
    from evaluation import (
        decided_by_scores,
        diagnose,
        evaluate_macro_f1,
        evaluate_processbench,
        first_error_confusion,
        threshold_sweep,
    )

    limit, seen = found.limits[name], found.traces.against(name, gold)
    settings = found.drawn | {"threshold": limit.value, "threshold_source": limit.source}
    return {
        "first_errors": evaluate_processbench(seen, **settings),
        "step_measures": evaluate_macro_f1(seen, **settings),
        "diagnostics": diagnose(seen, limit.value, **found.drawn),
        "confusion": first_error_confusion(
            name,
            gold,
            seen.found_errors(limit.value),
            seen.gold_errors(limit.value),
        ),
        "sweep": threshold_sweep(seen, "processbench_f1") if decided_by_scores(seen) else None,
    }


def _floors(found: _Gathered) -> tuple[FloorReport, ...]:
    """What labelers that read nothing reach by the two protocols of the headline table."""
    from evaluation import protocol_named

    if found.gold is None or len(found.labelers) < 2:
        return ()
    seen = found.traces.against(found.labelers[1], found.gold)
    return tuple(
        protocol_named(name).floors(seen, seed=found.options.seed)
        for name in ("processbench", "macro-f1")
    )


def _comparison(found: _Gathered) -> Comparison | None:
    """All pairs of labelers; only the best two are tested (`_leaders`)."""
    from evaluation import compare_labelers

    if len(found.labelers) < 2:
        return None
    return compare_labelers(
        found.traces,
        found.labelers,
        {name: limit.value for name, limit in found.limits.items()},
        gold=found.gold,
        paired_tests=False,
        **found.drawn,
    )


def _leaders(found: _Gathered, sections: Sequence[LabelerSection]) -> LeaderTest | None:
    """A paired test of the two labelers with the best processbench_f1."""
    from evaluation import LeaderTest, compare_by_measure, headline_figure

    measure = "processbench_f1"
    known = [section for section in sections if headline_figure(section, measure) is not None]
    if found.gold is None or len(known) < 2:
        return None
    known.sort(key=lambda section: -(headline_figure(section, measure) or 0.0))
    first, second = known[:2]
    tested = compare_by_measure(
        found.traces.against(first.labeler.name, found.gold),
        found.traces.against(second.labeler.name, found.gold),
        measure,
        averaged=True,
        threshold=first.threshold,
        second_threshold=second.threshold,
        **found.drawn,
    )
    return LeaderTest(first.labeler.name, second.labeler.name, tested)


def _examples(found: _Gathered, disputes: Disputes) -> tuple[ExampleTrace, ...]:
    """The most disputed traces, with evidence and the labels of all labelers."""
    from evaluation import ExampleTrace

    chosen = disputes.first(found.options.examples)
    if not chosen:
        return ()
    ids = [one.trace_id for one in chosen]
    contexts = {
        one.trace.id: one
        for one in found.store.traces.contexts(found.options.dataset, trace_ids=ids)
    }
    labels = {
        name: found.store.labels.load(found.options.dataset, name, ids) for name in found.labelers
    }
    return tuple(
        ExampleTrace(
            contexts[id],
            labels_on(labels, id),
            f"Labelers disagree on {len(one.steps)} of {len(contexts[id].trace.steps)} steps.",
        )
        for id, one in zip(ids, chosen, strict=True)
    )


def _spending(store: Store) -> ModelSpending:
    from evaluation import ModelCalls, ModelSpending

    totals = store.replies.totals()
    return ModelSpending(
        sent=totals.sent,
        cached=totals.cached,
        usd=None if totals.sent and totals.unpriced == totals.sent else totals.usd,
        unpriced=totals.unpriced,
        models=tuple(
            ModelCalls(
                model=row.model,
                purpose=row.purpose or "",
                resolved_model=row.resolved_model or "",
                sent=row.sent,
                cached=row.cached,
                input_tokens=row.usage.input_tokens,
                output_tokens=row.usage.output_tokens + row.usage.thinking_tokens,
                usd=None if row.unpriced == row.sent else row.usd,
                unpriced=row.unpriced,
            )
            for row in store.replies.spending()
        ),
    )
