"""ProcessBench (Zheng et al., arXiv 2412.06559): mathematics with the first wrong step by experts.

`{"id": "gsm8k-0", "generator", "problem", "steps": [..], "final_answer_correct": bool, "label":
1}`; `label` is the 0-based index of the first wrong step, -1 for none. The id says which
of the four subsets a row is in, unless a key `subset` does; other ids name none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import (
    first_error_label,
    human_gold,
    labeled_trace,
    labeler_key,
    stated_labeler,
    usable_label,
    with_meta,
)
from formats.rows import (
    ExportRow,
    FileContext,
    FileFormat,
    Part,
    Rendered,
    RowFault,
    stated_first_error,
)
from traces import ImportedTrace, Labeler, Problem, RejectedRow, Trace, TraceLabel

NO_ERROR = -1
GOLD = human_gold("processbench")
_KEYS = ("id", "generator", "problem", "steps", "final_answer_correct", "label", "labeler")
_PREFIX = re.compile(r"(gsm8k|math|olympiadbench|omnimath)-\d+", re.ASCII)


def _name_row(row: RawRow, _: FileContext) -> str | None:
    return fields.id_or_none(row.value, "id")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    trace_id = fields.id_of(row, "id")
    question = fields.text_of(row, "problem")
    trace = Trace(
        trace_id,
        fields.question_id(question),
        fields.steps_of(row, "steps"),
        subset=file.subset
        or _stated_subset(row)
        or _subset_by_id(trace_id)
        or file.fallback_subset,
        generator=fields.optional_text_of(row, "generator"),
        final_answer_correct=fields.optional_bool_of(row, "final_answer_correct"),
        meta=fields.rest_of(row, (*_KEYS, "subset") if _stated_subset(row) else _KEYS),
    )
    labeler = stated_labeler(row, GOLD)
    label = usable_label(labeler, trace, lambda: _label(row.get("label"), labeler, trace))
    yield from labeled_trace(
        raw,
        file,
        problem=Problem(trace.problem_id, question),
        trace=trace,
        labeler=labeler,
        label=label,
    )


def _stated_subset(row: Mapping[str, Any]) -> str | None:
    value = row.get("subset")
    return value if isinstance(value, str) and value.strip() else None


def _subset_by_id(trace_id: str) -> str | None:
    """The subset of ProcessBench that an id as `gsm8k-12` names; None for any other id."""
    found = _PREFIX.fullmatch(trace_id)
    return found[1] if found else None


def _label(label: Any, labeler: Labeler, trace: Trace) -> TraceLabel:
    number = fields.whole_number(label)
    if number is None:
        raise RowFault(f"'label' is {label!r:.40}, not a whole number")
    index = None if number == NO_ERROR else number
    return first_error_label(labeler, trace, index, f"step {number} (0-based)")


def _render(row: ExportRow) -> Rendered:
    error = stated_first_error(row)
    given = {
        "id": row.trace.id,
        "generator": row.trace.generator,
        "problem": row.problem.question,
        "steps": list(row.trace.steps),
        "final_answer_correct": row.trace.final_answer_correct,
        "label": NO_ERROR if error is None else error,
        **labeler_key(row),
    }
    if row.trace.subset != (_subset_by_id(row.trace.id) or "default"):
        given["subset"] = row.trace.subset
    return with_meta(row, given, (*_KEYS, "subset"))


FORMAT = FileFormat(
    name="processbench",
    required=frozenset({"id", "problem", "steps", "label"}),
    parse=_parse,
    name_row=_name_row,
    render=_render,
    carries=frozenset({Part.GENERATOR, Part.OUTCOME, Part.SUBSET, Part.TRACE_META}),
)
