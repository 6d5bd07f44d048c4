"""MR-Ben (Zeng et al., arXiv 2406.13975): exam questions with the first wrong step of solutions.

A JSON object of lists, one list per question: `{"Question_UUID", "Subject", "Question",
"Options": "A: Enhancer \nB: ...", "Ground_Truth_Answer": "C", "Ground_Truth_Answer_Modified": "A",
"Sampled_Model", "Model_Solution_Steps": ["Step 1: ...", "Solution: Choice_A"],
"Model_Solution_Correctness": "incorrect", "Model_Solution_First_Error_Step": "2", ...}`. The error
step is the *number* written in the line (a 1-based string, "N/A" for none), not a list index: lists
contain unnumbered lines too.

In the subject coding the solution is a program, one text, and the error step is a *line* of it. A
step is a line with the blank lines after it, so that joining the steps gives the program again. A
stated line that occurs twice, or not at all, makes the gold unusable.

A row to write is parsed again before it is kept: only traces whose steps are numbered fit. Reason
and correction of the error are the annotators' statements and go into the gold label's meta.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import (
    human_gold,
    labeled_trace,
    labeler_key,
    outside,
    stated_labeler,
    usable_label,
    with_meta,
)
from formats.rows import (
    OWN_KEYS,
    CannotCarry,
    ExportRow,
    FileContext,
    FileFormat,
    FormatLimit,
    Part,
    Rendered,
    RowFault,
    stated_first_error,
    stated_id,
)
from traces import ImportedTrace, Labeler, Problem, RejectedRow, Trace, TraceLabel
from traces.words import STEP_LINE, step_number

GOLD = human_gold("mr-ben")
NO_ERROR = "N/A"
CODING = "coding"
"""The subject whose solutions are programs."""
_STEP = re.compile(r"\s*Step (\d{1,9}):")
_SOLUTION = re.compile(
    r"\s*(?:Solution:|(?:정답|최종 답|답|答案|最终答案|答え|正解)\s*[:：])\s*(.*)", re.DOTALL
)
_OPTION = re.compile(r"(?:^|\n)\s*([A-Z]):")
_LETTER = re.compile(r"^\(?([A-Z])\)?[.。]?$")
_CHOICE = re.compile(r"\bChoice(?:\\?_|\s)([A-Z])\b")


@dataclass(frozen=True, slots=True)
class _Solution:
    steps: tuple[str, ...]
    numbers: tuple[int, ...]
    final_answer: str | None


def _name_row(row: RawRow, _: FileContext) -> str | None:
    question = fields.id_or_none(row.value, "Question_UUID")
    model = fields.id_or_none(row.value, "Sampled_Model")
    return stated_id(row.value, f"{question}:{model}") if question and model else None


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    problem = _problem(row)
    solution = _solution(row)
    model = fields.text_of(row, "Sampled_Model")
    trace = Trace(
        stated_id(row, f"{problem.id}:{model}"),
        problem.id,
        solution.steps,
        subset=file.subset or fields.optional_text_of(row, "Subject") or "default",
        generator=model,
        final_answer=solution.final_answer,
        final_answer_correct=_is_right(solution.final_answer, problem),
        meta=fields.rest_of(row, {*_PROBLEM_KEYS, *_TRACE_KEYS}),
    )
    labeler = stated_labeler(row, GOLD)
    label = usable_label(labeler, trace, lambda: _label(row, labeler, trace, solution))
    said = {name: row[key] for name, key in _SAID.items() if row.get(key) not in (None, NO_ERROR)}
    label = replace(label, meta={**label.meta, **said})
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=labeler, label=label)


_PROBLEM_KEYS = (
    "Question_UUID", "Question", "Options", "Subject",
    "Ground_Truth_Answer", "Ground_Truth_Answer_Modified", "Ground_Truth_Analysis",
)  # fmt: skip
_TRACE_KEYS = (
    "Sampled_Model", "Model_Solution_Steps", "Model_Solution_Correctness",
    "Model_Solution_First_Error_Step", "Model_Solution_Error_Reason",
    "Model_Solution_Rectified_First_Error_Step", *OWN_KEYS,
)  # fmt: skip
_SAID = {
    "reason": "Model_Solution_Error_Reason",
    "rectified": "Model_Solution_Rectified_First_Error_Step",
}
"""Keys of the gold label's meta."""


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
        # "AC" cannot be compared with a model's letter: no answer is better than a wrong one.
        answer = answer.strip() if answer.strip() in letters else None
    return Problem(fields.id_of(row, "Question_UUID"), question, options, answer, meta=meta)


def _options(stated: str) -> tuple[str, ...]:
    parts = _OPTION.split(stated)
    letters, texts = parts[1::2], parts[2::2]
    consecutive = letters == [chr(ord("A") + index) for index in range(len(letters))]
    return tuple(text.strip() for text in texts) if consecutive and not parts[0].strip() else ()


def _solution(row: dict[str, Any]) -> _Solution:
    stated = row.get("Model_Solution_Steps")
    if isinstance(stated, str):
        lines = _program_lines(stated)
        return _Solution(lines, (), None)
    steps: list[str] = []
    numbers: list[int] = []
    before: list[str] = []
    final_answer = None
    for line in fields.steps_of(row, "Model_Solution_Steps"):
        if (number := _number(line)) is not None:
            # Lines before the first numbered one belong to the first step.
            steps.append("\n".join([*before, line.strip()]))
            before.clear()
            numbers.append(number)
        elif said := _SOLUTION.match(line):
            final_answer = said[1].strip() or None
        elif line.strip() and steps:
            steps[-1] += "\n" + line.strip()
        elif line.strip():
            before.append(line.strip())
    if not steps:
        raise RowFault("no line of 'Model_Solution_Steps' begins with 'Step N:'")
    return _Solution(tuple(steps), tuple(numbers), final_answer)


def _number(line: str) -> int | None:
    """The number of a step: `Step 2:`, or the like in another language (`2단계:`, `步骤2：`)."""
    found = _STEP.match(line)
    if found is not None:
        return int(found[1])
    other = None if line.isascii() else STEP_LINE.match(line.strip())
    return None if other is None or other[0].isascii() else step_number(other)


def _program_lines(program: str) -> tuple[str, ...]:
    """The lines that are not blank, each with the blank lines after it (the first: before it)."""
    steps: list[str] = []
    before = ""
    for line in program.split("\n"):
        if line.strip():
            steps.append(before + line)
            before = ""
        elif steps:
            steps[-1] += f"\n{line}"
        else:
            before += f"{line}\n"
    if not steps:
        raise RowFault("there are no steps in 'Model_Solution_Steps'")
    return tuple(steps)


def _line_index(stated: str, steps: tuple[str, ...]) -> int | str:
    """The step that is the stated line, or why it is not known.

    A line counts as it is written; only if there is none, white space is ignored. Of a stated block
    the first line counts.
    """
    wanted = [line for line in stated.split("\n") if line.strip()]
    if not wanted:
        return "gold names no line"
    lines = [next(line for line in step.split("\n") if line.strip()) for step in steps]
    for form in (str.rstrip, lambda line: "".join(line.split())):
        block = [form(line) for line in wanted]
        places = [
            place
            for place in range(len(lines) - len(block) + 1)
            if [form(line) for line in lines[place : place + len(block)]] == block
        ]
        if len(places) == 1:
            return places[0]
        if places:
            return f"the line that gold names occurs {len(places)} times"
    return "gold names a line that the program does not have"


def _is_right(final_answer: str | None, problem: Problem) -> bool | None:
    if final_answer is None or problem.answer is None or not problem.options:
        return None
    letters = set(_CHOICE.findall(final_answer)) or set(_LETTER.findall(final_answer.strip()))
    # "Choice_A/B" or "none of the choices" names no single option: unknown.
    plain = re.search(r"[/,&]|\b(or|and)\b", final_answer) is None
    return letters == {problem.answer} if len(letters) == 1 and plain else None


def _label(row: dict[str, Any], labeler: Labeler, trace: Trace, solution: _Solution) -> TraceLabel:
    correctness = fields.text_of(row, "Model_Solution_Correctness").strip().lower()
    stated = str(row.get("Model_Solution_First_Error_Step", "")).strip()
    if correctness not in ("correct", "incorrect"):
        raise RowFault(f"'Model_Solution_Correctness' is '{correctness}', not correct or incorrect")
    if correctness == "correct" and stated == NO_ERROR:
        return TraceLabel(trace.id, first_error_given=True)
    if correctness == "incorrect" and not solution.numbers:
        line = row.get("Model_Solution_First_Error_Step")
        place = _line_index(line if isinstance(line, str) else "", trace.steps)
        if isinstance(place, int):
            return TraceLabel(trace.id, first_error_given=True, first_error_index=place)
        return outside(labeler, trace.id, place)
    if (
        correctness == "incorrect"
        and stated.isdecimal()
        and len(stated) < 10
        and int(stated) in solution.numbers
    ):
        number = int(stated)
        # If two steps have this number, the first one is taken as the first error.
        repeated = {"step_number_repeated": number} if solution.numbers.count(number) > 1 else {}
        index = solution.numbers.index(number)
        return TraceLabel(trace.id, first_error_given=True, first_error_index=index, meta=repeated)
    detail = f"gold says '{correctness}' with first error step '{stated}'"
    if correctness == "incorrect" and stated.isdecimal():
        detail = (
            f"gold names step {stated} as the first error, no line begins with 'Step {stated}:'"
        )
    return outside(labeler, trace.id, detail)


def _render(row: ExportRow) -> Rendered:
    error, problem, trace = stated_first_error(row), row.problem, row.trace
    model = trace.generator
    if model is None or (problem.options and _options(_lettered(problem)) != problem.options):
        raise _cannot("it has no generator, or its options cannot be written one per line")
    solution, wrong = _program(trace, error) if trace.subset == CODING else _numbered(trace, error)
    said = {_SAID[name]: value for name, value in row.label.meta.items() if name in _SAID}
    given = {
        "Question_UUID": problem.id,
        "Question": problem.question,
        "Options": _lettered(problem),
        "Subject": trace.subset,
        "Ground_Truth_Answer": problem.answer or "",
        **{key: problem.meta[key] for key in _PROBLEM_KEYS[3:] if key in problem.meta},
        "Sampled_Model": model,
        "Model_Solution_Steps": solution,
        "Model_Solution_Correctness": "correct" if error is None else "incorrect",
        "Model_Solution_First_Error_Step": wrong,
        **said,
        **labeler_key(row),
    }
    if f"{problem.id}:{model}" != trace.id:
        given["trace_id"] = trace.id
    return with_meta(row, given, (*_PROBLEM_KEYS, *_TRACE_KEYS), _lost(row, given))


def _numbered(trace: Trace, error: int | None) -> tuple[list[str], str]:
    """The lines of a solution in numbered steps, and the number of the wrong one."""
    lines = [line for step in trace.steps for line in _lines(step)]
    lines += [] if trace.final_answer is None else [f"Solution: {trace.final_answer}"]
    again = _read_back(lines)
    if again is None or (again.steps, again.final_answer) != (trace.steps, trace.final_answer):
        raise _cannot("not every step begins with 'Step N:'")
    if error is None:
        return lines, NO_ERROR
    if again.numbers.index(again.numbers[error]) != error:
        raise _cannot("another step has the number of the wrong step")
    return lines, f"{again.numbers[error]}"


def _program(trace: Trace, error: int | None) -> tuple[list[str] | str, str]:
    """The program of a solution, and its wrong line."""
    program = "\n".join(trace.steps)
    same = trace.final_answer is None and any(step.strip() for step in trace.steps)
    if not same or _program_lines(program) != trace.steps:
        return _numbered(trace, error)
    if error is None:
        return program, NO_ERROR
    line = trace.steps[error].strip("\n").rstrip()
    if _line_index(line, trace.steps) != error:
        raise _cannot("another line is equal to the wrong one")
    return program, line


def _cannot(detail: str) -> CannotCarry:
    return CannotCarry(FormatLimit.NOT_CARRIED, detail)


def _lettered(problem: Problem) -> str:
    letters = (chr(ord("A") + index) for index in range(len(problem.options)))
    return "\n".join(
        f"{letter}: {text}" for letter, text in zip(letters, problem.options, strict=True)
    )


def _lines(step: str) -> list[str]:
    """A step as entries of the list: text before its number becomes a separate entry."""
    numbered = re.search(r"^\s*Step \d+:", step, re.MULTILINE)
    if numbered is None or not numbered.start():
        return [step]
    return [step[: numbered.start() - 1], step[numbered.start() :]]


def _read_back(lines: list[str]) -> _Solution | None:
    try:
        return _solution({"Model_Solution_Steps": lines})
    except RowFault:
        return None


def _is_said(key: str, value: Any) -> bool:
    if key == "step_number_repeated":
        return True
    return key in _SAID and value not in (None, NO_ERROR)


def _lost(row: ExportRow, given: dict[str, Any]) -> frozenset[Part]:
    read_back = _problem(given)
    same = {
        Part.ANSWER: read_back.answer == row.problem.answer,
        Part.TEXT: read_back.question == row.problem.question,
        Part.PROBLEM_META: not row.problem.meta.keys() - set(_PROBLEM_KEYS[3:]),
        Part.SUBSET: given["Subject"] == row.trace.subset,
        Part.LABEL_META: all(_is_said(key, value) for key, value in row.label.meta.items()),
        Part.OUTCOME: _is_right(row.trace.final_answer, read_back)
        is row.trace.final_answer_correct,
    }
    return frozenset(part for part, kept in same.items() if not kept)


FORMAT = FileFormat(
    name="mr-ben",
    required=frozenset(
        {"Question_UUID", "Question", "Sampled_Model", "Model_Solution_Steps",
         "Model_Solution_Correctness", "Model_Solution_First_Error_Step"}
    ),
    parse=_parse,
    name_row=_name_row,
    render=_render,
    carries=frozenset(
        {Part.OPTIONS, Part.ANSWER, Part.PROBLEM_META, Part.SUBSET, Part.GENERATOR,
         Part.FINAL_ANSWER, Part.OUTCOME, Part.TRACE_META, Part.LABEL_META}
    ),
    maps_lists=True,
)  # fmt: skip
