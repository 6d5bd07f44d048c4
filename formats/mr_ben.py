"""MR-Ben (Zeng et al., arXiv 2406.13975): exam questions, three models' solutions, the first wrong step marked by experts.

A JSON object of lists, one list per question: `{"Question_UUID", "Subject", "Question", "Options":
"A: Enhancer \\nB: ...", "Ground_Truth_Answer": "C", "Ground_Truth_Answer_Modified": "A", "Sampled_Model",
"Model_Solution_Steps": ["Step 1: ...", "Solution: Choice_A"], "Model_Solution_Correctness": "incorrect",
"Model_Solution_First_Error_Step": "2", ...}`. The error step is the *number* written in the line (a
1-based string, "N/A" for none), not a list index: lists hold unnumbered lines too.

This format is only read: its rows state that a human found the error and why, which our labels cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from formats import fields
from formats.container import RawRow
from formats.fields import Reading, RowFault
from formats.file_format import FileFormat
from traces.abstention import AbstentionReason
from traces.labels import Labeler, LabelerKind, TraceLabel, abstained
from traces.problem import Problem, Trace
from traces.records import ImportedTrace, RejectedRow

GOLD = Labeler("gold", LabelerKind.GOLD, {"imported_from": "mr-ben"})
NO_ERROR = "N/A"
_STEP = re.compile(r"\s*Step (\d+):")
_SOLUTION = re.compile(r"\s*Solution:\s*(.*)", re.DOTALL)
_OPTION = re.compile(r"(?:^|\n)\s*([A-Z]):")
_CHOICE = re.compile(r"\bChoice(?:\\?_|\s)([A-Z])\b")


@dataclass(frozen=True, slots=True)
class _Solution:
    steps: tuple[str, ...]
    numbers: tuple[int, ...]
    final_answer: str | None


def _name_row(row: RawRow, _: Reading) -> str | None:
    parts = row.value.get("Question_UUID"), row.value.get("Sampled_Model")
    return ":".join(map(str, parts)) if all(parts) else None


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    problem = _problem(row)
    solution = _solution(row)
    model = fields.text_of(row, "Sampled_Model")
    trace = Trace(
        f"{problem.id}:{model}",
        problem.id,
        solution.steps,
        subset=reading.subset or fields.optional_text_of(row, "Subject") or "default",
        generator=model,
        final_answer=solution.final_answer,
        final_answer_correct=_is_right(solution.final_answer, problem),
        meta=fields.rest_of(row, *_PROBLEM_KEYS, *_TRACE_KEYS),
    )
    gold = _gold(row, trace, solution)
    yield ImportedTrace(problem, trace, ((GOLD, gold),), line=raw.line)
    if gold.abstention is not None:
        yield reading.rejected(raw, trace.id, gold.abstention.detail, imported=True)


_PROBLEM_KEYS = (
    "Question_UUID", "Question", "Options", "Subject",
    "Ground_Truth_Answer", "Ground_Truth_Answer_Modified", "Ground_Truth_Analysis",
)  # fmt: skip
_TRACE_KEYS = (
    "Sampled_Model", "Model_Solution_Steps", "Model_Solution_Correctness", "Model_Solution_First_Error_Step",
)  # fmt: skip


def _problem(row: dict[str, Any]) -> Problem:
    question = fields.text_of(row, "Question")
    stated = fields.optional_text_of(row, "Options") or ""
    options = _options(stated)
    if stated and not options:
        question = f"{question}\n{stated.strip()}"
    answer = fields.optional_text_of(
        row, "Ground_Truth_Answer_Modified"
    ) or fields.optional_text_of(row, "Ground_Truth_Answer")
    meta = {key: row[key] for key in _PROBLEM_KEYS[3:] if row.get(key)}
    if options and answer is not None:
        letters = {chr(ord("A") + index) for index in range(len(options))}
        # "AC" is no letter a model could be checked against: no answer is better than a wrong one.
        answer = answer.strip() if answer.strip() in letters else None
    return Problem(fields.text_of(row, "Question_UUID"), question, options, answer, meta=meta)


def _options(stated: str) -> tuple[str, ...]:
    parts = _OPTION.split(stated)
    letters, texts = parts[1::2], parts[2::2]
    consecutive = letters == [chr(ord("A") + index) for index in range(len(letters))]
    return tuple(text.strip() for text in texts) if consecutive and not parts[0].strip() else ()


def _solution(row: dict[str, Any]) -> _Solution:
    if isinstance(row.get("Model_Solution_Steps"), str):
        raise RowFault(
            "'Model_Solution_Steps' is one text (the coding subject), not a list of steps"
        )
    steps: list[str] = []
    numbers: list[int] = []
    before: list[str] = []
    final_answer = None
    for line in fields.steps_of(row, "Model_Solution_Steps"):
        if numbered := _STEP.match(line):
            # What stands before the first step belongs to it: no step precedes it.
            steps.append("\n".join([*before, line.strip()]))
            before.clear()
            numbers.append(int(numbered[1]))
        elif said := _SOLUTION.match(line):
            final_answer = said[1].strip() or None
        elif line.strip() and steps:
            steps[-1] += "\n" + line.strip()
        elif line.strip():
            before.append(line.strip())
    if not steps:
        raise RowFault("no line of 'Model_Solution_Steps' begins with 'Step N:'")
    return _Solution(tuple(steps), tuple(numbers), final_answer)


def _is_right(final_answer: str | None, problem: Problem) -> bool | None:
    if final_answer is None or problem.answer is None or not problem.options:
        return None
    letters = set(_CHOICE.findall(final_answer))
    # "Choice_A/B" or "none of the choices" names no single option: then it is not known.
    plain = re.search(r"[/,&]|\b(or|and)\b", final_answer) is None
    return letters == {problem.answer} if len(letters) == 1 and plain else None


def _gold(row: dict[str, Any], trace: Trace, solution: _Solution) -> TraceLabel:
    correctness = fields.text_of(row, "Model_Solution_Correctness").strip().lower()
    stated = str(row.get("Model_Solution_First_Error_Step", "")).strip()
    if correctness not in ("correct", "incorrect"):
        raise RowFault(f"'Model_Solution_Correctness' is '{correctness}', not correct or incorrect")
    if correctness == "correct" and stated == NO_ERROR:
        return TraceLabel(trace.id, first_error_given=True)
    if correctness == "incorrect" and stated.isdecimal() and int(stated) in solution.numbers:
        number = int(stated)
        # Where a number stands twice, the first error is taken to be the first of them.
        repeated = {"step_number_repeated": number} if solution.numbers.count(number) > 1 else {}
        index = solution.numbers.index(number)
        return TraceLabel(trace.id, first_error_given=True, first_error_index=index, meta=repeated)
    detail = f"gold says '{correctness}' with first error step '{stated}'"
    if correctness == "incorrect" and stated.isdecimal():
        detail = (
            f"gold names step {stated} as the first error, no line begins with 'Step {stated}:'"
        )
    return abstained(trace.id, AbstentionReason.GOLD_UNUSABLE, detail)


FORMAT = FileFormat(
    "mr-ben",
    frozenset(
        {"Question_UUID", "Question", "Sampled_Model", "Model_Solution_Steps",
         "Model_Solution_Correctness", "Model_Solution_First_Error_Step"}
    ),
    _parse,
    _name_row,
    maps_lists=True,
)  # fmt: skip
