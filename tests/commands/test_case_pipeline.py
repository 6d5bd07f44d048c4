"""Twenty made cases with images, context and evidence, from the file through every stage and back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from formats import case_schema, read_file
from scoring.layout import question_inline
from tests.formats.builders import jsonl
from tests.formats.picture_files import dicom, picture
from tests.loopback.gemini_file_server import GeminiFileServer
from tests.loopback.openai_server import OpenAIServer
from traces.records import ImportedTrace

Cli = Callable[..., Any]
STATES = ("correct", "incorrect", "neutral", "uncertain")


def made_case(number: int) -> dict[str, Any]:
    """A case of three steps; every other one has a diagnosis that the policy never gives."""
    return {
        "case_id": f"case-{number}",
        "modality": ("chest_xray", "ct_scan")[number % 2],
        "metadata": {"source": "made", "specialty": "radiology", "phi_removed": True},
        "clinical_context": {
            "age_group": "60-70",
            "sex": "female",
            "symptoms": ["fever", f"cough for {number} days"],
            "history": ["smoker"],
            "vitals": {"pulse": 90 + number},
        },
        "image": {
            "path": f"{number}.{('png', 'dcm')[number % 2]}",
            "view": "PA",
            "quality": "good",
        },
        "question": "What is the diagnosis?",
        "gold_standard": {
            "findings": ["opacity"],
            "diagnosis": ("pneumonia", "embolism")[number % 2],
            "icd10": None,
            "confidence": 0.9,
        },
        "solution_steps": [
            {
                "step_id": index,
                "category": category,
                "content": f"{category} {number}: the left lobe is opaque.",
                "label": None,
                "rag_label": None,
                "mc_score": None,
                "differential": ["edema"],
                "supporting_guidelines": [f"guideline {index}"],
            }
            for index, category in enumerate(("observation", "analysis", "diagnosis"))
        ],
        "annotation_metadata": {"annotation_date": "2026-11-01"},
        "batch": {"number": number},
    }


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, Any]]:
    """The cases, with their images in the workspace and a guideline beside it."""
    found = [made_case(number) for number in range(20)]
    jsonl(tmp_path / "cases.jsonl", found)
    (tmp_path / "w").mkdir()
    for number, case in enumerate(found):
        pixels = np.full((12, 12), number, dtype=np.uint8)
        content = dicom(pixels) if number % 2 else picture("PNG", (20 + number, 20))
        (tmp_path / "w" / case["image"]["path"]).write_bytes(content)
    (tmp_path / "atlas").mkdir()
    text = "An opaque lobe with fever is lobar pneumonia until proven otherwise."
    (tmp_path / "atlas" / "chest.txt").write_text(text)
    return found


def done(cli: Cli, *argv: str | Path) -> Any:
    called = cli(*argv, "--json")
    assert called.code == 0, (argv, called.out, called.err)
    return called.document


def written(cli: Cli, tmp_path: Path, labeler: str) -> list[dict[str, Any]]:
    out = tmp_path / f"{labeler}.jsonl"
    done(cli, "export", "case", out, "--dataset", "d", "--labeler", labeler)
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.slow
def test_twenty_cases_pass_through_every_stage(
    cli: Cli, tmp_path: Path, cases: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert done(cli, "import", "case", tmp_path / "cases.jsonl", "--dataset", "d")["traces"] == 20
    assert written(cli, tmp_path, "case") == cases
    done(cli, "corpus", "add", tmp_path / "atlas", "--corpus", "atlas")
    done(cli, "retrieve", "--dataset", "d", "--mode", "bm25")
    with GeminiFileServer() as gemini:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", gemini.url)
        done(cli, "judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite")
        bodies = [json.dumps(body) for body in gemini.bodies]
    assert len(bodies) == 20
    for number in range(20):
        (body,) = [text for text in bodies if f"cough for {number} days" in text]
        assert "inlineData" in body
        assert f"Modality: {('chest_xray', 'ct_scan')[number % 2]}" in body
        assert f"Vitals: pulse {90 + number}" in body
        assert "lobar pneumonia until proven" in body
    with OpenAIServer("So it is.\nThe answer is pneumonia.") as policy:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", policy.url)
        done(cli, "continue", "--dataset", "d", "--policy", "openai:m", "-k", "4")
        sent = json.dumps(policy.calls[0][1])
    assert "Modality: " in sent
    assert "image_url" in sent

    roles = ("consensus", "--dataset", "d", "--judge", "judge", "--mc", "mc", "--rule", "hybrid")
    first = done(cli, *roles)["steps"]
    assert first["confident"] + first["uncertain"] == first["total"] == 60
    assert min(first["confident"], first["uncertain"]) > 5
    before = written(cli, tmp_path, "consensus")
    answered = [case for case in before if case["case_id"] != "case-7"]
    answers = [
        {"id": case["case_id"], "verdicts": [1] * len(case["solution_steps"])} for case in answered
    ]
    jsonl(tmp_path / "dr-a.jsonl", answers)
    by_expert = ("--dataset", "d", "--labeler", "dr-a", "--kind", "expert")
    assert cli("import", "scores", tmp_path / "dr-a.jsonl", *by_expert).code in (0, 1)
    last = done(cli, *roles, "--expert", "dr-a", "--name", "final")["steps"]
    assert (last["total"], last["confident"]) == (60, first["confident"])

    after = written(cli, tmp_path, "final")
    check_cases(cases, before, after)
    verified = [step for case in after for step in case["solution_steps"] if "expert_id" in step]
    assert len(verified) == last["expert_verified"] > 5
    again = jsonl(tmp_path / "again.jsonl", after)
    done(cli, "import", "case", again, "--dataset", "e")
    out = tmp_path / "e.jsonl"
    done(cli, "export", "case", out, "--dataset", "e", "--labeler", "final")
    assert [json.loads(line) for line in out.read_text().splitlines()] == after


def check_cases(
    cases: list[dict[str, Any]], before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    """Every case validates, is as it came where nothing was labeled, and its counts add up."""
    set_by_labels = {"label", "confidence", "annotation_method", "rag_label", "mc_score",
                     "medical_evidence", "expert_id", "expert_note", "reasoning"}  # fmt: skip
    for given, automatic, final in zip(cases, before, after, strict=True):
        for written in (automatic, final):
            jsonschema.validate(written, case_schema())
            for key in given.keys() - {"solution_steps", "annotation_metadata"}:
                assert written[key] == given[key]
            pairs = zip(given["solution_steps"], written["solution_steps"], strict=True)
            for mine, theirs in pairs:
                assert {k: v for k, v in mine.items() if k not in set_by_labels} == {
                    k: v for k, v in theirs.items() if k not in set_by_labels
                }
        about, steps = final["annotation_metadata"], final["solution_steps"]
        assert about["annotation_date"] == "2026-11-01"
        assert about["mc_samples"] == 4
        assert about["confident_steps"] + about["uncertain_steps"] == about["total_steps"] == 3
        labels = Counter(step["label"] for step in automatic["solution_steps"])
        assert about["uncertain_steps"] == labels["uncertain"]
        methods = [step["annotation_method"] for step in steps]
        verified = [t for t, method in enumerate(methods) if method == "expert_verified"]
        assert about["expert_verified_steps"] == verified
        expected = 0 if given["case_id"] == "case-7" else about["uncertain_steps"]
        assert len(verified) == expected
        for old, new in zip(automatic["solution_steps"], steps, strict=True):
            if old["label"] != "uncertain" or given["case_id"] == "case-7":
                assert old == new
                continue
            assert (new["label"], new["confidence"], new["expert_id"]) == ("correct", 0.5, "dr-a")


def test_a_prm_and_retrieval_see_the_context(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", [made_case(3)])
    (item,) = [one for one in read_file("case", path) if isinstance(one, ImportedTrace)]
    assert question_inline(item.problem).startswith("Modality: ct_scan\nAge group: 60-70\n")
    from retrieval import query_of

    assert "cough for 3 days" in query_of(item.problem)
