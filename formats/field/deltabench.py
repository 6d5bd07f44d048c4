r"""DeltaBench (He et al., arXiv 2502.19361): long chains of thought, judged section by section.

`{"id", "task_l1": "math", "question", "answer", "sections_content": "section1: ..\n\nsection2: ..",
"sections_labeled_info": [{"section_number": 1, "reasoning_correctness": "0", ..}, ..],
"reason_error_section_numbers": [7], "reason_unuseful_section_numbers": [], "final_correct": 0}`.
Numbers are 1-based. A step is a section. Sections with an error are incorrect, those without use
are neutral (the official script counts both as errors: `--neutral negative`). People stopped after
the last error, so sections after the last one that they judged are not measured. Files of this
format are only read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import (
    human_gold,
    labeled_trace,
    outside,
    rated_label,
    text_or_number,
    usable_label,
)
from formats.rows import OWN_KEYS, FileContext, FileFormat, RowFault, stated_id
from traces import ImportedTrace, Problem, RejectedRow, Trace, TraceLabel

GOLD = human_gold("deltabench")
_ERRORS, _USELESS = "reason_error_section_numbers", "reason_unuseful_section_numbers"
_INFO = "sections_labeled_info"
_MARKER = re.compile(r"^[ \t]*section[ \t]*(\d{1,9})[ \t]*:", re.IGNORECASE | re.MULTILINE)
_KEYS = (
    "id", "task_l1", "question", "answer", "sections_content", "section_content", "sections",
    "long_cot", _INFO, _ERRORS, _USELESS, "final_correct", *OWN_KEYS,
)  # fmt: skip


def _name_row(row: RawRow, file: FileContext) -> str | None:
    return stated_id(row.value, fields.id_or_none(row.value, "id") or file.row_id(row))


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, answer = fields.text_of(row, "question"), text_or_number(row, "answer")
    right = fields.whole_number(row.get("final_correct"))
    trace = Trace(
        _name_row(raw, file) or file.row_id(raw),
        fields.question_id(question, more=[answer]),
        _steps(row),
        subset=file.subset or fields.optional_text_of(row, "task_l1") or "default",
        final_answer_correct=None if right not in (0, 1) else right == 1,
        meta=fields.rest_of(row, _KEYS),
    )
    label = usable_label(GOLD, trace, lambda: _label(row, trace, file))
    problem = Problem(trace.problem_id, question, answer=answer)
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=GOLD, label=label)


def _steps(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The sections, without the numbers before them."""
    text = row.get("sections_content") or row.get("section_content") or _joined(row.get("sections"))
    if not isinstance(text, str) or not text.strip():
        raise RowFault("'sections_content' is not a text of sections")
    starts: list[re.Match[str]] = []
    for found in _MARKER.finditer(text):
        # A section may quote "Section 2:" of a paper; only the next number begins the next one.
        if int(found[1]) == len(starts) + 1:
            starts.append(found)
    if not starts or text[: starts[0].start()].strip():
        raise RowFault("'sections_content' does not begin with 'section1:'")
    ends = [found.start() for found in starts[1:]] + [len(text)]
    steps = tuple(text[found.end() : end].strip() for found, end in zip(starts, ends, strict=True))
    if not any(steps):
        raise RowFault("there are no steps in 'sections_content'")
    return steps


def _joined(sections: Any) -> str | None:
    """The text of sections given as a list of objects."""
    listed = sections if isinstance(sections, list) else []
    texts = [one.get("content", one.get("section")) for one in listed if isinstance(one, dict)]
    numbered = (f"section{number}: {text}" for number, text in enumerate(texts, 1))
    return "\n\n".join(numbered) if texts and all(isinstance(text, str) for text in texts) else None


def _label(row: Mapping[str, Any], trace: Trace, file: FileContext) -> TraceLabel:
    errors, useless = _numbers(row, _ERRORS), _numbers(row, _USELESS)
    n_steps = len(trace.steps)
    stray = sorted(number for number in errors | useless if not 1 <= number <= n_steps)
    if stray:
        detail = f"gold names section {stray[0]}, the trace has {n_steps} sections"
        return outside(GOLD, trace.id, detail)
    last = max(errors | useless | _judged(row), default=n_steps)
    ratings = [
        -1 if number in errors else 0 if number in useless else 1 if number <= last else None
        for number in range(1, n_steps + 1)
    ]
    return rated_label(trace.id, ratings, file.neutral, _said(row))


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    """What people wrote about sections, for the label's meta."""
    stated = row.get(_INFO)
    listed = stated if isinstance(stated, list) else []
    written = [
        {key: one[key] for key in ("section_number", "explanation", "correction") if one.get(key)}
        for one in listed
        if isinstance(one, dict) and (one.get("explanation") or one.get("correction"))
    ]
    return {"sections": written} if written else {}


def _numbers(row: Mapping[str, Any], key: str) -> set[int]:
    """Section numbers; a table's row may have the list as text."""
    stated = row.get(key)
    if isinstance(stated, str):
        try:
            stated = json.loads(stated or "[]")
        except (ValueError, RecursionError):
            stated = None
    numbers = [fields.whole_number(number) for number in stated] if isinstance(stated, list) else []
    if not isinstance(stated, list) or None in numbers:
        raise RowFault(f"'{key}' is not a list of section numbers")
    return {number for number in numbers if number is not None}


def _judged(row: Mapping[str, Any]) -> set[int]:
    """Numbers of the sections of which people said whether their reasoning is correct."""
    stated = row.get(_INFO)
    entries = [one for one in stated if isinstance(one, dict)] if isinstance(stated, list) else []
    numbers = [
        fields.whole_number(one.get("section_number"))
        for one in entries
        if one.get("reasoning_correctness") not in (None, "")
    ]
    return {number for number in numbers if number is not None and number <= len(entries)}


FORMAT = FileFormat(
    name="deltabench",
    required=frozenset({"question", _ERRORS, _USELESS}),
    parse=_parse,
    name_row=_name_row,
    takes=frozenset({"neutral"}),
)
