"""A workspace to review: problems with evidence, a judge with quotes, and a bayes consensus."""

from __future__ import annotations

from pathlib import Path

from storage import Store
from traces import (
    Evidence,
    ImportedTrace,
    Labeler,
    LabelerKind,
    Passage,
    Problem,
    Quote,
    SourceFile,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)

PASSAGE = (
    "Amoxicillin for children. The usual dose is 50 mg/kg a day, divided into three doses. "
    "The daily maximum is 3 g. Reduce the dose in renal failure. "
) * 6
QUOTE = "The usual dose is 50 mg/kg a day"


def make_reviewed(folder: Path, traces: int = 20, steps: int = 4) -> Path:
    """Write the workspace into this folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [reviewed_row(number, steps) for number in range(traces)]
    with Store.open(f"sqlite:///{folder / 'stepgold.db'}") as store:
        store.traces.import_file("ward", SourceFile("a.jsonl", "sha", "traces"), rows)
        store.labels.declare("ward", Labeler("judge", LabelerKind.JUDGE, {}, "lab"))
        store.labels.declare("ward", Labeler("agreed", LabelerKind.CONSENSUS, {"rule": "bayes"}))
        ids = [row.trace.id for row in rows]
        store.labels.put("ward", "judge", [_judged(one, steps) for one in ids])
        store.labels.put("ward", "agreed", [_agreed(one, steps, at) for at, one in enumerate(ids)])
    return folder


def reviewed_row(number: int, steps: int) -> ImportedTrace:
    weight = 10 + number
    question = f"A child of {weight} kg has otitis media. How much amoxicillin a day?"
    texts = [
        f"The child weighs {weight} kg.",
        f"The dose is 50 mg/kg: 50 x {weight} = {50 * weight} mg a day.",
        "This is below the daily maximum of 3 g.",
        f"Give {50 * weight} mg in three doses.",
    ]
    problem = Problem(f"p{number:02}", question, ("500 mg", f"{50 * weight} mg"), "B")
    trace = Trace(f"t{number:02}", problem.id, tuple((texts * steps)[:steps]))
    passage = Passage("guides", "amoxicillin.md", 0, 0, len(PASSAGE), PASSAGE, "Amoxicillin")
    return ImportedTrace(problem, trace, (), (Evidence(passage, 0.8, 0),), number + 1)


def _judged(trace: str, steps: int) -> TraceLabel:
    start = PASSAGE.index(QUOTE)
    quote = Quote(QUOTE, 1, True, start, start + len(QUOTE), "exact")
    said = StepLabel(Verdict.CORRECT, reasoning="As the guideline says.", quote=quote)
    return TraceLabel(trace, (said,) * steps)


def _agreed(trace: str, steps: int, at: int) -> TraceLabel:
    sure = 0.95 - 0.02 * at
    rest = (1 - sure) / steps
    meta = {"rule": "bayes", "posterior": [*[rest] * steps, sure]}
    label = StepLabel(Verdict.CORRECT, score=sure)
    return TraceLabel(trace, (label,) * steps, first_error_given=True, meta=meta)
