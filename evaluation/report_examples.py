"""Example traces as the report shows them: a cell for each step and labeler, what labelers wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from evaluation.evaluated import EvaluatedTrace, step_calls
from evaluation.report_input import ExampleTrace, ReportInput
from traces.evidence import Quote
from traces.first_error import first_error
from traces.labels import StepLabel, TraceLabel, Verdict

MAX_STEPS = 60
"""Steps of one example on the page; the others are counted."""
MAX_REMARKS = 60
"""Remarks of one example on the page; the others are counted."""
MAX_CHARACTERS = 3000
"""Of one text on the page; the others are counted."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One labeler's word on one step, as it is shown."""

    kind: str
    """CSS class: correct, incorrect, neutral or silent."""
    text: str
    """The word."""
    detail: str = ""
    """What stands behind it: counts, or the reason of an abstention."""
    is_first_error: bool = False
    """Whether the labeler sees the first error here."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What a labeler wrote about a step: its reasoning and the quote it cites."""

    step: int
    """1-based, as shown."""
    labeler: str
    """Who wrote it."""
    reasoning: str
    """May be empty."""
    quote: Quote | None
    """None if nothing was cited."""


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """One step with every labeler's word on it."""

    number: int
    """1-based."""
    text: str
    """The step."""
    cells: tuple[Cell, ...]
    """One per labeler."""
    disputed: bool
    """Whether some call it incorrect and some do not."""


@dataclass(frozen=True, slots=True)
class ExampleTable:
    """An example as it is shown."""

    rows: tuple[ExampleRow, ...]
    """Its first `MAX_STEPS` steps."""
    left_out: int
    """Further steps."""
    remarks: tuple[Remark, ...]
    """The first `MAX_REMARKS` remarks."""
    remarks_left_out: int
    """Further ones."""


def example_table(example: ExampleTrace, report: ReportInput) -> ExampleTable:
    """Lay out an example, each labeler read by its own threshold."""
    limits = {section.labeler.name: section.threshold for section in report.labelers}
    columns = [example_cells(example, name, limits.get(name, 0.5)) for name in example.labels]
    rows = tuple(
        ExampleRow(
            index + 1,
            text,
            tuple(column[index] for column in columns),
            _disputed([column[index].kind for column in columns]),
        )
        for index, text in enumerate(example.context.trace.steps[:MAX_STEPS])
    )
    remarks = list(example_remarks(example))
    return ExampleTable(
        rows,
        len(example.context.trace.steps) - len(rows),
        tuple(islice(remarks, MAX_REMARKS)),
        max(0, len(remarks) - MAX_REMARKS),
    )


def example_cells(example: ExampleTrace, name: str, threshold: float) -> list[Cell]:
    """One cell per step of an example for one labeler."""
    label, trace = example.labels[name], example.context.trace
    n_steps = len(trace.steps)
    if label.abstention is not None:
        reason = label.abstention.reason.value
        # Why it is silent on the whole trace is said once.
        return [Cell("silent", reason, label.abstention.detail)] + [Cell("silent", reason)] * (
            n_steps - 1
        )
    found = first_error(label, threshold)
    calls = step_calls(
        EvaluatedTrace(trace.id, trace.problem_id, trace.subset, n_steps, None, label),
        label,
        threshold,
    )
    steps = label.step_labels or (StepLabel(),) * n_steps
    return [
        _cell(step, call, is_first_error=not found.missing and found.index == index)
        for index, (step, call) in enumerate(zip(steps, calls, strict=True))
    ]


def clipped(text: str) -> str:
    """A text, or its beginning and how much more there is.

    >>> clipped("short")
    'short'
    """
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]} … [{len(text) - MAX_CHARACTERS:,} more characters]"


def example_remarks(example: ExampleTrace) -> Iterator[Remark]:
    """Reasoning and quotes of all labelers on an example, step by step."""
    for index in range(len(example.context.trace.steps)):
        for name, label in example.labels.items():
            step = _step(label, index)
            if step is not None and (step.reasoning or step.quote is not None):
                yield Remark(index + 1, name, step.reasoning or "", step.quote)


def _disputed(kinds: list[str]) -> bool:
    return "incorrect" in kinds and ("correct" in kinds or "neutral" in kinds)


def _cell(step: StepLabel, incorrect: bool | None, *, is_first_error: bool) -> Cell:
    if incorrect is None:
        reason = step.abstention.reason.value if step.abstention else "not labelled"
        return Cell("silent", reason, step.abstention.detail if step.abstention else "")
    if step.verdict is Verdict.NEUTRAL:
        return Cell("neutral", "neutral")
    counts = f"{step.successes}/{step.continuations}" if step.continuations else ""
    score = "" if step.score is None else f"{step.score:.2f}"
    detail = ", ".join(part for part in (counts, score) if part)
    word = "incorrect" if incorrect else "correct"
    return Cell(word, word, detail, is_first_error)


def _step(label: TraceLabel, index: int) -> StepLabel | None:
    return label.step_labels[index] if index < len(label.step_labels) else None
