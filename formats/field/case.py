"""The benchmark case of our design document: one JSON object per trace, with its steps.

`{"case_id", "modality", "metadata": {..}, "clinical_context": {..}, "image": {"path", "view",
"quality"}, "question", "gold_standard": {"findings", "diagnosis", "icd10", "confidence"},
"solution_steps": [{"step_id": 1, "category", "content", "label", "confidence",
"annotation_method", "rag_label", "mc_score", "medical_evidence": [{"source", "quote",
"relevance"}]}], "annotation_metadata": {..}}`. What the source does not state is null. Cases are
only written.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from formats.rows import ExportRow, FileFormat, Part, Rendered, require_label
from traces import (
    AbstentionReason,
    Evidence,
    Labeler,
    LabelerKind,
    Problem,
    Quote,
    StepLabel,
    TraceLabel,
)

_METADATA = (
    "source", "difficulty", "specialty", "requires_specialist", "irb_approved", "phi_removed",
)  # fmt: skip
_CONTEXT = ("age_group", "sex", "symptoms", "history", "vitals")
_GOLD = ("findings", "diagnosis", "icd10", "confidence")
_METHODS = {
    LabelerKind.CONSENSUS: "rag_mc_consensus",
    LabelerKind.EXPERT: "expert_verified",
    LabelerKind.GOLD: "expert_verified",
}
UNCERTAIN = "uncertain"
UNCERTAIN_CONFIDENCE = 0.5
"""Confidence in a step on which judge and MC labeler disagree."""
_SILENT: tuple[Labeler | None, TraceLabel | None] = (None, None)


def _render(row: ExportRow) -> Rendered:
    require_label(row)
    said = {**row.trace.meta, **row.problem.meta}
    judge, judged = _of_kind(row, LabelerKind.JUDGE)
    mc, measured = _of_kind(row, LabelerKind.MC)
    steps = [_step(row, index, judged, measured) for index in range(len(row.trace.steps))]
    written = {
        "case_id": row.trace.id,
        "modality": said.get("modality"),
        "metadata": {"subset": row.trace.subset, **_chosen(said, "metadata", _METADATA)},
        "clinical_context": _chosen(said, "clinical_context", _CONTEXT),
        "image": _image(row.problem, said),
        "images": list(row.problem.images),
        "question": row.problem.question,
        "options": list(row.problem.options),
        "gold_standard": _gold(row.problem, said),
        "final_answer": row.trace.final_answer,
        "final_answer_correct": row.trace.final_answer_correct,
        "generator": row.trace.generator,
        "solution_steps": steps,
        "annotation_metadata": _annotation(row, steps, (judge, mc), measured),
        "label_meta": dict(row.label.meta),
        "problem_meta": dict(row.problem.meta),
        "trace_meta": dict(row.trace.meta),
    }
    counts = (
        number
        for step in row.label.step_labels
        for number in (step.successes, step.unparsed, step.unfinished)
    )
    counted = any(number is not None for number in counts)
    return Rendered(written, lost=frozenset({Part.REMARKS} if counted else ()))


def _of_kind(row: ExportRow, kind: LabelerKind) -> tuple[Labeler | None, TraceLabel | None]:
    """The labeler of that kind that the case is based on, with its label."""
    for labeler, label in ((row.labeler, row.label), *row.support):
        if labeler.kind is kind:
            return labeler, label
    return _SILENT


def _step(
    row: ExportRow, index: int, judged: TraceLabel | None, measured: TraceLabel | None
) -> dict[str, Any]:
    own = _at(row.label, index)
    judge_step, mc_step = _at(judged, index), _at(measured, index)
    verdict = own.verdict.value if own and own.verdict else _implied(row.label, index)
    by_expert = row.labeler.kind is LabelerKind.EXPERT
    written = {
        "step_id": index + 1,
        "category": _listed(row.trace.meta.get("categories"), index),
        "content": row.trace.steps[index],
        "label": verdict or (UNCERTAIN if _is_uncertain(own) else None),
        "confidence": _confidence(row, own, index),
        "annotation_method": _METHODS.get(row.labeler.kind, row.labeler.kind.value),
        "rag_label": judge_step.verdict.value if judge_step and judge_step.verdict else None,
        "mc_score": mc_step.score if mc_step else None,
        "medical_evidence": _evidence(row, own) or _evidence(row, judge_step),
    }
    if own is not None and own.abstention is not None:
        written["abstention"] = {
            "reason": own.abstention.reason.value,
            "detail": own.abstention.detail,
        }
    if own is not None and own.score is not None:
        written["score"] = own.score
    note = (own and own.reasoning) or (judge_step and judge_step.reasoning)
    return written | (
        {"expert_id": row.labeler.name, "expert_note": note} if by_expert else {"reasoning": note}
    )


def _at(label: TraceLabel | None, index: int) -> StepLabel | None:
    return label.step_labels[index] if label and index < len(label.step_labels) else None


def _implied(label: TraceLabel, index: int) -> str | None:
    """The verdict that a stated first error implies for a step; None for later steps."""
    if not label.first_error_given:
        return None
    error = label.first_error_index
    if error is None or index < error:
        return "correct"
    return "incorrect" if index == error else None


def _confidence(row: ExportRow, own: StepLabel | None, index: int) -> float | None:
    """The labeler's confidence, where it states one (the hybrid rule does)."""
    stated = _listed(row.label.meta.get("confidence"), index)
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        return float(stated)
    return UNCERTAIN_CONFIDENCE if _is_uncertain(own) else None


def _is_uncertain(own: StepLabel | None) -> bool:
    """Whether the sources disagree on the step, so that an expert has to decide."""
    stated = own.abstention if own else None
    return stated is not None and stated.reason is AbstentionReason.UNCERTAIN


def _evidence(row: ExportRow, step: StepLabel | None) -> list[dict[str, Any]]:
    """The step's quote, with the passage it cites and whether the quote was verified."""
    quote = step.quote if step else None
    if quote is None:
        return []
    cited = _cited(row, quote)
    return [
        {
            "source": f"{cited.passage.corpus}/{cited.passage.document}" if cited else None,
            "quote": quote.text,
            "relevance": cited.similarity if cited else None,
            "verified": quote.verified,
        }
    ]


def _cited(row: ExportRow, quote: Quote) -> Evidence | None:
    """The passage that contains a verified quote; None if it is no longer part of the evidence.

    Found by text: the number that a judge cites counts the documents of its prompt, which may be
    fewer than the evidence.
    """
    if not quote.verified or quote.start is None or quote.end is None:
        return None
    sought = _letters(quote.text)
    for found in row.evidence:
        if _letters(found.passage.text[quote.start : quote.end]) == sought:
            return found
    return None


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _listed(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


def _chosen(said: Mapping[str, Any], key: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The source's object of that key; its fields may also be keys of the row."""
    stated = said.get(key)
    inner = stated if isinstance(stated, dict) else {}
    return {name: inner.get(name, said.get(name)) for name in names} | inner


def _image(problem: Problem, said: Mapping[str, Any]) -> dict[str, Any] | None:
    stated = said.get("image")
    inner = stated if isinstance(stated, dict) else {}
    path = problem.images[0] if problem.images else inner.get("path")
    if path is None:
        return None
    return {"view": None, "quality": None} | inner | {"path": path}


def _gold(problem: Problem, said: Mapping[str, Any]) -> dict[str, Any]:
    gold = _chosen(said, "gold_standard", _GOLD)
    if gold["diagnosis"] is None and problem.answer is not None:
        by_letter = dict(zip(ascii_uppercase, problem.options, strict=False))
        gold["diagnosis"] = by_letter.get(problem.answer, problem.answer)
    return gold | {"answer": problem.answer}


def _annotation(
    row: ExportRow,
    steps: list[dict[str, Any]],
    sources: tuple[Labeler | None, Labeler | None],
    measured: TraceLabel | None,
) -> dict[str, Any]:
    judge, mc = sources
    drawn = [step.continuations for step in (measured.step_labels if measured else ())]
    verified = _METHODS.get(row.labeler.kind) == "expert_verified"
    uncertain = sum(step["label"] == UNCERTAIN for step in steps)
    confident = sum(step["label"] not in (None, UNCERTAIN) for step in steps)
    return {
        "annotation_date": None,
        "rag_model": judge and judge.model,
        "rag_model_version": judge and judge.resolved_model,
        "mc_model": mc and mc.model,
        "mc_model_version": mc and mc.resolved_model,
        "mc_samples": max((number for number in drawn if number is not None), default=None),
        "expert_verified_steps": confident if verified else 0,
        "primary_annotator": row.labeler.name,
        "expert_reviewer": row.labeler.name if row.labeler.kind is LabelerKind.EXPERT else None,
        "total_steps": len(steps),
        "confident_steps": confident,
        "uncertain_steps": uncertain,
    }


FORMAT = FileFormat(
    name="case",
    required=frozenset({"case_id"}),
    render=_render,
    carries=frozenset(Part) - {Part.EVIDENCE},
)
