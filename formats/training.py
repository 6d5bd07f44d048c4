"""What the training-set formats share: the question with its options, who labelled, values of steps."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from formats.container import RawRow
from formats.export_row import CannotCarry, ExportRow, FormatLimit
from formats.fields import Misfit, Reading, RowFault, question_id
from formats.gold import outside, stated_id
from formats.parts import Part
from traces.labels import StepLabel, TraceLabel, Verdict
from traces.problem import Problem, Trace
from traces.records import ImportedTrace, RejectedRow

TRAINING_PARTS = frozenset({Part.OPTIONS, Part.LATER_VERDICTS})
"""What every training set carries: the options stand in the question's text."""
_VERDICTS = {True: Verdict.CORRECT, False: Verdict.INCORRECT}


def asked(problem: Problem) -> str:
    """The question as a model is asked it: options stand behind it, lettered, a line each."""
    if len(problem.options) > len(ascii_uppercase):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, f"{len(problem.options)} options cannot be lettered"
        )
    letters = zip(ascii_uppercase, problem.options, strict=False)
    return problem.question + "".join(f"\n({letter}) {option}" for letter, option in letters)


def training_keys(row: ExportRow) -> dict[str, Any]:
    """The keys that name the trace and its labeler: provenance that a training set else lacks."""
    who = {"name": row.labeler.name, "kind": row.labeler.kind.value}
    return {"trace_id": row.trace.id, "labeler": who}


def read_training_row(
    raw: RawRow, reading: Reading, question: str, steps: tuple[str, ...], values: Any, **more: Any
) -> Iterator[ImportedTrace | RejectedRow]:
    """The trace of a training row whose labeler the user named.

    Args:
        raw: the row.
        reading: how the file is read.
        question: the question, options included.
        steps: the steps.
        values: one value per step: true or false, 1 or 0, "+" or "-", a fraction in [0, 1].
        more: `meta` of the trace and `images` of the problem.
    """
    if not any(step.strip() for step in steps):
        raise RowFault("all steps are blank")
    images = tuple(more.get("images", ()))
    trace = Trace(
        stated_id(raw.value, reading.row_id(raw)),
        question_id(question, (), *images),
        steps,
        subset=reading.subset or "default",
        meta=more.get("meta", {}),
    )
    problem = Problem(trace.problem_id, question, images=images)
    if reading.labeler is None:
        raise RowFault("nobody said who labelled it")
    misfit = None
    try:
        label = _label(values, trace)
    except Misfit as found:
        misfit = str(found)
        label = outside(reading.labeler, trace.id, misfit)
    yield ImportedTrace(problem, trace, ((reading.labeler, label),), line=raw.line)
    if misfit is not None:
        yield reading.rejected(raw, trace.id, misfit, imported=True)


def _label(values: Any, trace: Trace) -> TraceLabel:
    if not isinstance(values, list):
        raise RowFault("the labels are no list")
    if len(values) != len(trace.steps):
        raise Misfit(f"{len(values)} labels for {len(trace.steps)} steps")
    return TraceLabel(trace.id, tuple(_step(value) for value in values))


def _step(value: Any) -> StepLabel:
    if value in ("+", "-"):
        return StepLabel(_VERDICTS[value == "+"])
    if isinstance(value, int) and value in (0, 1):
        return StepLabel(_VERDICTS[bool(value)])
    if isinstance(value, float) and 0 <= value <= 1:
        return StepLabel(score=value)
    raise RowFault(f"a label is {value!r:.40}, no word for right or wrong and no fraction")
