"""The benchmark case: every step with the judge's word, the MC estimate and its evidence."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from formats import ExportRow, case_schema, write_file
from tests.formats.builders import jsonl, labels_by_name, read
from tests.formats.test_writing import row
from traces.evidence import Quote
from traces.labels import (
    Abstention,
    AbstentionReason,
    Labeler,
    LabelerKind,
    StepLabel,
    TraceLabel,
    Verdict,
)
from traces.problem import Problem
from traces.records import ImportedTrace

C, I = Verdict.CORRECT, Verdict.INCORRECT  # noqa: E741
JUDGE = Labeler("judge", LabelerKind.JUDGE, model="gemini:g", resolved_model="g-001")
MC = Labeler("mc", LabelerKind.MC, model="lab")
CONSENSUS = Labeler("consensus", LabelerKind.CONSENSUS)


def case(tmp_path: Path, exported: ExportRow) -> Any:
    assert write_file("case", tmp_path / "c.jsonl", [exported]).written == 1
    return json.loads((tmp_path / "c.jsonl").read_text())


def hybrid() -> ExportRow:
    """Three steps: agreed on, disagreed on, and one that nobody looked at."""
    uncertain = StepLabel(
        abstention=Abstention(AbstentionReason.UNCERTAIN, "judge: correct, mc: 0.5")
    )
    silent = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED))
    label = TraceLabel(
        "t1",
        (StepLabel(C, 0.9), uncertain, silent),
        meta={"rule": "hybrid", "confidence": [0.9, 0.5, None]},
    )
    quote = Quote("TEXT", 1, True, 0, 4, "exact")
    judged = TraceLabel(
        "t1", (StepLabel(C, quote=quote, reasoning="Says so."), StepLabel(C), silent)
    )
    measured = TraceLabel(
        "t1", (StepLabel(score=0.9, successes=9, continuations=10), StepLabel(score=0.5), silent)
    )
    return replace(row(label), support=((JUDGE, judged), (MC, measured)))


def test_a_consensus_names_its_sources_step_by_step(tmp_path: Path) -> None:
    written = case(tmp_path, hybrid())
    first, second, third = written["solution_steps"]
    assert {key: first[key] for key in ("step_id", "label", "confidence", "annotation_method")} == {
        "step_id": 0, "label": "correct", "confidence": 0.9, "annotation_method": "rag_mc_consensus",
    }  # fmt: skip
    assert (first["rag_label"], first["mc_score"]) == ("+", 0.9)
    assert first["medical_evidence"] == [
        {"source": "guides/g.md", "quote": "TEXT", "relevance": 0.5, "verified": True}
    ]
    assert (second["label"], second["confidence"]) == ("uncertain", 0.5)
    assert (third["label"], third["confidence"]) == (None, None)
    about = written["annotation_metadata"]
    assert (about["rag_model"], about["rag_model_version"], about["mc_model"], about["mc_samples"]) == (
        "gemini:g", "g-001", "lab", 10,
    )  # fmt: skip
    assert (about["total_steps"], about["confident_steps"], about["uncertain_steps"]) == (3, 1, 1)


def test_what_the_source_said_of_the_case_is_kept(tmp_path: Path) -> None:
    meta = {
        "modality": "CT",
        "metadata": {"difficulty": "hard", "phi_removed": True},
        "clinical_context": {"sex": "f"},
        "gold_standard": {"icd10": "I10"},
    }
    problem = Problem("q", "What?", ("flu", "gout"), "B", ("a.dcm",), meta)
    written = case(tmp_path, replace(row([C, I]), problem=problem))
    assert (written["modality"], written["metadata"]["difficulty"]) == ("CT", "hard")
    assert written["metadata"]["phi_removed"] is True
    assert (written["clinical_context"]["sex"], written["clinical_context"]["history"]) == (
        "f",
        None,
    )
    assert written["image"] == {"view": None, "quality": None, "path": "a.dcm"}
    assert written["gold_standard"]["diagnosis"] == "gout"
    assert written["gold_standard"]["icd10"] == "I10"


def test_an_experts_steps_are_verified_and_signed(tmp_path: Path) -> None:
    expert = Labeler("dr-a", LabelerKind.EXPERT)
    label = TraceLabel("t1", (StepLabel(C, reasoning="Fine."), StepLabel(I)))
    written = case(tmp_path, row(label, expert))
    first = written["solution_steps"][0]
    assert (first["annotation_method"], first["expert_id"], first["expert_note"]) == (
        "expert_verified", "dr-a", "Fine.",
    )  # fmt: skip
    assert written["annotation_metadata"]["expert_verified_steps"] == [0, 1]


def test_a_quote_is_attributed_only_to_a_passage_that_holds_it(tmp_path: Path) -> None:
    for quote in (Quote("Other", 1, True, 0, 4, "exact"), Quote("Text", 1, False)):
        label = TraceLabel("t1", (StepLabel(C, quote=quote),))
        (evidence,) = case(tmp_path, row(label, JUDGE))["solution_steps"][0]["medical_evidence"]
        assert (evidence["source"], evidence["relevance"]) == (None, None)


CASE: dict[str, Any] = {
    "case_id": "case-001",
    "modality": "chest_xray",
    "metadata": {"source": "made", "difficulty": "hard", "phi_removed": True, "site": 3},
    "clinical_context": {
        "age_group": "60-70",
        "sex": "male",
        "symptoms": ["fever", "cough"],
        "history": [],
        "vitals": {"temperature": 38.9},
    },
    "image": {"path": "xray/1.png", "view": "PA", "quality": "good"},
    "question": "What is the diagnosis?",
    "gold_standard": {"findings": ["opacity"], "diagnosis": "pneumonia", "icd10": "J18.9"},
    "solution_steps": [
        {"step_id": 0, "category": "observation", "content": "An opacity.", "note": [1]},
        {
            "step_id": 1,
            "category": "diagnosis",
            "content": "So pneumonia.",
            "label": None,
            "rag_label": None,
            "mc_score": None,
            "medical_evidence": [{"source": "Atlas", "quote": "Opacity.", "relevance": 0.9}],
            "icd10": "J18.9",
            "differential": ["tuberculosis"],
        },
    ],
    "annotation_metadata": {"annotation_date": None, "team": "A"},
    "version": 2,
}


def labeled_case() -> dict[str, Any]:
    """The case with both steps annotated, one by an expert."""
    row = deepcopy(CASE)
    first, second = row["solution_steps"]
    first |= {
        "label": "correct",
        "confidence": 0.9,
        "annotation_method": "rag_mc_consensus",
        "rag_label": "+",
        "mc_score": 0.9,
    }
    second |= {
        "label": "incorrect",
        "confidence": 0.5,
        "annotation_method": "expert_verified",
        "rag_label": "-",
        "mc_score": 0.5,
        "expert_id": "dr-a",
    }
    return row


def exported(item: ImportedTrace, labeler: Labeler, label: TraceLabel) -> ExportRow:
    return ExportRow(problem=item.problem, trace=item.trace, label=label, labeler=labeler)


def test_a_case_becomes_a_problem_with_its_image_and_context(tmp_path: Path) -> None:
    (item,), rejected = read("case", jsonl(tmp_path / "c.jsonl", [CASE]))
    assert rejected == []
    assert (item.trace.id, item.trace.steps) == ("case-001", ("An opacity.", "So pneumonia."))
    assert (item.problem.answer, item.problem.images) == ("pneumonia", ("xray/1.png",))
    assert item.problem.shown_question == (
        "Modality: chest_xray\nAge group: 60-70\nSex: male\nSymptoms: fever, cough\n"
        "Vitals: temperature 38.9\n\nWhat is the diagnosis?"
    )
    (found,) = item.evidence
    assert (found.passage.document, found.passage.text) == ("Atlas", "Opacity.")
    (label,) = labels_by_name(item).values()
    assert all(step.abstention is not None for step in label.step_labels)


def test_the_labels_of_a_case_are_those_of_four_labelers(tmp_path: Path) -> None:
    (item,), _ = read("case", jsonl(tmp_path / "c.jsonl", [labeled_case()]))
    labels = labels_by_name(item)
    kinds = {labeler.name: labeler.kind for labeler, _ in item.labels}
    assert kinds == {
        "case": LabelerKind.CONSENSUS,
        "case_rag": LabelerKind.JUDGE,
        "case_mc": LabelerKind.MC,
        "case_expert": LabelerKind.EXPERT,
    }
    assert [step.verdict for step in labels["case"].step_labels] == [C, I]
    assert [step.verdict for step in labels["case_rag"].step_labels] == [C, I]
    assert [step.score for step in labels["case_mc"].step_labels] == [0.9, 0.5]
    assert [step.verdict for step in labels["case_expert"].step_labels] == [None, I]


@pytest.mark.parametrize("row", [CASE, labeled_case()], ids=["bare", "labeled"])
def test_an_imported_case_is_written_as_it_came(tmp_path: Path, row: dict[str, Any]) -> None:
    (item,), _ = read("case", jsonl(tmp_path / "in.jsonl", [row]))
    labeler, label = item.labels[0]
    assert case(tmp_path, exported(item, labeler, label)) == row
    jsonschema.validate(row, case_schema())


def test_only_labeled_values_differ_and_reading_it_back_changes_nothing(tmp_path: Path) -> None:
    (item,), _ = read("case", jsonl(tmp_path / "in.jsonl", [CASE]))
    silent = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED))
    label = TraceLabel("case-001", (silent, StepLabel(C)), meta={"confidence": [None, 0.8]})
    written = case(tmp_path, exported(item, CONSENSUS, label))
    jsonschema.validate(written, case_schema())
    assert written["solution_steps"][0] == CASE["solution_steps"][0]
    changed = {"label": "correct", "confidence": 0.8, "annotation_method": "rag_mc_consensus"}
    assert written["solution_steps"][1] == CASE["solution_steps"][1] | changed
    for key in CASE.keys() - {"solution_steps", "annotation_metadata"}:
        assert written[key] == CASE[key]
    assert written["annotation_metadata"]["team"] == "A"
    (again,), _ = read("case", tmp_path / "c.jsonl")
    assert again.problem == item.problem
    labeler, back = again.labels[0]
    assert (labeler.name, back) == ("consensus", label)
    assert case(tmp_path, exported(again, labeler, back)) == written


def test_a_trace_from_elsewhere_becomes_a_valid_case(tmp_path: Path) -> None:
    for each in (hybrid(), row([C, I])):
        jsonschema.validate(case(tmp_path, each), case_schema())


def test_a_value_outside_the_form_is_listed_and_loses_no_step(tmp_path: Path) -> None:
    bad = labeled_case()
    bad["solution_steps"][0]["label"] = "maybe"
    (item,), (note,) = read("case", jsonl(tmp_path / "c.jsonl", [bad]))
    assert note.imported
    assert "'label' is 'maybe'" in note.reason
    assert labels_by_name(item)["case"].step_labels[1].verdict is I


def test_a_step_without_text_is_rejected(tmp_path: Path) -> None:
    _, (note,) = read("case", jsonl(tmp_path / "c.jsonl", [CASE | {"solution_steps": [{}]}]))
    assert (note.id, note.imported) == ("case-001", False)
