"""Question and steps in one text, each step ended by a mark: how Math-Shepherd and OpenRLHF write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from formats.files.container import RawRow
from formats.labels import outside, stated_id
from formats.rows import (
    CannotCarry,
    ExportRow,
    FormatLimit,
    Misfit,
    Part,
    Reading,
    RowFault,
    question_id,
)
from traces import ImportedTrace, Problem, RejectedRow, StepLabel, Trace, TraceLabel, Verdict

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


# --- Question and steps in one text, each step ended by a mark: how Math-Shepherd and OpenRLHF


MARK = "ки"
"""Ends a step; the step tag of Math-Shepherd's tokenizer."""
_FIRST = re.compile(r"step 1\s*:", re.IGNORECASE)
_NUMBERED = re.compile(r"\s*step \d+\s*:", re.IGNORECASE)


def split_marked(text: str, key: str) -> tuple[str, tuple[str, ...], list[str]]:
    """Question, steps, and the pieces before every mark, to the letter.

    Raises:
        RowFault: no mark, text behind the last one, a blank step, or no way to tell the question.
    """
    pieces = text.split(MARK)
    if len(pieces) == 1:
        raise RowFault(f"'{key}' has no step mark '{MARK}'")
    if pieces[-1].strip():
        raise RowFault(f"'{key}' has text behind its last step mark")
    question, first = _first_step(pieces[0])
    steps = tuple(step.strip() for step in (first, *pieces[1:-1]))
    if not all(steps):
        raise RowFault("a step between two marks is blank")
    return question, steps, pieces[:-1]


def _first_step(text: str) -> tuple[str, str]:
    """Question and first step, which stand in one text: the step begins at "Step 1:", else behind the last "?"."""
    begins = [found.start() for found in _FIRST.finditer(text)]
    cut = begins[-1] if begins else text.rfind("?") + 1
    question, step = text[:cut].strip(), text[cut:]
    if not question:
        raise RowFault("the question cannot be told from the first step: there is no 'Step 1:'")
    return question, step


def marked_lines(row: ExportRow, length: int) -> tuple[str, list[str], frozenset[Part]]:
    """The question with the space behind it, the first `length` steps as lines without marks, and what that loses.

    A step without a number gets one, since "Step 1:" is what tells the question from the steps.

    Raises:
        CannotCarry: a step is blank, or a text holds the mark or a "Step 1:" of its own.
    """
    question, steps = asked(row.problem), row.trace.steps[:length]
    if any(MARK in text or not text.strip() for text in (question, *steps)):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, f"a step is blank, or a text holds the step mark '{MARK}'"
        )
    lines = [_numbered(step.strip(), number) for number, step in enumerate(steps, 1)]
    if len(_FIRST.findall(lines[0])) > 1:
        raise CannotCarry(FormatLimit.NOT_CARRIED, "the first step speaks of 'Step 1:' itself")
    same = question == question.strip() and tuple(lines) == steps
    lost = frozenset() if same else frozenset({Part.TEXT})
    return f"{question.strip()} ", [f"{line} " for line in lines], lost


def _numbered(step: str, number: int) -> str:
    expected = _FIRST if number == 1 else _NUMBERED
    return step if expected.match(step) else f"Step {number}: {step}"
