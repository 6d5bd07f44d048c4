"""Gather from the store what the report page shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from commands.evaluated import evaluated_traces
from commands.workspace import Workspace

if TYPE_CHECKING:
    from evaluation.report_input import ExampleTrace, LabelerSection
    from storage import Store
    from traces.context import TraceInContext
    from traces.labels import TraceLabel

EXAMPLES = 6
"""Traces shown in full: those on which the labelers disagree come first."""


def write_report(
    workspace: Workspace,
    dataset: str,
    labelers: Sequence[str],
    out: Path,
    notes: Sequence[str] = (),
) -> None:
    """Write one self-contained page about the labelers of a dataset."""
    from evaluation.report import render_report
    from evaluation.report_input import ReportInput, Spending

    with workspace.open_store() as store:
        counts, calls = store.datasets()[dataset], store.call_totals()
        contexts = list(store.contexts(dataset))
        names = ("gold", *labelers)
        labels = {name: store.labels(dataset, name) for name in names}
        page = render_report(
            ReportInput(
                dataset=dataset,
                problems=counts.problems,
                traces=counts.traces,
                steps=counts.steps,
                subsets=Counter(context.trace.subset for context in contexts),
                labelers=tuple(_section(store, dataset, name, labels[name]) for name in names),
                examples=tuple(_examples(contexts, labels)),
                spending=Spending(calls.sent, calls.cached, calls.usd),
                made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                version=version("stepgold"),
                notes=tuple(notes),
            )
        )
    unfinished = out.with_suffix(".part")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(out)


def _section(
    store: Store, dataset: str, name: str, labels: dict[str, TraceLabel]
) -> LabelerSection:
    from evaluation.macro_f1 import evaluate_macro_f1
    from evaluation.processbench import evaluate_processbench
    from evaluation.report_input import LabelerSection

    reasons = Counter(
        label.abstention.reason.value for label in labels.values() if label.abstention is not None
    )
    steps = sum(step.abstention is None for label in labels.values() for step in label.step_labels)
    traces = [] if name == "gold" else evaluated_traces(store, dataset, name, "gold")
    return LabelerSection(
        store.labeler(dataset, name),
        len(labels),
        steps,
        reasons,
        evaluate_processbench(traces) if traces else None,
        evaluate_macro_f1(traces) if traces else None,
    )


def _examples(
    contexts: Sequence[TraceInContext], labels: dict[str, dict[str, TraceLabel]]
) -> list[ExampleTrace]:
    """The traces with the most different first errors, most disputed first."""
    from evaluation.report_input import ExampleTrace
    from traces.first_error import first_error

    def words(trace_id: str) -> dict[str, TraceLabel]:
        return {name: by_id[trace_id] for name, by_id in labels.items() if trace_id in by_id}

    def opinions(context: TraceInContext) -> int:
        return len({first_error(label) for label in words(context.trace.id).values()})

    disputed = sorted(contexts, key=opinions, reverse=True)[:EXAMPLES]
    return [
        ExampleTrace(
            context,
            words(context.trace.id),
            f"{opinions(context)} different words on the first error",
        )
        for context in disputed
    ]
