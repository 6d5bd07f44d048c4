"""Med-PRM (arXiv 2506.11474, eth-medical-ai-lab/Med-PRM): a JSON list of questions with solutions.

`{"question_id", "question", "options"?: [..], "correct_answer"?, "data_source"?,
"related_docs": [..], "solutions": [{"prm_processed_solution": "Step 1: ... ки Step 2: ... ки",
"orm_label"?: 0|1, "answer"?, "prm_soft_label"?: [0.25, ..], "prm_hard_label"?: [1, 0],
"prm_gemini_label"?, "prm_llama_label"?}]}`. A step ends with " ки". No label key is derived from
another one: hard = 0 together with soft = 0.25 occurs in published files.

The output of its scoring script (`python/4_scoring_PRM.py`) has, per solution, `score` (0 or 1: the
answer is right), `PRM_score_list` (P(+) of each step), `PRM_min_score` (their minimum, `-Infinity`
for a solution that was skipped) and `PRM_score` (the last one). It becomes the labeler `prm` with
the script's configuration; a skipped solution is an abstention that `retry` scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.rows import (
    CannotCarry,
    ExportRow,
    FileContext,
    FileFormat,
    FormatLimit,
    Misfit,
    Part,
    Rendered,
    RowFault,
    binary_verdicts,
    parts_of,
    require_label,
    stated_id,
)
from traces import (
    AbstentionReason,
    Evidence,
    ImportedTrace,
    Labeler,
    LabelerKind,
    Problem,
    RejectedRow,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
    abstained,
)

MARK = " ки"
_MARK = re.compile(r" ки(?!\w)")
_CONFIG = {"imported_from": "medprm"}
SOFT = Labeler("prm_soft_label", LabelerKind.MC, _CONFIG)
HARD = Labeler("prm_hard_label", LabelerKind.MC, _CONFIG)
GEMINI = Labeler("prm_gemini_label", LabelerKind.JUDGE, _CONFIG)
LLAMA = Labeler("prm_llama_label", LabelerKind.JUDGE, _CONFIG)
LABELERS = (SOFT, HARD, GEMINI, LLAMA)
PRM_NAME = "prm"
"""Name of the labeler that the scoring script's output becomes."""
_PRM_KEYS = frozenset({"PRM_min_score", "PRM_score", "PRM_score_list"})
_SCRIPT = {
    **_CONFIG,
    "family": "medprm",
    "mode": "medprm-compat",
    "max_tokens": 4096,
    "overflow": "drop-documents",
    "reserve": 0,
    "packing": "medprm-compat",
}
"""The scoring script's configuration, as `stepgold score` stores its own."""
_SAME = 1e-6
"""Largest difference of two equal scores."""
_QUESTION_KEYS = (
    "question_id",
    "question",
    "options",
    "correct_answer",
    "related_docs",
    "solutions",
    "data_source",
)


def _name_row(row: RawRow, _: FileContext) -> str | None:
    return fields.id_or_none(row.value, "question_id")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    question_id = fields.id_of(row, "question_id")
    problem = Problem(
        question_id,
        fields.text_of(row, "question"),
        fields.texts_of(row, "options"),
        fields.optional_text_of(row, "correct_answer"),
        meta=fields.rest_of(row, _QUESTION_KEYS),
    )
    documents = fields.texts_of(row, "related_docs")
    evidence = tuple(
        fields.imported_evidence(f"{question_id}/{rank}", "", text, rank)
        for rank, text in enumerate(documents)
        if text.strip()
    )
    solutions = row.get("solutions")
    if not isinstance(solutions, list) or not solutions:
        raise RowFault("'solutions' is not a list with at least one solution")
    # The source belongs to the solutions, not to the problem: one question may occur in two
    # sources.
    subset = file.subset or fields.optional_text_of(row, "data_source") or "default"
    scored = any(isinstance(one, dict) and _PRM_KEYS & one.keys() for one in solutions)
    for index, solution in enumerate(solutions):
        trace_id = f"{question_id}:{index}"
        if isinstance(solution, dict):
            trace_id = stated_id(solution, trace_id)
        try:
            yield from _solution(
                raw,
                file,
                solution=solution,
                problem=problem,
                evidence=evidence,
                trace_id=trace_id,
                subset=subset,
                scored=scored,
            )
        except RowFault as fault:
            yield file.rejected(raw, trace_id, str(fault))


def _solution(
    raw: RawRow,
    file: FileContext,
    solution: Any,
    problem: Problem,
    evidence: tuple[Evidence, ...],
    trace_id: str,
    subset: str,
    *,
    scored: bool,
) -> Iterator[ImportedTrace | RejectedRow]:
    if not isinstance(solution, dict):
        raise RowFault("the solution is not an object")
    keys = [labeler.name for labeler in LABELERS]
    right = solution.get("orm_label")
    outcome = {"orm_label"}
    if right not in (0, 1) and solution.get("score") in (0, 1):
        right, outcome = solution["score"], {"orm_label", "score"}
    trace = Trace(
        trace_id,
        problem.id,
        split_steps(fields.text_of(solution, "prm_processed_solution")),
        subset=subset,
        final_answer=fields.optional_text_of(solution, "answer"),
        final_answer_correct=bool(right) if right in (0, 1) else None,
        meta=fields.rest_of(
            solution,
            {"prm_processed_solution", "answer", "trace_id", *outcome, *keys, *_PRM_KEYS},
        ),
    )
    labels, misfits = [], []
    if scored:
        label, misfit = _script_label(trace, solution)
        misfits += [] if misfit is None else [misfit]
        labels.append((Labeler(PRM_NAME, LabelerKind.PRM, _SCRIPT, model=file.prm), label))
    for labeler in LABELERS:
        if solution.get(labeler.name) is None:
            continue
        try:
            label = _label(trace, labeler, solution[labeler.name])
        except Misfit as misfit:
            misfits.append(f"{labeler.name}: {misfit}")
            label = abstained(trace_id, AbstentionReason.UNREADABLE, str(misfit))
        labels.append((labeler, label))
    yield ImportedTrace(
        problem=problem, trace=trace, labels=tuple(labels), evidence=evidence, line=raw.line
    )
    for reason in misfits:
        yield file.rejected(raw, trace_id, reason, imported=True)


def _script_label(trace: Trace, solution: Mapping[str, Any]) -> tuple[TraceLabel, str | None]:
    """What the scoring script wrote for a solution, and why it fits no step; None if it does.

    The label's meta has `PRM_min_score` where it is not the minimum of the scores.
    """
    stated, least = solution.get("PRM_score_list"), solution.get("PRM_min_score")
    # The reader turned -Infinity into null.
    skipped = "PRM_min_score" in solution and least is None
    if not stated or skipped or (isinstance(stated, list) and None in stated):
        detail = "Med-PRM's script skipped the solution (-Infinity or no scores)."
        return abstained(trace.id, AbstentionReason.OVER_LENGTH, detail), None
    known = isinstance(least, int | float) and not isinstance(least, bool)
    meta = {"PRM_min_score": least} if known else {}
    try:
        label = _scores(trace, stated)
    except Misfit as misfit:
        label = abstained(trace.id, AbstentionReason.UNREADABLE, str(misfit))
        return replace(label, meta=meta), f"PRM_score_list: {misfit}"
    lowest = min(step.score for step in label.step_labels if step.score is not None)
    same = known and abs(lowest - float(least or 0)) <= _SAME
    return (label if same else replace(label, meta=meta)), None


def _scores(trace: Trace, stated: Any) -> TraceLabel:
    if not isinstance(stated, list) or len(stated) != len(trace.steps):
        count = len(stated) if isinstance(stated, list) else "no list of"
        raise Misfit(f"{count} scores for {len(trace.steps)} steps")
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in stated):
        raise Misfit("a score is not a number")
    if not all(0 <= one <= 1 for one in stated):
        raise Misfit("a score is not in [0, 1]")
    return TraceLabel(trace.id, tuple(StepLabel(score=float(one)) for one in stated))


def split_steps(text: str) -> tuple[str, ...]:
    """The steps of a `prm_processed_solution`, without their marks."""
    *steps, tail = _MARK.split(text)
    if not steps:
        raise RowFault(f"'prm_processed_solution' has no step mark '{MARK}'")
    if tail.strip():
        raise RowFault("'prm_processed_solution' has text after its last step mark")
    return tuple(step.strip() for step in steps)


def _label(trace: Trace, labeler: Labeler, stated: Any) -> TraceLabel:
    values = stated if isinstance(stated, list) else [stated]
    if len(values) != len(trace.steps):
        raise Misfit(f"{len(values)} labels for {len(trace.steps)} steps")
    if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
        raise Misfit("a label is not a number in [0, 1]")
    if labeler is SOFT:
        return TraceLabel(trace.id, tuple(StepLabel(score=float(value)) for value in values))
    if not all(value in (0, 1) for value in values):
        raise Misfit("a label is neither 0 nor 1")
    verdicts = (Verdict.CORRECT if value else Verdict.INCORRECT for value in values)
    return TraceLabel(trace.id, tuple(StepLabel(verdict) for verdict in verdicts))


def _render(row: ExportRow) -> Rendered:
    require_label(row)
    labels, length = _label_keys(row)
    steps = [" ".join(step.split()) for step in row.trace.steps[:length]]
    if any(_MARK.search(f" {step} ") or not step for step in steps):
        raise CannotCarry(
            FormatLimit.NOT_CARRIED, f"a step is blank or holds the step mark '{MARK}'"
        )
    right = row.trace.final_answer_correct
    solution = {
        "prm_processed_solution": " ".join(f"{step}{MARK}" for step in steps),
        "orm_label": None if right is None else int(right),
        "answer": row.trace.final_answer,
        **labels,
        "trace_id": row.trace.id,
        "labeler": {"name": row.labeler.name, "kind": row.labeler.kind.value},
    }
    question = {
        "question_id": row.problem.id,
        "question": row.problem.question,
        "options": list(row.problem.options),
        "correct_answer": row.problem.answer,
        "data_source": row.trace.subset,
        "related_docs": [found.passage.text for found in row.evidence],
        "solutions": [{key: value for key, value in solution.items() if value is not None}],
    }
    lost = set()
    if tuple(steps) != row.trace.steps[:length]:
        lost.add(Part.TEXT)
    if SOFT.name not in labels:
        lost.add(Part.SCORES)
    kept = {key: value for key, value in question.items() if value is not None}
    left_out = len(row.trace.steps) - length
    return Rendered(kept, left_out, frozenset(lost) & (parts_of(row) | {Part.TEXT}))


def _label_keys(row: ExportRow) -> tuple[dict[str, list[float] | list[int]], int]:
    """The label keys that Med-PRM's trainer reads, and how many steps they cover."""
    n_steps = len(row.trace.steps)
    keys: dict[str, list[float] | list[int]] = {}
    scores = [step.score for step in row.label.step_labels]
    whole = [score for score in scores if score is not None]
    if whole and len(whole) == n_steps:
        keys[SOFT.name] = whole
        if all(step.verdict is None for step in row.label.step_labels):
            return keys, n_steps
    verdicts = [int(good) for good in binary_verdicts(row)]
    # Med-PRM's trainer reads Monte Carlo labels and judge labels, nothing else.
    keys[HARD.name if row.labeler.kind is LabelerKind.MC else GEMINI.name] = verdicts
    if SOFT.name in keys and len(verdicts) < n_steps:
        del keys[SOFT.name]
    return keys, len(verdicts)


def _gather(rows: Iterable[dict[str, Any]]) -> Iterable[Mapping[str, Any]]:
    # One object per question, in memory: a question's solutions need not be adjacent.
    questions: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        known = questions.setdefault((row["question_id"], row["data_source"]), row)
        if known is not row:
            known["solutions"].extend(row["solutions"])
    return questions.values()


FORMAT = FileFormat(
    name="medprm",
    required=frozenset({"question_id", "question", "solutions"}),
    parse=_parse,
    name_row=_name_row,
    render=_render,
    carries=frozenset(
        {Part.OPTIONS, Part.ANSWER, Part.SUBSET, Part.FINAL_ANSWER, Part.OUTCOME,
         Part.EVIDENCE, Part.SCORES, Part.LATER_VERDICTS}
    ),
    gather=_gather,
    always_list=True,
    takes=frozenset({"prm"}),
)  # fmt: skip
