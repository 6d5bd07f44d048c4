"""What the training formats share: rows without a labeler, and steps in one text after marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from formats.files.container import RawRow
from formats.labels import UNRATED, outside
from formats.rows import (
    CannotCarry,
    ExportRow,
    FileContext,
    FormatLimit,
    Misfit,
    Part,
    RowFault,
    question_id,
    stated_id,
)
from traces import ImportedTrace, Problem, RejectedRow, StepLabel, Trace, TraceLabel, Verdict

TRAINING_PARTS = frozenset({Part.OPTIONS, Part.LATER_VERDICTS})
"""What every training row carries; options are part of the question's text."""
_VERDICTS = {True: Verdict.CORRECT, False: Verdict.INCORRECT}


def asked(problem: Problem) -> str:
    """The question as models get it, followed by the options, lettered, one per line."""
    if len(problem.options) > len(ascii_uppercase):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, f"{len(problem.options)} options cannot be lettered"
        )
    letters = zip(ascii_uppercase, problem.options, strict=False)
    return problem.question + "".join(f"\n({letter}) {option}" for letter, option in letters)


def training_keys(row: ExportRow) -> dict[str, Any]:
    """The keys that name the trace and its labeler, which a training row otherwise lacks."""
    who = {"name": row.labeler.name, "kind": row.labeler.kind.value}
    return {"trace_id": row.trace.id, "labeler": who}


def read_training_row(
    raw: RawRow, file: FileContext, question: str, steps: tuple[str, ...], values: Any, **more: Any
) -> Iterator[ImportedTrace | RejectedRow]:
    """The trace of a training row whose labeler the user named.

    Args:
        raw: the row.
        file: how the file is read.
        question: the question, options included.
        steps: the steps.
        values: one value per step: true or false, 1 or 0, "+" or "-", a fraction in [0, 1], or
            null.
        more: `meta` of the trace and `images` of the problem.
    """
    if not any(step.strip() for step in steps):
        raise RowFault("all steps are blank")
    images = tuple(more.get("images", ()))
    trace = Trace(
        stated_id(raw.value, file.row_id(raw)),
        question_id(question, more=images),
        steps,
        subset=file.subset or "default",
        meta=more.get("meta", {}),
    )
    problem = Problem(trace.problem_id, question, images=images)
    if file.labeler is None:
        raise RowFault("the labeler is unknown")
    misfit = None
    try:
        label = plain_label(values, trace)
    except Misfit as found:
        misfit = str(found)
        label = outside(file.labeler, trace.id, misfit)
    yield ImportedTrace(problem, trace, ((file.labeler, label),), line=raw.line)
    if misfit is not None:
        yield file.rejected(raw, trace.id, misfit, imported=True)


def plain_label(values: Any, trace: Trace) -> TraceLabel:
    """A label from one value per step: `+`, `-`, true, false, 1, 0, null or a fraction.

    Raises:
        Misfit: the list has another length than the trace.
        RowFault: a value is something else.
    """
    if not isinstance(values, list):
        raise RowFault("the labels are not a list")
    if len(values) != len(trace.steps):
        raise Misfit(f"{len(values)} labels for {len(trace.steps)} steps")
    return TraceLabel(trace.id, tuple(_step(value) for value in values))


def _step(value: Any) -> StepLabel:
    if value is None:
        return StepLabel(abstention=UNRATED)
    if value in ("+", "-"):
        return StepLabel(_VERDICTS[value == "+"])
    if isinstance(value, int) and value in (0, 1):
        return StepLabel(_VERDICTS[bool(value)])
    if isinstance(value, float) and 0 <= value <= 1:
        return StepLabel(score=value)
    raise RowFault(
        f"a label is {value!r:.40}, not +, -, true, false, 1, 0, null or a fraction in [0, 1]"
    )


MARK = "ки"
"""Ends a step; the step tag of Math-Shepherd's tokenizer."""
_FIRST = re.compile(r"step 1\s*:", re.IGNORECASE)
_NUMBERED = re.compile(r"\s*step \d+\s*:", re.IGNORECASE)


def split_marked(text: str, key: str) -> tuple[str, tuple[str, ...], list[str]]:
    """Split a text into question, steps, and the unchanged pieces before every mark.

    Raises:
        RowFault: no mark, text after the last one, a blank step, or no end of the question.
    """
    pieces = text.split(MARK)
    if len(pieces) == 1:
        raise RowFault(f"'{key}' has no step mark '{MARK}'")
    if pieces[-1].strip():
        raise RowFault(f"'{key}' has text after its last step mark")
    question, first = _first_step(pieces[0])
    steps = tuple(step.strip() for step in (first, *pieces[1:-1]))
    if not all(steps):
        raise RowFault("a step between two marks is blank")
    return question, steps, pieces[:-1]


def _first_step(text: str) -> tuple[str, str]:
    """Split question and first step: at "Step 1:", else after the last "?"."""
    begins = [found.start() for found in _FIRST.finditer(text)]
    cut = begins[-1] if begins else text.rfind("?") + 1
    question, step = text[:cut].strip(), text[cut:]
    if not question:
        raise RowFault("cannot separate the question from the first step: there is no 'Step 1:'")
    return question, step


def marked_lines(row: ExportRow, length: int) -> tuple[str, list[str], frozenset[Part]]:
    """The question, the first `length` steps as lines without marks, and the lost parts.

    A step without a number gets one, since "Step 1:" separates the question from the steps.

    Raises:
        CannotCarry: a step is blank, or a text contains the mark or "Step 1:".
    """
    question, steps = asked(row.problem), row.trace.steps[:length]
    if any(MARK in text or not text.strip() for text in (question, *steps)):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, f"a step is blank, or a text contains the step mark '{MARK}'"
        )
    lines = [_numbered(step.strip(), number) for number, step in enumerate(steps, 1)]
    if len(_FIRST.findall(lines[0])) > 1:
        raise CannotCarry(FormatLimit.NOT_CARRIED, "the first step contains a second 'Step 1:'")
    same = question == question.strip() and tuple(lines) == steps
    lost = frozenset() if same else frozenset({Part.TEXT})
    return f"{question.strip()} ", [f"{line} " for line in lines], lost


def _numbered(step: str, number: int) -> str:
    expected = _FIRST if number == 1 else _NUMBERED
    return step if expected.match(step) else f"Step {number}: {step}"
