"""Experts' answers in our files, Potato's and Label Studio's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from formats import INTERFACE, ExportRow, read_expert_answers, write_expert_answers, write_file
from traces import (
    Evidence,
    ExpertAnswer,
    Labeler,
    LabelerKind,
    Passage,
    Problem,
    Quote,
    RejectedRow,
    ReviewAnswer,
    ReviewPurpose,
    StepLabel,
    Trace,
    TraceLabel,
    Verdict,
)

STEPS = ("It weighs 10 kg.", "So 50 mg.", "Give it.")
JUDGE = Labeler("judge", LabelerKind.JUDGE, {})
QUOTE = Quote("5 mg/kg", 1, True, 0, 7, "exact")
VERDICTS = (Verdict.CORRECT, Verdict.INCORRECT, Verdict.NEUTRAL)


def exported(format: str, path: Path) -> list[dict[str, Any]]:
    """The judge's label in a format."""
    labels = tuple(StepLabel(one, score=0.5, reasoning="Because.", quote=QUOTE) for one in VERDICTS)
    passage = Passage("guides", "dosing", 0, 0, 7, "5 mg/kg", "Dosing")
    row = ExportRow(
        Problem("p", "How much?", ("5", "50")),
        Trace("t", "p", STEPS),
        TraceLabel("t", labels),
        JUDGE,
        (Evidence(passage, 0.5, 0),),
    )
    assert write_file(format, path, [row]).written == 1
    text = path.read_text(encoding="utf-8")
    found = json.loads(text) if text.startswith("[") else list(map(json.loads, text.splitlines()))
    return list(found)


def said(found: list[ReviewAnswer | RejectedRow]) -> list[tuple[str, str, int, str, str | None]]:
    """Expert, trace, step, answer and note."""
    assert not [one for one in found if isinstance(one, RejectedRow)]
    return [
        (one.expert, one.trace_id, one.step_index, one.answer.value, one.note)
        for one in found
        if isinstance(one, ReviewAnswer)
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_our_files_keep_every_field(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    answers = [
        ReviewAnswer(
            trace_id="t,1",
            step_index=number,
            expert="E1",
            answer=answer,
            token=f"n{number}",
            note='=SUM(1)\n"quoted", 투여량' if number else None,
            seconds=2.5 if number else None,
            opinions="after",
            purpose=ReviewPurpose.AUDIT,
            at="2026-11-30T12:00:00.000+00:00",
        )
        for number, answer in enumerate(ExpertAnswer)
    ]
    assert write_expert_answers(path, answers) == len(answers)
    assert list(read_expert_answers(path)) == answers


def test_potato_items_have_steps_and_pre_labels(tmp_path: Path) -> None:
    [item] = exported("potato", tmp_path / "a.jsonl")
    assert [step["action"] for step in item["steps"]] == list(STEPS)
    assert [one["ai_reward"] for one in item["pre_labels"]] == [1, -1, 0]
    assert {one["verified"] for one in item["pre_labels"]} == {False}
    assert item["pre_labels"][0]["ai_reasoning"] == '"5 mg/kg"\nBecause.'
    assert item["suggestions"].startswith('Step 1: correct "5 mg/kg"')
    assert (item["problem"], item["evidence"]) == ("How much?", "5 mg/kg")


def test_potato_answers_come_back(tmp_path: Path) -> None:
    # The rows of `prm_training_data.jsonl` in the form that Potato documents.
    rows = [
        {"instance_id": "t", "annotator": "E1", "mode": "per_step", "steps": [
            {"index": 0, "reward": 1}, {"index": 1, "reward": 0},
            {"index": 2, "reward": -1}, {"index": 3, "reward": None}]},
        {"instance_id": "u", "annotator": "alice@example.org", "mode": "per_step",
         "ai_prelabeled": True, "all_verified": False, "steps": [
            {"index": 0, "reward": 1, "source": "ai", "verified": True, "ai_reward": 1},
            {"index": 1, "reward": -1, "source": "human", "verified": True, "ai_reward": 1},
            {"index": 2, "reward": 1, "source": "ai", "verified": False, "ai_reward": 1}]},
        {"instance_id": "v", "annotator": "E2", "mode": "first_error", "steps": [
            {"index": 0, "reward": 1}, {"index": 1, "reward": -1}, {"index": 2, "reward": -1}]},
        {"instance_id": "w", "annotator": "E2", "mode": "first_error", "steps": [
            {"index": 0, "reward": 0}]},
    ]  # fmt: skip
    path = tmp_path / "prm_training_data.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    found = list(read_expert_answers(path))
    alice = said(found)[3][0]
    assert alice.startswith("P-")
    assert "alice" not in alice
    assert said(found) == [
        ("E1", "t", 0, "correct", None),
        ("E1", "t", 1, "neutral", None),
        ("E1", "t", 2, "incorrect", None),
        (alice, "u", 0, "correct", None),
        (alice, "u", 1, "incorrect", None),
        ("E2", "v", 0, "correct", None),
        ("E2", "v", 1, "incorrect", None),
    ]
    assert list(read_expert_answers(path)) == found


def test_label_studio_tasks_come_back_with_their_annotations(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    [task] = exported("label-studio", path)
    assert [step["text"] for step in task["data"]["steps"]] == list(STEPS)
    [prediction] = task["predictions"]
    assert prediction["model_version"] == "judge"
    assert [one["value"]["choices"] for one in prediction["result"]] == [["correct"], ["incorrect"], ["neutral"]]  # fmt: skip
    # An annotator accepts the predictions and adds a note: Label Studio's export.
    note = {"from_name": "note_1", "to_name": "step_1", "type": "textarea", "value": {"text": ["10 x 5"]}}  # fmt: skip
    done = {"id": 9, "completed_by": 7, "lead_time": 30.0, "was_cancelled": False}
    cancelled = {"id": 10, "completed_by": 8, "was_cancelled": True, "result": prediction["result"]}
    person = {"id": 11, "completed_by": {"id": 3, "email": "b@example.org"}, "result": prediction["result"][:1]}  # fmt: skip
    answered = task | {"id": 1, "annotations": [done | {"result": [*prediction["result"], note]}, cancelled, person]}  # fmt: skip
    path.write_text(json.dumps([answered]), encoding="utf-8")
    found = list(read_expert_answers(path))
    assert said(found) == [
        ("U7", "t", 0, "correct", None),
        ("U7", "t", 1, "incorrect", "10 x 5"),
        ("U7", "t", 2, "neutral", None),
        ("U3", "t", 0, "correct", None),
    ]
    assert isinstance(found[0], ReviewAnswer)
    assert found[0].seconds == 10.0


def test_the_interface_names_what_the_tasks_hold(tmp_path: Path) -> None:
    [task] = exported("label-studio", tmp_path / "tasks.json")
    for name in ("$problem", "$options", "$evidence", "$steps"):
        assert name in INTERFACE
        assert name[1:] in task["data"]
    assert 'name="verdict_{{idx}}" toName="step_{{idx}}"' in INTERFACE


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": 1}, "no answer of an expert"),
        ({"trace_id": "t", "expert": "A", "answer": "yes", "step_index": 0}, "not an answer"),
        ({"trace_id": "t", "expert": "", "answer": "skip", "step_index": 0}, "who answered"),
        ({"instance_id": "t", "annotator": "A", "steps": [{"reward": 2}]}, "not 1, 0 or -1"),
        ({"instance_id": "t", "annotator": "A", "steps": 3}, "not a list"),
    ],
)
def test_rows_that_cannot_be_used_are_listed(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    [found] = read_expert_answers(path)
    assert isinstance(found, RejectedRow)
    assert reason in found.reason
