"""VisualProcessBench (Wang et al., VisualPRM, arXiv 2503.10291): image questions, every step rated.

JSONL: `{"image": ["images/1.png"], "question", "answer", "response": {"steps": [..],
"process_correctness": [1, 0, -1]}, "policy_model", "data_source": "MMMU"}`; 0 is neutral, and
`--neutral` says how to read it. All wrong steps are marked, not only the first. Image paths stay as
they are. Rows have no id: `<file stem>:i`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from formats import rows as fields
from formats.field.prm800k import label_of
from formats.field.sharegpt import image_paths
from formats.files.container import RawRow
from formats.labels import (
    human_gold,
    labeled_trace,
    labeler_key,
    outside,
    rated_label,
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
    NeutralPolicy,
    Part,
    Rendered,
    RowFault,
    stated_id,
)
from traces import ImportedTrace, Labeler, Problem, RejectedRow, Trace, TraceLabel

_KEYS = ("image", "question", "answer", "response", "policy_model", "data_source", *OWN_KEYS)


def gold(policy: NeutralPolicy) -> Labeler:
    """The human labeler, whose configuration names the policy for neutral steps."""
    chosen = {} if policy is NeutralPolicy.KEEP else {"neutral": policy.value}
    return human_gold("visualprocessbench", **chosen)


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question, answer = fields.text_of(row, "question"), text_or_number(row, "answer")
    images = image_paths(row)
    response = fields.object_of(row, "response")
    trace = Trace(
        stated_id(row, file.row_id(raw)),
        fields.question_id(question, more=[answer, *images]),
        fields.steps_of(response, "steps"),
        subset=file.subset or fields.optional_text_of(row, "data_source") or "default",
        generator=fields.optional_text_of(row, "policy_model"),
        meta={
            **fields.rest_of(response, {"steps", "process_correctness"}),
            **fields.rest_of(row, _KEYS),
        },
    )
    labeler = stated_labeler(row, gold(file.neutral))
    ratings = response.get("process_correctness")
    label = usable_label(labeler, trace, lambda: _label(ratings, labeler, trace, file.neutral))
    problem = Problem(trace.problem_id, question, answer=answer, images=images)
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=labeler, label=label)


def _label(ratings: Any, labeler: Labeler, trace: Trace, policy: NeutralPolicy) -> TraceLabel:
    if not isinstance(ratings, list):
        raise RowFault("'process_correctness' is not a list")
    if len(ratings) != len(trace.steps):
        detail = f"gold rates {len(ratings)} steps, the trace has {len(trace.steps)}"
        return outside(labeler, trace.id, detail)
    return rated_label(trace.id, ratings, policy)


def _render(row: ExportRow) -> Rendered:
    response = {"steps": list(row.trace.steps), "process_correctness": label_of(row)}
    given = {
        "image": list(row.problem.images),
        "question": row.problem.question,
        "answer": row.problem.answer,
        "response": response,
        "policy_model": row.trace.generator,
        "data_source": row.trace.subset,
        "trace_id": row.trace.id,
        **labeler_key(row),
    }
    return with_meta(row, given, _KEYS)


FORMAT = FileFormat(
    name="visualprocessbench",
    required=frozenset({"image", "question", "response"}),
    parse=_parse,
    render=_render,
    carries=frozenset(
        {Part.ANSWER, Part.IMAGES, Part.SUBSET, Part.GENERATOR, Part.TRACE_META,
         Part.LATER_VERDICTS, Part.NEUTRAL}
    ),
    excludes=lambda row: "steps_with_score" in row,  # visualprm-raw
    takes=frozenset({"neutral"}),
)  # fmt: skip
