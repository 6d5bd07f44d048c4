"""The benchmark case of the owner's case form: a clinical problem and one annotated solution.

`{"case_id", "modality", "metadata": {..}, "clinical_context": {..}, "image": {"path", "view",
"quality"}, "question", "gold_standard": {"findings", "diagnosis", "icd10", "confidence"},
"solution_steps": [{"step_id": 0, "category", "content", "label", "confidence",
"annotation_method", "rag_label", "mc_score", "medical_evidence": [{"source", "quote",
"relevance"}]}], "annotation_metadata": {..}}`; `case_schema` returns its JSON Schema.

A case that was read is written as it came, unknown keys included, with the values of what was
labeled since. What the form has no place for is in the further key `stepgold`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from string import ascii_uppercase
from typing import Any

from formats import rows as fields
from formats.files.container import RawRow
from formats.labels import read_label, stated_labeler, write_label
from formats.rows import (
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
    Abstention,
    AbstentionReason,
    Evidence,
    ImportedTrace,
    Labeler,
    LabelerKind,
    Problem,
    Quote,
    RejectedRow,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)

_OF_PROBLEM = ("modality", "metadata", "clinical_context", "image", "gold_standard")
_KEYS = ("case_id", *_OF_PROBLEM[:4], "question", "gold_standard", "solution_steps",
         "annotation_metadata", "stepgold")  # fmt: skip
_METADATA = (
    "source", "difficulty", "specialty", "requires_specialist", "irb_approved", "phi_removed",
)  # fmt: skip
_CONTEXT = ("age_group", "sex", "symptoms", "history", "vitals")
_GOLD = ("findings", "diagnosis", "icd10", "confidence")
_ANNOTATION = ("annotation_date", "rag_model", "mc_model", "mc_samples", "expert_reviewer")
EXPERT_VERIFIED = "expert_verified"
_METHODS = {
    LabelerKind.CONSENSUS: "rag_mc_consensus",
    LabelerKind.EXPERT: EXPERT_VERIFIED,
    LabelerKind.GOLD: EXPERT_VERIFIED,
}
UNCERTAIN = "uncertain"
UNCERTAIN_CONFIDENCE = 0.5
"""Confidence in a step on which judge and MC labeler disagree."""
_WORDS = {"+": Verdict.CORRECT, "-": Verdict.INCORRECT}
_SIGNS = {verdict: sign for sign, verdict in _WORDS.items()}
_SILENT: tuple[Labeler | None, TraceLabel | None] = (None, None)


@cache
def case_schema() -> Mapping[str, Any]:
    """The JSON Schema (draft 2020-12) of a case."""
    text = resources.files("formats").joinpath("case.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _name_row(row: RawRow, _: FileContext) -> str | None:
    return fields.id_or_none(row.value, "case_id")


def _parse(raw: RawRow, file: FileContext) -> Iterator[ImportedTrace | RejectedRow]:
    row = raw.value
    trace_id, said = fields.id_of(row, "case_id"), object_of(row, "stepgold")
    given = _steps(row)
    problem = _problem(row, said)
    trace = Trace(
        trace_id,
        problem.id,
        tuple(step["content"] for step in given),
        subset=file.subset or fields.optional_text_of(said, "subset") or "default",
        generator=fields.optional_text_of(said, "generator"),
        final_answer=fields.optional_text_of(said, "final_answer"),
        final_answer_correct=fields.optional_bool_of(said, "final_answer_correct"),
        meta=_trace_meta(row, said, given),
    )
    faults: list[str] = []
    labels = _stated_label(said, trace, faults) or _labels(trace, given, faults)
    yield ImportedTrace(problem, trace, labels, evidence=_given_evidence(given), line=raw.line)
    for fault in faults:
        yield file.rejected(raw, trace_id, fault, imported=True)


def _steps(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = row.get("solution_steps")
    if not isinstance(given, list) or not all(isinstance(step, dict) for step in given):
        raise RowFault("'solution_steps' is not a list of objects")
    if not all(isinstance(step.get("content"), str) for step in given):
        raise RowFault("a step has no text in 'content'")
    if not any(step["content"].strip() for step in given):
        raise RowFault("there are no steps in 'solution_steps'")
    return given


def _problem(row: dict[str, Any], said: dict[str, Any]) -> Problem:
    question = fields.text_of(row, "question")
    if "problem_meta" in said:
        options, images = fields.texts_of(said, "options"), fields.texts_of(said, "images")
        answer, meta = fields.optional_text_of(said, "answer"), object_of(said, "problem_meta")
    else:
        options, meta = (), {key: row[key] for key in _OF_PROBLEM if key in row}
        gold = row.get("gold_standard")
        answer = fields.optional_text_of(gold, "diagnosis") if isinstance(gold, dict) else None
        images = tuple(_paths(row.get("image")))
    stated = [answer, *images, json.dumps(meta, sort_keys=True)]
    id = fields.question_id(question, options, stated)
    return Problem(
        id=id, question=question, options=options, answer=answer, images=images, meta=meta
    )


def _paths(image: Any) -> Iterator[str]:
    for each in image if isinstance(image, list) else [image]:
        path = each.get("path") if isinstance(each, dict) else None
        if isinstance(path, str) and path.strip():
            yield path


def _trace_meta(
    row: dict[str, Any], said: dict[str, Any], given: list[dict[str, Any]]
) -> dict[str, Any]:
    """What is written back as it came; of a trace that was no case, its own meta."""
    if "trace_meta" in said:
        return object_of(said, "trace_meta")
    known = {"case_id", "question", "solution_steps", "stepgold", *_OF_PROBLEM}
    steps = [{key: value for key, value in step.items() if key != "content"} for step in given]
    return {**fields.rest_of(row, known), "solution_steps": steps}


Labels = tuple[tuple[Labeler, TraceLabel], ...]


def _stated_label(said: dict[str, Any], trace: Trace, faults: list[str]) -> Labels:
    """The label that our export wrote; empty if there is none."""
    if "label" not in said:
        return ()
    unnamed = Labeler("case", LabelerKind.CONSENSUS, {"imported_from": FORMAT.name})
    labeler = stated_labeler(said, unnamed)
    try:
        return ((labeler, read_label(trace.id, object_of(said, "label"), len(trace.steps))),)
    except Misfit as misfit:
        faults.append(f"labeler '{labeler.name}': {misfit}")
        return ()


def _labels(trace: Trace, given: list[dict[str, Any]], faults: list[str]) -> Labels:
    """The labels in the steps: `case` has a label for every case, the others where given."""

    def labeler(name: str, kind: LabelerKind, field: str) -> Labeler:
        return Labeler(name, kind, {"imported_from": FORMAT.name, "field": field})

    verified = [step.get("annotation_method") == EXPERT_VERIFIED for step in given]
    final = tuple(_stated(step, "label", faults) for step in given)
    open_step = StepLabel(abstention=_NOT_GIVEN)
    expert = tuple(
        step if by_expert and step.verdict else open_step
        for step, by_expert in zip(final, verified, strict=True)
    )
    rag = tuple(_stated(step, "rag_label", faults) for step in given)
    mc = tuple(_stated(step, "mc_score", faults) for step in given)
    confidence = [step.get("confidence") for step in given]
    meta = {"confidence": confidence} if any(value is not None for value in confidence) else {}
    found = [(labeler("case", LabelerKind.CONSENSUS, "label"), final, meta)]
    for name, kind, field, steps in (
        ("case_rag", LabelerKind.JUDGE, "rag_label", rag),
        ("case_mc", LabelerKind.MC, "mc_score", mc),
        ("case_expert", LabelerKind.EXPERT, EXPERT_VERIFIED, expert),
    ):
        if any(step.abstention is None for step in steps):
            found.append((labeler(name, kind, field), steps, {}))
    return tuple((who, TraceLabel(trace.id, steps, meta=meta)) for who, steps, meta in found)


_NOT_GIVEN = Abstention(AbstentionReason.NOT_MEASURED, "null in the file")


def _stated(step: Mapping[str, Any], key: str, faults: list[str]) -> StepLabel:
    """What a key of a step says; a value that the form does not know is listed."""
    value = step.get(key)
    if value is None:
        return StepLabel(abstention=_NOT_GIVEN)
    if key == "label" and value == UNCERTAIN:
        return StepLabel(abstention=Abstention(AbstentionReason.UNCERTAIN, "in the file"))
    if key == "label" and value in list(Verdict):
        return StepLabel(Verdict(value))
    if key == "rag_label" and isinstance(value, str) and value in _WORDS:
        return StepLabel(_WORDS[value])
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "mc_score" and is_number and 0 <= value <= 1:
        return StepLabel(score=float(value))
    detail = f"'{key}' is {value!r:.40}"
    faults.append(f"{detail}, which the form does not know")
    return StepLabel(abstention=Abstention(AbstentionReason.UNREADABLE, detail))


def _given_evidence(given: list[dict[str, Any]]) -> tuple[Evidence, ...]:
    """The quotes of the steps, each once, as evidence that came with the case."""
    found: dict[tuple[str, str], None] = {}
    for step in given:
        stated = step.get("medical_evidence")
        for each in stated if isinstance(stated, list) else ():
            quote = each.get("quote") if isinstance(each, dict) else None
            source = each.get("source") if isinstance(each, dict) else None
            if isinstance(quote, str) and quote.strip() and isinstance(source, str) and source:
                found[source, quote] = None
    return tuple(
        fields.imported_evidence(source, "", quote, rank)
        for rank, (source, quote) in enumerate(found)
    )


def _render(row: ExportRow) -> Rendered:
    require_label(row)
    given = _given(row)
    if given is not None and row.labeler.config.get("field") == "label":
        return Rendered(given)
    judge, judged = _of_kind(row, LabelerKind.JUDGE)
    mc, measured = _of_kind(row, LabelerKind.MC)
    base = _case_of(row) if given is None else given
    steps = [
        before | _step(row, index, judged, measured)
        for index, before in enumerate(base["solution_steps"])
    ]
    before = base.get("annotation_metadata")
    stated = before if isinstance(before, dict) else {}
    label = {
        "labeler": {"name": row.labeler.name, "kind": row.labeler.kind.value},
        "label": write_label(row.label),
    }
    written = base | {
        "solution_steps": steps,
        "annotation_metadata": stated | _annotation(row, steps, (judge, mc), measured),
        "stepgold": base.get("stepgold", {}) | label,
    }
    order = [key for key in _KEYS if key in written]
    return Rendered({key: written[key] for key in [*order, *(written.keys() - set(order))]})


def _given(row: ExportRow) -> dict[str, Any] | None:
    """The case as it was read; None for a trace from elsewhere."""
    meta, texts = row.trace.meta, row.trace.steps
    steps = meta.get("solution_steps")
    if not isinstance(steps, list) or len(steps) != len(texts):
        return None
    if not all(isinstance(step, dict) for step in steps):
        return None
    merged = [
        {key: (texts[index] if key == "content" else step.get(key)) for key in _ordered(step)}
        for index, step in enumerate(steps)
    ]
    problem = {key: value for key, value in row.problem.meta.items() if key in _OF_PROBLEM}
    own = {"case_id": row.trace.id, "question": row.problem.question}
    written: dict[str, Any] = {**own, **problem, **meta, "solution_steps": merged}
    return {key: written[key] for key in [*_KEYS, *written] if key in written}


def _ordered(step: Mapping[str, Any]) -> list[str]:
    """The keys of a step with its content in the place that it has in the form."""
    keys = [key for key in step if key != "content"]
    place = max((keys.index(key) + 1 for key in ("step_id", "category") if key in keys), default=0)
    return [*keys[:place], "content", *keys[place:]]


def _case_of(row: ExportRow) -> dict[str, Any]:
    """A trace from elsewhere as a case without labels; what is not stated is null."""
    problem, trace = row.problem, row.trace
    said = {**trace.meta, **problem.meta}
    kept = {
        "subset": trace.subset,
        "options": list(problem.options),
        "answer": problem.answer,
        "images": list(problem.images),
        "final_answer": trace.final_answer,
        "final_answer_correct": trace.final_answer_correct,
        "generator": trace.generator,
    }
    return {
        "case_id": trace.id,
        "modality": said.get("modality"),
        "metadata": _chosen(said, "metadata", _METADATA),
        "clinical_context": _chosen(said, "clinical_context", _CONTEXT),
        "image": _image(problem, said),
        "question": problem.question,
        "gold_standard": _gold(problem, said),
        "solution_steps": [
            {
                "step_id": index,
                "category": _listed(trace.meta.get("categories"), index),
                "content": text,
                "label": None,
                "confidence": None,
                "annotation_method": None,
                "rag_label": None,
                "mc_score": None,
                "medical_evidence": [],
            }
            for index, text in enumerate(trace.steps)
        ],
        "annotation_metadata": dict.fromkeys(_ANNOTATION),
        "stepgold": {key: value for key, value in kept.items() if value not in (None, [])}
        | {"problem_meta": dict(problem.meta), "trace_meta": dict(trace.meta)},
    }


def _of_kind(row: ExportRow, kind: LabelerKind) -> tuple[Labeler | None, TraceLabel | None]:
    """The labeler of that kind that the case is based on, with its label."""
    for labeler, label in ((row.labeler, row.label), *row.support):
        if labeler.kind is kind:
            return labeler, label
    return _SILENT


def _step(
    row: ExportRow, index: int, judged: TraceLabel | None, measured: TraceLabel | None
) -> dict[str, Any]:
    """What the labelers say of a step; empty where they say nothing."""
    own = _at(row.label, index)
    judge_step, mc_step = _at(judged, index), _at(measured, index)
    verdict = own.verdict.value if own and own.verdict else _implied(row.label, index)
    label = verdict or (UNCERTAIN if _is_uncertain(own) else None)
    by_expert = label not in (None, UNCERTAIN) and index in _verified(row)
    said: dict[str, Any] = {}
    if label is not None:
        kind = row.labeler.kind
        said = {
            "label": label,
            "confidence": _confidence(row, own, index),
            "annotation_method": EXPERT_VERIFIED if by_expert else _METHODS.get(kind, kind.value),
        }
    if judge_step is not None and judge_step.abstention is None:
        said["rag_label"] = judge_step.verdict and _SIGNS.get(judge_step.verdict)
    if mc_step is not None and mc_step.score is not None:
        said["mc_score"] = mc_step.score
    if evidence := _evidence(row, own) or _evidence(row, judge_step):
        said["medical_evidence"] = evidence
    if by_expert:
        said |= {"expert_id": _expert(row), "expert_note": own and own.reasoning}
    elif note := (own and own.reasoning) or (judge_step and judge_step.reasoning):
        said["reasoning"] = note
    return said


def _expert(row: ExportRow) -> str | None:
    """The expert whose answers the label has; None if there is none."""
    if _METHODS.get(row.labeler.kind) == EXPERT_VERIFIED:
        return row.labeler.name
    stated = row.label.meta.get("expert")
    return stated if isinstance(stated, str) else None


def _verified(row: ExportRow) -> frozenset[int]:
    """The steps that an expert decided, 0-based."""
    if _METHODS.get(row.labeler.kind) == EXPERT_VERIFIED:
        return frozenset(range(len(row.trace.steps)))
    stated = row.label.meta.get("expert_verified_steps")
    return frozenset(stated) if isinstance(stated, list) else frozenset()


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
    """The consensus's confidence: stated (hybrid), its posterior (bayes), or 0.5 if uncertain."""
    stated = _listed(row.label.meta.get("confidence"), index)
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        return float(stated)
    consensus = row.labeler.kind is LabelerKind.CONSENSUS
    if _is_uncertain(own) or (consensus and index in _verified(row)):
        return UNCERTAIN_CONFIDENCE
    if not consensus or own is None or own.score is None:
        return None
    return own.score if own.verdict is Verdict.CORRECT else round(1 - own.score, 6)


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
    return gold


def _annotation(
    row: ExportRow,
    steps: list[dict[str, Any]],
    sources: tuple[Labeler | None, Labeler | None],
    measured: TraceLabel | None,
) -> dict[str, Any]:
    """Models and counts: every labeled step is confident or uncertain, also after an expert."""
    judge, mc = sources
    drawn = [step.continuations for step in (measured.step_labels if measured else ())]
    labels = [step["label"] for step in steps if step.get("label") is not None]
    methods = [step.get("annotation_method") for step in steps]
    expert = [index for index, method in enumerate(methods) if method == EXPERT_VERIFIED]
    resolved = () if _METHODS.get(row.labeler.kind) == EXPERT_VERIFIED else expert
    uncertain = labels.count(UNCERTAIN) + len(resolved)
    stated = {
        "rag_model": judge and judge.model,
        "rag_model_version": judge and judge.resolved_model,
        "mc_model": mc and mc.model,
        "mc_model_version": mc and mc.resolved_model,
        "mc_samples": max((number for number in drawn if number is not None), default=None),
        "expert_reviewer": _expert(row),
    }
    return {key: value for key, value in stated.items() if value is not None} | {
        "expert_verified_steps": expert,
        "primary_annotator": row.labeler.name,
        "total_steps": len(steps),
        "confident_steps": len(labels) - uncertain,
        "uncertain_steps": uncertain,
    }


FORMAT = FileFormat(
    name="case",
    required=frozenset({"case_id", "question", "solution_steps"}),
    parse=_parse,
    name_row=_name_row,
    render=_render,
    carries=frozenset(Part) - {Part.EVIDENCE},
)
"""The benchmark case: every step with the judge's verdict, the MC estimate and its evidence."""
