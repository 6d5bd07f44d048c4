"""BIG-Bench Mistake (Tyen et al., arXiv 2311.08516): five tasks, each solution's first mistake.

JSONL: `{"input": "((3 * 4)) =", "steps": [..], "answer": "12", "target": "12", "mistake_index":
3}`; `mistake_index` is 0-based, null for no mistake. Rows have no id: `<file stem>:i`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import (
    first_error_label,
    human_gold,
    labeled_trace,
    labeler_key,
    stated_labeler,
    text_or_number,
    usable_label,
    with_meta,
)
from formats.rows import (
    OWN_KEYS,
    ExportRow,
    FileContext,
    FileFormat,
    Part,
    Rendered,
    RowFault,
    stated_first_error,
    stated_id,
)
from traces import ImportedTrace, Labeler, Problem, RejectedRow, Trace, TraceLabel

GOLD = human_gold("big-bench-mistake")
_KEYS = ("input", "steps", "answer", "target", "mistake_index", *OWN_KEYS)
_PLAIN = re.compile(r"-?\d+(\.\d+)?|\([A-Z]\)")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, target = fields.text_of(row, "input"), text_or_number(row, "target")
    answer = text_or_number(row, "answer")
    trace = Trace(
        stated_id(row, file.row_id(raw)),
        fields.question_id(question, more=[target]),
        fields.steps_of(row, "steps"),
        subset=file.subset or "default",
        final_answer=answer,
        final_answer_correct=_is_right(answer, target),
        meta=fields.rest_of(row, _KEYS),
    )
    labeler = stated_labeler(row, GOLD)
    if "mistake_index" not in row:
        raise RowFault("'mistake_index' is missing (write null for no mistake)")
    label = usable_label(labeler, trace, lambda: _label(row["mistake_index"], labeler, trace))
    problem = Problem(trace.problem_id, question, answer=target)
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=labeler, label=label)


def _is_right(answer: str | None, target: str | None) -> bool | None:
    """Whether the answer is the target; None where two texts may mean the same answer."""
    if answer is None or target is None:
        return None
    answer, target = answer.strip(), target.strip()
    if answer == target:
        return True
    return False if _PLAIN.fullmatch(answer) and _PLAIN.fullmatch(target) else None


def _label(index: Any, labeler: Labeler, trace: Trace) -> TraceLabel:
    number = fields.whole_number(index)
    if index is not None and number is None:
        raise RowFault(f"'mistake_index' is {index!r:.40}, not a whole number or null")
    return first_error_label(labeler, trace, number, f"step {number!r:.40} (0-based)")


def _render(row: ExportRow) -> Rendered:
    error = stated_first_error(row)
    given = {
        "input": row.problem.question,
        "steps": list(row.trace.steps),
        "answer": row.trace.final_answer,
        "target": row.problem.answer,
        "trace_id": row.trace.id,
        **labeler_key(row),
    }
    outcome = _is_right(row.trace.final_answer, row.problem.answer)
    lost = frozenset({Part.OUTCOME}) if outcome is not row.trace.final_answer_correct else None
    rendered = with_meta(row, given, _KEYS, lost or frozenset())
    # with_meta drops null values, but here null means "no mistake".
    return Rendered(rendered.row | {"mistake_index": error}, lost=rendered.lost)


FORMAT = FileFormat(
    name="big-bench-mistake",
    required=frozenset({"input", "steps", "mistake_index"}),
    parse=_parse,
    render=_render,
    carries=frozenset({Part.ANSWER, Part.FINAL_ANSWER, Part.OUTCOME, Part.TRACE_META}),
)
