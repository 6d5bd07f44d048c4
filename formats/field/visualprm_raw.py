"""VisualPRM400K's raw Monte Carlo counts (Wang et al., VisualPRM, arXiv 2503.10291).

JSONL: `{"image": "a.png", "question", "question_orig"?, "answer", "response", "steps_with_score":
[{"step", "score": 0.75, "num_mc_correct": 12, "num_mc_total": 16}]}`. Each step's score is correct
/ total with both counts; a total of 0 means not measured, whatever `score` says (early stopping
writes 0.0 there). `question` is the prompted form, so `question_orig` is preferred. Rows have no
id: `<file stem>:i`. Files of this format are only read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import rows as fields
from formats.field.sharegpt import image_paths
from formats.files.container import RawRow
from formats.labels import text_or_number
from formats.rows import OWN_KEYS, FileContext, FileFormat, RowFault, stated_id
from traces import (
    Abstention,
    AbstentionReason,
    ImportedTrace,
    Labeler,
    LabelerKind,
    Problem,
    RejectedRow,
    StepLabel,
    Trace,
    TraceLabel,
)

LABELER = Labeler("visualprm", LabelerKind.MC, {"imported_from": "visualprm-raw"})
_KEYS = ("image", "question", "question_orig", "answer", "response", "steps_with_score", *OWN_KEYS)
MOST = 2**31
"""Counts from here on are not counts of continuations, and do not fit into every database."""
_UNMEASURED = Abstention(AbstentionReason.NOT_MEASURED, "0 of 0 continuations")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question = fields.optional_text_of(row, "question_orig") or fields.text_of(row, "question")
    answer, images = text_or_number(row, "answer"), image_paths(row)
    stated = row.get("steps_with_score")
    if not isinstance(stated, list) or not all(isinstance(step, dict) for step in stated):
        raise RowFault("'steps_with_score' is not a list of objects")
    steps = tuple(fields.text_of(step, "step") for step in stated)
    if not steps:
        raise RowFault("there are no steps in 'steps_with_score'")
    trace = Trace(
        stated_id(row, file.row_id(raw)),
        fields.question_id(question, more=[answer, *images]),
        steps,
        subset=file.subset or "default",
        meta=fields.rest_of(row, _KEYS),
    )
    problem = Problem(trace.problem_id, question, answer=answer, images=images)
    label = TraceLabel(trace.id, tuple(map(_step, stated)))
    yield ImportedTrace(problem, trace, ((LABELER, label),), line=raw.line)


def _step(stated: dict[str, Any]) -> StepLabel:
    correct = fields.whole_number(stated.get("num_mc_correct"))
    total = fields.whole_number(stated.get("num_mc_total"))
    if correct is None or total is None or not 0 <= correct <= total < MOST:
        raise RowFault(
            f"'num_mc_correct' and 'num_mc_total' are {stated.get('num_mc_correct')!r:.40} and"
            f" {stated.get('num_mc_total')!r:.40}, not counts"
        )
    if total == 0:
        return StepLabel(abstention=_UNMEASURED, successes=0, continuations=0)
    return StepLabel(score=correct / total, successes=correct, continuations=total)


FORMAT = FileFormat(
    name="visualprm-raw",
    required=frozenset({"question", "response", "steps_with_score"}),
    parse=_parse,
)
