"""Small rows for the tests of the store."""

from __future__ import annotations

from collections.abc import Iterable

from storage import Store
from traces import (
    Abstention,
    AbstentionReason,
    Evidence,
    Labeler,
    LabelerKind,
    Passage,
    Problem,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)
from traces.records import ImportedTrace, SourceFile, StoredDocument

GOLD = Labeler("gold", LabelerKind.GOLD, {"from": "test"})
JUDGE = Labeler("judge", LabelerKind.JUDGE, {"votes": 1}, "gemini:m")
STEPS = ("Take 5 mg.", "Double it.", "Give 10 mg.")


def source(name: str = "a.json", content: str = "1") -> SourceFile:
    """A file with this content."""
    return SourceFile(name, f"sha-{content}", "traces")


def gold(trace_id: str, index: int | None = None) -> TraceLabel:
    """A gold label that names a first error."""
    return TraceLabel(trace_id, first_error_given=True, first_error_index=index)


def row(
    trace_id: str,
    *,
    problem_id: str | None = None,
    question: str = "How much?",
    steps: tuple[str, ...] = STEPS,
    labels: Iterable[tuple[Labeler, TraceLabel]] = (),
    evidence: tuple[Evidence, ...] = (),
    line: int | None = 1,
) -> ImportedTrace:
    """A row with one trace; its problem has the same id unless another is given."""
    problem = Problem(problem_id or trace_id, question)
    return ImportedTrace(problem, Trace(trace_id, problem.id, steps), tuple(labels), evidence, line)


def judged(trace_id: str, *, n_steps: int = 3, reasoning: str = "fits") -> TraceLabel:
    """A judge's label: every step correct."""
    step = StepLabel(Verdict.CORRECT, reasoning=reasoning)
    return TraceLabel(trace_id, (step,) * n_steps)


def refused(trace_id: str, reason: AbstentionReason = AbstentionReason.BLOCKED) -> TraceLabel:
    """A judge's abstention on the whole trace."""
    return TraceLabel(trace_id, abstention=Abstention(reason, "no"))


def evidence(text: str = "Give 5 mg/kg.", rank: int = 0, corpus: str = "guides") -> Evidence:
    """Evidence with this text."""
    return Evidence(Passage(corpus, "dosing", rank, 0, len(text), text, "Dosing"), 0.5, rank)


def document(
    name: str, text: str, *, corpus: str = "guides", cut: int = 8
) -> tuple[StoredDocument, list[Passage]]:
    """A document split every `cut` characters."""
    passages = [
        Passage(corpus, name, index, start, min(start + cut, len(text)), text[start : start + cut])
        for index, start in enumerate(range(0, len(text), cut))
    ]
    return StoredDocument(name, f"On {name}", text, f"sha-{text}", f"{name}.md"), passages


def fill(store: Store, *trace_ids: str, dataset: str = "d") -> None:
    """Import traces with these ids (`t0`, `t1` and `t2` by default) and declare the judge."""
    store.traces.import_file(
        dataset, source(), [row(name) for name in trace_ids or ("t0", "t1", "t2")]
    )
    store.labels.declare(dataset, JUDGE)


def ids(store: Store, dataset: str = "d") -> list[str]:
    """The traces of a dataset in order."""
    return [context.trace.id for context in store.traces.contexts(dataset)]
