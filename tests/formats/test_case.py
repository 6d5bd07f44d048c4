"""The benchmark case: every step with the judge's word, the MC estimate and its evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from formats import ExportRow, read_file, write_file
from tests.formats.test_writing import row
from traces.errors import InputError
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

C, I = Verdict.CORRECT, Verdict.INCORRECT  # noqa: E741
JUDGE = Labeler("judge", LabelerKind.JUDGE, model="gemini:g", resolved_model="g-001")
MC = Labeler("mc", LabelerKind.MC, model="lab")


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
        "step_id": 1, "label": "correct", "confidence": 0.9, "annotation_method": "rag_mc_consensus",
    }  # fmt: skip
    assert (first["rag_label"], first["mc_score"]) == ("correct", 0.9)
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
    exported = row([C, I])
    problem = Problem("q", "What?", ("flu", "gout"), "B", ("a.dcm",), meta)
    written = case(tmp_path, replace(exported, problem=problem))
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
    assert written["annotation_metadata"]["expert_verified_steps"] == 2


def test_a_quote_is_attributed_only_to_a_passage_that_holds_it(tmp_path: Path) -> None:
    for quote in (Quote("Other", 1, True, 0, 4, "exact"), Quote("Text", 1, False)):
        label = TraceLabel("t1", (StepLabel(C, quote=quote),))
        (evidence,) = case(tmp_path, row(label, JUDGE))["solution_steps"][0]["medical_evidence"]
        assert (evidence["source"], evidence["relevance"]) == (None, None)


def test_cases_are_only_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Unknown format 'case'"):
        read_file("case", tmp_path / "c.jsonl")
