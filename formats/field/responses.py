r"""Responses that are not split into steps: `{"id", "problem", "answer"?, "response"}`, one a line.

`--split` says how a response becomes steps: `blank-lines`; `numbered` (lines that begin with the
next number: `Step 2:`, `2단계:`, `步骤2`, `2.`, `2)`, Markdown heading or bold allowed);
`markers:REGEX` (a step begins at each match); `auto` takes `numbered` where there are two numbered
lines or more, else `blank-lines`. A response is never split inside a line of prose, a fenced code
block or display mathematics. The trace's meta has the rule and the white space around the steps, so
that `join_steps` gives the response back exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import text_or_number
from formats.rows import FileContext, FileFormat, RowFault, stated_id
from traces import ImportedTrace, InputError, Problem, RejectedRow, Trace
from traces.words import STEP_LINE, step_number

BLANK_LINES, NUMBERED, AUTO, MARKERS = "blank-lines", "numbered", "auto", "markers:"
_KEYS = ("id", "problem", "answer", "response", "final_answer_correct", "trace_id")
_BLANK = re.compile(r"\n[ \t]*\n")
_NUMBER = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+)?(?:\*\*|__)?(\d{1,3})(?:[.)](?=\s)|[．。、）])", re.MULTILINE
)
_WHOLE = re.compile(
    r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)"
    r"|\$\$.*?\$\$|\\\[.*?\\\]|\\begin\{(\w+\*?)\}.*?\\end\{\2\}",
    re.DOTALL | re.MULTILINE,
)
"""Fenced code and display mathematics, which are never split."""


def split_response(text: str, rule: str = AUTO) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """The steps of a response, the white space around them, and the rule that was used.

    Args:
        text: the response.
        rule: blank-lines, numbered, auto, or markers: and a regular expression.

    Returns:
        n steps, n + 1 pieces of white space (before the first step, between steps, after the last
        one), and the rule that `auto` chose.

    Raises:
        InputError: an unknown rule, or a faulty expression.
    """
    used = rule
    if rule == AUTO:
        used = NUMBERED if len(_cuts(text, NUMBERED)) > 1 else BLANK_LINES
    cuts = [cut for cut in _cuts(text, used) if text[:cut].strip()]
    steps: list[str] = []
    around = [""]
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece = text[begin:end]
        step = piece.strip()
        if not step:
            around[-1] += piece
            continue
        at = piece.index(step)
        around[-1] += piece[:at]
        steps.append(step)
        around.append(piece[at + len(step) :])
    return tuple(steps), tuple(around), used


def join_steps(steps: Sequence[str], around: Sequence[str]) -> str:
    """The response whose steps and white space these are.

    >>> join_steps(*split_response("One.\\n\\nTwo.\\n")[:2])
    'One.\\n\\nTwo.\\n'
    """
    return around[0] + "".join(step + space for step, space in zip(steps, around[1:], strict=True))


def _cuts(text: str, rule: str) -> list[int]:
    """Offsets at which a step begins, outside code and mathematics."""
    whole = [found.span() for found in _WHOLE.finditer(text)]

    def free(at: int) -> bool:
        return not any(begin < at < end for begin, end in whole)

    if rule == BLANK_LINES:
        return [found.end() for found in _BLANK.finditer(text) if free(found.start())]
    if rule == NUMBERED:
        numbers = {one.start(): int(one[1]) for one in _NUMBER.finditer(text)}
        numbers |= {one.start(): step_number(one) for one in STEP_LINE.finditer(text)}
        return _numbered({at: numbers[at] for at in sorted(numbers) if free(at)})
    found = (one.start() for one in _expression(rule).finditer(text) if one.group())
    return [at for at in found if free(at)]


def _numbered(found: Mapping[int, int]) -> list[int]:
    """Starts of consecutive numbers from 0 or 1; any other number is a remark inside a step.

    Args:
        found: numbers by their offsets, in order.
    """
    starts: list[int] = []
    last: int | None = None
    for start, number in found.items():
        if (last is None and number in (0, 1)) or (last is not None and number == last + 1):
            starts.append(start)
            last = number
    return starts


def _expression(rule: str) -> re.Pattern[str]:
    if not rule.startswith(MARKERS) or rule == MARKERS:
        raise InputError(
            f"'{rule}' is not a rule for splitting.",
            where="--split",
            remedy="use blank-lines, numbered, markers:REGEX or auto",
        )
    try:
        return re.compile(rule.removeprefix(MARKERS), re.MULTILINE)
    except re.error as fault:
        raise InputError(
            f"'{rule}' has a faulty expression: {fault}.",
            where="--split",
            remedy=r"write for example 'markers:^Step \d+:'",
        ) from fault


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row: dict[str, Any] = raw.value
    question, answer = fields.text_of(row, "problem"), text_or_number(row, "answer")
    text = row.get("response")
    if not isinstance(text, str) or not text.strip():
        raise RowFault("'response' is not a text")
    steps, around, rule = split_response(text, file.split)
    problem_id = fields.question_id(question, more=[answer])
    trace = Trace(
        stated_id(row, fields.id_of(row, "id")),
        problem_id,
        steps,
        subset=file.subset or "default",
        final_answer_correct=fields.optional_bool_of(row, "final_answer_correct"),
        meta={
            **fields.rest_of(row, _KEYS),
            "split": {"asked": file.split, "rule": rule, "around": list(around)},
        },
    )
    problem = Problem(problem_id, question, answer=answer)
    yield ImportedTrace(problem, trace, (), line=raw.line)


FORMAT = FileFormat(
    name="responses",
    required=frozenset({"id", "problem", "response"}),
    parse=_parse,
    takes=frozenset({"split"}),
)
