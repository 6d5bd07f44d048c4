"""PRM800K (Lightman et al., arXiv 2305.20050, openai/prm800k): MATH solutions rated step by step by people.

JSONL: `{"labeler": uuid, "timestamp", "generation", "question": {"problem", "ground_truth_solution",
"ground_truth_answer", "pre_generated_steps"?: [..]}, "label": {"steps": [{"completions": [{"text",
"rating": 1|0|-1|null, "flagged"}], "human_completion": null, "chosen_completion": 0}], "total_time",
"finish_reason": "found_error"|"solution"|"bad_problem"|"give_up"}}`. A step is the chosen completion, or the
one a person wrote (rated +1 by the instructions). At the last step of a found error nothing is chosen: the
solution's own step is then the completion that stands in `pre_generated_steps`. Alternatives that were not
taken are kept in the trace's meta. Rows have no id: `<file stem>:i`. `--neutral` says how 0 is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import fields
from formats.container import RawRow
from formats.export_row import ExportRow
from formats.fields import Reading, RowFault
from formats.file_format import FileFormat, Rendered
from formats.gold import human_gold, same_reading_id, stated_id, text_or_number
from formats.neutral import rated_label
from formats.neutral_policy import NeutralPolicy
from formats.parts import Part
from formats.prm800k_steps import label_of, read_steps, write_steps
from traces.labels import Labeler, LabelerKind
from traces.problem import Problem, Trace
from traces.records import ImportedTrace, RejectedRow

_QUESTION = ("problem", "ground_truth_answer")
_ROW = ("question", "label", "trace_id", "labeler_kind")
_OF_QUESTION = ("ground_truth_solution", "pre_generated_steps", "pre_generated_answer", "pre_generated_verifier_score")  # fmt: skip
"""Keys of `question` that are kept in the trace's meta: equal problems may differ in them."""
_OF_LABEL = ("total_time", "finish_reason")


def gold(policy: NeutralPolicy) -> Labeler:
    """The people who rated, as they are read under a policy."""
    chosen = {} if policy is NeutralPolicy.KEEP else {"neutral": policy.value}
    return human_gold("prm800k", **chosen)


def _parse(raw: RawRow, reading: Reading) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    asked, said = fields.object_of(row, "question"), fields.object_of(row, "label")
    question, answer = (
        fields.text_of(asked, "problem"),
        text_or_number(asked, "ground_truth_answer"),
    )
    found = read_steps(said.get("steps"), asked.get("pre_generated_steps"))
    meta = {
        **fields.rest_of(row, *_ROW, *(("labeler",) if "labeler_kind" in row else ())),
        **fields.rest_of(asked, *_QUESTION),
        **fields.rest_of(said, "steps"),
        **found.meta,
    }
    trace = Trace(
        stated_id(row, reading.row_id(raw)),
        fields.question_id(question, (), answer),
        found.steps,
        subset=reading.subset or "default",
        meta=meta,
    )
    label = rated_label(trace.id, found.ratings, reading.neutral)
    labeler = _labeler(row, reading)
    problem = Problem(trace.problem_id, question, answer=answer)
    yield ImportedTrace(problem, trace, ((labeler, label),), line=raw.line)
    if found.cut is not None:
        yield reading.rejected(raw, trace.id, found.cut, imported=True)


def _labeler(row: dict[str, Any], reading: Reading) -> Labeler:
    """Who rated: a row of our export names a labeler's kind, a row of theirs only a person's id."""
    if "labeler_kind" not in row:
        return gold(reading.neutral)
    name, kind = fields.text_of(row, "labeler"), row["labeler_kind"]
    if kind not in set(LabelerKind):
        raise RowFault("'labeler_kind' is no kind of labeler")
    return Labeler(name, LabelerKind(kind), gold(reading.neutral).config)


def _render(row: ExportRow) -> Rendered:
    ratings = label_of(row)
    meta = dict(row.trace.meta)
    steps, lost = write_steps(row.trace.steps, ratings, meta)
    question = {
        "problem": row.problem.question,
        "ground_truth_answer": row.problem.answer,
        **{key: meta.pop(key) for key in _OF_QUESTION if key in meta},
    }
    label = {"steps": steps, **{key: meta.pop(key) for key in _OF_LABEL if key in meta}}
    written: dict[str, Any] = {"question": question, "label": label, "trace_id": row.trace.id}
    if row.labeler.kind is not LabelerKind.GOLD or row.labeler.name != "gold":
        # Their `labeler` is a text, so ours is one too, and the kind stands beside it.
        written |= {"labeler": row.labeler.name, "labeler_kind": row.labeler.kind.value}
    if clashes := meta.keys() & {*written, *_QUESTION, "steps", "labeler_kind"}:
        lost |= {Part.TRACE_META}
    more = {key: value for key, value in meta.items() if key not in clashes}
    return Rendered(written | more, lost=lost)


FORMAT = FileFormat(
    "prm800k",
    frozenset({"question", "label"}),
    _parse,
    same_reading_id,
    _render,
    frozenset({Part.ANSWER, Part.TRACE_META, Part.LATER_VERDICTS, Part.NEUTRAL}),
    has_neutral=True,
)
