"""PRMBench (Song et al., arXiv 2501.03124): PRM800K solutions with planted errors of nine classes.

JSONL, one file per class: `{"original_question", "modified_question", "original_process": [..],
"modified_process": [..], "modified_steps": [3, 4], "error_steps": [3, 4, 5], "reason",
"idx": "prm_test_p1_0", "question", "classification": "circular"}`. The modified question and
process are evaluated; the rest goes into the trace's meta, the reason into the label's.
`error_steps` are 1-based and may be outside the process: those inside are kept, the others
reported. `idx` alone is not unique, so the id is `<classification>_<idx>`. Class `multi_solutions`
has no errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import (
    human_gold,
    labeled_trace,
    labeler_key,
    outside,
    stated_labeler,
    with_meta,
)
from formats.rows import (
    ExportRow,
    FileContext,
    FileFormat,
    Part,
    Rendered,
    RowFault,
    stated_id,
    whole_verdicts,
)
from traces import (
    ImportedTrace,
    Labeler,
    Problem,
    RejectedRow,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)

GOLD = human_gold("prmbench")
_KEYS = ("modified_question", "modified_process", "error_steps", "reason", "labeler", "trace_id")
"""Keys that do not go into the trace's meta; `classification` and `idx` do."""


def _name_row(row: RawRow, _: FileContext) -> str | None:
    return _id(row.value)


def _id(row: dict[str, Any]) -> str | None:
    name, number = row.get("classification"), fields.id_or_none(row, "idx")
    if not isinstance(name, str) or not name.strip() or number is None:
        return None
    # The repository documents the prefixed form; its files have the bare one.
    return stated_id(row, number if number.startswith(f"{name}_") else f"{name}_{number}")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, kind = (
        fields.text_of(row, "modified_question"),
        fields.text_of(row, "classification"),
    )
    trace_id = _id(row)
    if trace_id is None:
        raise RowFault("'idx' is not a text or a whole number")
    trace = Trace(
        trace_id,
        fields.question_id(question),
        fields.steps_of(row, "modified_process"),
        subset=file.subset or kind,
        meta=fields.rest_of(row, _KEYS),
    )
    labeler = stated_labeler(row, GOLD)
    try:
        label, stray = _label(row, labeler, trace)
    except RowFault as fault:
        label, stray = outside(labeler, trace.id, str(fault)), ()
    reason = fields.optional_text_of(row, "reason")
    if reason is not None:
        label = replace(label, meta={**label.meta, "reason": reason})
    problem = Problem(trace.problem_id, question)
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=labeler, label=label)
    if stray and label.abstention is None:
        detail = (
            f"error steps {_listed(stray)} are outside the {len(trace.steps)} steps;"
            " the others are kept"
        )
        yield file.rejected(raw, trace.id, detail, imported=True)


def _label(
    row: dict[str, Any], labeler: Labeler, trace: Trace
) -> tuple[TraceLabel, tuple[int, ...]]:
    """The label, and the error steps outside the trace."""
    stated = row.get("error_steps")
    if not isinstance(stated, list):
        raise RowFault("'error_steps' is not a list")
    for number in stated:
        if isinstance(number, bool) or not isinstance(number, int):
            raise RowFault(f"'error_steps' holds {number!r:.40}, not a step's number")
    inside = {number - 1 for number in stated if 1 <= number <= len(trace.steps)}
    stray = tuple(sorted({number for number in stated if not 1 <= number <= len(trace.steps)}))
    if stray and not inside:
        detail = f"gold names error steps {_listed(stray)}, the trace has {len(trace.steps)} steps"
        return outside(labeler, trace.id, detail), stray
    steps = tuple(
        StepLabel(Verdict.INCORRECT if index in inside else Verdict.CORRECT)
        for index in range(len(trace.steps))
    )
    meta = {"error_steps_outside": list(stray)} if stray else {}
    return TraceLabel(trace.id, steps, meta=meta), stray


def _listed(numbers: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, numbers)):.80}"


def _render(row: ExportRow) -> Rendered:
    verdicts = whole_verdicts(row)
    meta, said = row.trace.meta, row.label.meta
    name, number = meta.get("classification"), meta.get("idx")
    name = name if isinstance(name, str) and name.strip() else row.trace.subset
    whole = isinstance(number, int) and not isinstance(number, bool)
    number = number if whole or isinstance(number, str) else row.trace.id
    wrong = [place for place, good in enumerate(verdicts, 1) if not good]
    stray = _stray(said.get("error_steps_outside"), len(verdicts)) if wrong else []
    given = {
        "modified_question": row.problem.question,
        "modified_process": list(row.trace.steps),
        "error_steps": wrong + stray,
        "reason": said.get("reason") if _is_text(said.get("reason")) else None,
        **labeler_key(row),
    }
    lost = {Part.SUBSET} if row.trace.subset != name else set()
    read_back = {"error_steps_outside": stray} if stray else {}
    read_back |= {"reason": given["reason"]} if given["reason"] else {}
    if any(key not in read_back or read_back[key] != value for key, value in said.items()):
        lost.add(Part.LABEL_META)
    rendered = with_meta(row, given, _KEYS, frozenset(lost))
    written = rendered.row | {"classification": name, "idx": number}
    if _id(written) != row.trace.id:
        written["trace_id"] = row.trace.id
    return Rendered(written, lost=rendered.lost)


def _stray(stated: Any, n_steps: int) -> list[int]:
    """Error steps outside the trace as `_label` stores them; empty if the meta has something
    else."""
    numbers = stated if isinstance(stated, list) else []
    whole = all(isinstance(one, int) and not isinstance(one, bool) for one in numbers)
    fits = whole and not any(1 <= one <= n_steps for one in numbers)
    return numbers if fits and numbers == sorted(set(numbers)) else []


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


FORMAT = FileFormat(
    name="prmbench",
    required=frozenset({"modified_question", "modified_process", "error_steps", "classification"}),
    parse=_parse,
    name_row=_name_row,
    render=_render,
    carries=frozenset({Part.SUBSET, Part.TRACE_META, Part.LATER_VERDICTS, Part.LABEL_META}),
)
