"""Our own format: one trace per row, with labels of any number of labelers, evidence and meta.

`{"id", "problem", "options"?, "answer"?, "images"?, "subset"?, "generator"?, "steps",
"final_answer"?, "final_answer_correct"?, "labels": {LABELER: {"kind", "verdicts"?, "scores"?,
"first_error"?}}?, "evidence": [{"source", "title", "text"}]?, "meta"?}`. Written labels may have
two more keys, `details` (per step: MC counts, reasoning, quote, abstention) and `meta`; a written
row may have `problem_meta`, the source's other fields about the problem. Unknown keys of a row go
into the trace's meta.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import outside, read_label, write_label
from formats.rows import (
    IMPORTED_CORPUS,
    ExportRow,
    FileContext,
    FileFormat,
    Misfit,
    Part,
    Rendered,
    RowFault,
    object_of,
    require_label,
)
from traces import (
    Evidence,
    ImportedTrace,
    Labeler,
    LabelerKind,
    Problem,
    RejectedRow,
    Trace,
    TraceLabel,
)

_KEYS = (
    "id", "problem", "options", "answer", "images", "subset", "generator", "steps",
    "final_answer", "final_answer_correct", "labels", "evidence", "meta", "problem_meta",
)  # fmt: skip
MAX_LABELERS = 1000
"""A row with labels of more labelers is refused."""
_LABEL_KEYS = {"kind", "verdicts", "scores", "first_error", "details", "meta"}


def _name_row(row: RawRow, _: FileContext) -> str | None:
    return fields.id_or_none(row.value, "id")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    trace_id = fields.id_of(row, "id")
    problem = _problem(row)
    trace = Trace(
        trace_id,
        problem.id,
        fields.steps_of(row, "steps"),
        subset=file.subset or fields.optional_text_of(row, "subset") or "default",
        generator=fields.optional_text_of(row, "generator"),
        final_answer=fields.optional_text_of(row, "final_answer"),
        final_answer_correct=fields.optional_bool_of(row, "final_answer_correct"),
        meta=_meta(row),
    )
    labels, misfits = _labels(row, trace)
    yield ImportedTrace(
        problem=problem, trace=trace, labels=labels, evidence=_evidence(row), line=raw.line
    )
    for reason in misfits:
        yield file.rejected(raw, trace_id, reason, imported=True)


def _problem(row: dict[str, Any]) -> Problem:
    question = fields.text_of(row, "problem")
    options, images = fields.texts_of(row, "options"), fields.texts_of(row, "images")
    answer, meta = fields.optional_text_of(row, "answer"), object_of(row, "problem_meta")
    # Answer and meta are part of the id: rows that differ in them are two problems.
    stated = [json.dumps(meta, sort_keys=True)] if meta else []
    problem_id = fields.question_id(question, options, [answer, *images, *stated])
    return Problem(
        id=problem_id, question=question, options=options, answer=answer, images=images, meta=meta
    )


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    meta, unknown = object_of(row, "meta"), fields.rest_of(row, _KEYS)
    if twice := meta.keys() & unknown.keys():
        raise RowFault(f"'{min(twice)}' is a key of the row and of its meta")
    return {**unknown, **meta}


def _labels(
    row: dict[str, Any], trace: Trace
) -> tuple[tuple[tuple[Labeler, TraceLabel], ...], list[str]]:
    labels: list[tuple[Labeler, TraceLabel]] = []
    misfits: list[str] = []
    if len(object_of(row, "labels")) > MAX_LABELERS:
        raise RowFault(f"it has labels of more than {MAX_LABELERS} labelers")
    for name in object_of(row, "labels"):
        entry = object_of(row["labels"], name)
        if unknown := entry.keys() - _LABEL_KEYS:
            raise RowFault(f"labeler '{name}': unknown key '{min(unknown)}'")
        kind = entry.get("kind")
        if not isinstance(kind, str) or kind not in set(LabelerKind):
            raise RowFault(
                f"labeler '{name}': 'kind' is {kind!r:.40}, not one of {', '.join(LabelerKind)}"
            )
        labeler = Labeler(name, LabelerKind(kind), {"imported_from": FORMAT.name})
        try:
            label = read_label(trace.id, entry, len(trace.steps))
        except RowFault as fault:
            if labeler.kind is not LabelerKind.GOLD and not isinstance(fault, Misfit):
                raise RowFault(f"labeler '{name}': {fault}") from fault
            misfits.append(f"labeler '{name}': {fault}")
            label = outside(labeler, trace.id, str(fault))
        labels.append((labeler, label))
    return tuple(labels), misfits


def _evidence(row: dict[str, Any]) -> tuple[Evidence, ...]:
    stated = row.get("evidence") or []
    if not isinstance(stated, list) or not all(isinstance(passage, dict) for passage in stated):
        raise RowFault("'evidence' is not a list of objects")
    return tuple(
        fields.imported_evidence(
            fields.text_of(passage, "source"),
            fields.optional_text_of(passage, "title") or "",
            fields.text_of(passage, "text"),
            rank,
        )
        for rank, passage in enumerate(stated)
    )


def _render(row: ExportRow) -> Rendered:
    require_label(row)
    problem, trace = row.problem, row.trace
    given: dict[str, Any] = {
        "id": trace.id,
        "problem": problem.question,
        "options": list(problem.options),
        "answer": problem.answer,
        "images": list(problem.images),
        "subset": trace.subset,
        "generator": trace.generator,
        "steps": list(trace.steps),
        "final_answer": trace.final_answer,
        "final_answer_correct": trace.final_answer_correct,
        "labels": {row.labeler.name: {"kind": row.labeler.kind.value, **write_label(row.label)}},
        "evidence": [_written_evidence(found) for found in row.evidence],
        "meta": dict(trace.meta),
        "problem_meta": dict(problem.meta),
    }
    # An absent key means the same as null or an empty list.
    return Rendered({key: value for key, value in given.items() if value not in (None, [], {})})


def _written_evidence(found: Evidence) -> dict[str, str]:
    passage = found.passage
    source = (
        passage.document
        if passage.corpus == IMPORTED_CORPUS
        else f"{passage.corpus}/{passage.document}"
    )
    return {"source": source, "title": passage.title, "text": passage.text}


FORMAT = FileFormat(
    name="traces",
    required=frozenset({"id", "problem", "steps"}),
    parse=_parse,
    name_row=_name_row,
    render=_render,
    carries=frozenset(Part),
)
PARQUET = replace(FORMAT, name="parquet", parse=None)
"""The same rows as a table; Parquet is read by content, whatever the format."""
