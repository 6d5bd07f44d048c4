"""Med-PRM: questions with solutions, step marks, four label keys that say nothing about each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.formats.builders import labels_by_name, read
from traces.labels import AbstentionReason, Verdict

SOLUTION: dict[str, Any] = {
    "prm_processed_solution": "Intro. Step 1: a ки Step 2: b кино ки\nStep 3: c ки",
    "orm_label": 0,
    "answer": "B",
    "prm_soft_label": [1.0, 0.25, 0.0],
    "prm_hard_label": [1, 0, 0],
    "prm_gemini_label": [1, 1, 0],
    "solution": "raw",
}
QUESTION: dict[str, Any] = {
    "question_id": 7,
    "question": "Which drug?",
    "options": ["x", "y"],
    "correct_answer": "A",
    "data_source": "med_qa",
    "related_docs": ["doc one", "doc two"],
    "accuracy": 0.5,
}


def written(path: Path, *solutions: Any, **changes: Any) -> Path:
    path.write_text(json.dumps([QUESTION | {"solutions": list(solutions)} | changes]))
    return path


def test_reads_a_question_to_the_letter(tmp_path: Path) -> None:
    traces, rejected = read(
        "medprm", written(tmp_path / "t.json", SOLUTION, SOLUTION | {"orm_label": 1})
    )
    assert not rejected
    assert [item.trace.id for item in traces] == ["7:0", "7:1"]
    item = traces[0]
    assert item.trace.steps == ("Intro. Step 1: a", "Step 2: b кино", "Step 3: c")
    assert (item.problem.id, item.problem.options, item.problem.answer) == ("7", ("x", "y"), "A")
    assert item.problem.meta == {"accuracy": 0.5}
    assert (item.trace.subset, item.trace.final_answer, item.trace.final_answer_correct) == (
        "med_qa",
        "B",
        False,
    )
    assert traces[1].trace.final_answer_correct is True
    assert item.trace.meta == {"solution": "raw"}
    assert [found.passage.text for found in item.evidence] == ["doc one", "doc two"]
    assert item.evidence[1].rank == 1
    assert item.evidence[0].similarity is None
    labels = labels_by_name(item)
    assert [step.score for step in labels["prm_soft_label"].step_labels] == [1.0, 0.25, 0.0]
    assert [step.verdict for step in labels["prm_hard_label"].step_labels] == [
        Verdict.CORRECT,
        Verdict.INCORRECT,
        Verdict.INCORRECT,
    ]
    assert "prm_llama_label" not in labels
    assert {labeler.name: labeler.kind.value for labeler, _ in item.labels} == {
        "prm_soft_label": "mc", "prm_hard_label": "mc", "prm_gemini_label": "judge",
    }  # fmt: skip


@pytest.mark.parametrize(
    "values", [[1, 1], [], [1, 1, 1, 1], [1, 0.5, 1], [1, 2, 0], ["+", "+", "-"], [1, None, 0]]
)
def test_labels_that_do_not_fit_are_never_lined_up(tmp_path: Path, values: list[Any]) -> None:
    (item,), (listed,) = read(
        "medprm", written(tmp_path / "t.json", SOLUTION | {"prm_gemini_label": values})
    )
    label = labels_by_name(item)["prm_gemini_label"]
    assert label.abstention is not None
    assert label.abstention.reason is AbstentionReason.UNREADABLE
    assert not label.step_labels
    assert (listed.imported, listed.id) == (True, "7:0")
    assert "prm_gemini_label" in listed.reason
    assert labels_by_name(item)["prm_hard_label"].abstention is None


@pytest.mark.parametrize(
    ("solution", "word"),
    [({"prm_processed_solution": "no mark"}, "no step mark"), ({"prm_processed_solution": "a ки and then"}, "after its last"),
     ({"prm_processed_solution": ""}, "prm_processed_solution"), ("text", "not an object")],
)  # fmt: skip
def test_a_solution_without_usable_steps_is_rejected_alone(
    tmp_path: Path, solution: Any, word: str
) -> None:
    traces, (rejected,) = read("medprm", written(tmp_path / "t.json", solution, SOLUTION))
    assert [item.trace.id for item in traces] == ["7:1"]
    assert rejected.id == "7:0"
    assert word in rejected.reason


@pytest.mark.parametrize(
    "change",
    [
        {"question": ""},
        {"solutions": []},
        {"solutions": {}},
        {"options": "A"},
        {"question_id": None},
    ],
)
def test_a_bad_question_is_rejected(tmp_path: Path, change: dict[str, Any]) -> None:
    traces, (rejected,) = read("medprm", written(tmp_path / "t.json", SOLUTION, **change))
    assert not traces
    assert next(iter(change)) in rejected.reason
