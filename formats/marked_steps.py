"""Question and steps in one text, each step ended by a mark: how Math-Shepherd and OpenRLHF write them."""

from __future__ import annotations

import re

from formats.export_row import CannotCarry, ExportRow, FormatLimit
from formats.fields import RowFault
from formats.parts import Part
from formats.training import asked

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
