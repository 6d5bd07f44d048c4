"""MR-GSM8K: numbers of steps, "wrong", and the annotator's reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.builders import jsonl, labels_by_name, read
from tests.formats.samples import MR_GSM8K as ROW
from traces.labels import AbstentionReason

CORRECT = {
    "model_output_solution_correctness": "correct",
    "model_output_solution_first_error_step": "N/A",
    "model_output_solution_first_error_reason": "N/A",
}


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    (item,), rejected = read("mr-gsm8k", jsonl(tmp_path / "a.jsonl", [ROW]))
    assert not rejected
    assert (item.trace.id, item.trace.subset) == ("u-1", "original")
    assert (item.problem.question, item.problem.answer) == ("How far?", "10")
    assert item.trace.steps == ("Step 1: 5 + 2 = 7", "Step 2: #### 7")
    assert item.trace.final_answer_correct is False
    assert item.trace.meta == {"ground_truth_solution": "5 * 2 = 10\n#### 10"}
    gold = labels_by_name(item)["gold"]
    assert (gold.first_error_given, gold.first_error_index) == (True, 0)
    assert gold.meta == {"reason": "Adds where it has to multiply."}


def test_correct_is_no_error_and_no_reason(tmp_path: Path) -> None:
    (item,), _ = read("mr-gsm8k", jsonl(tmp_path / "a.jsonl", [ROW | CORRECT]))
    gold = labels_by_name(item)["gold"]
    assert (gold.first_error_given, gold.first_error_index, gold.meta) == (True, None, {})


@pytest.mark.parametrize(
    ("steps", "stated", "index"),
    [
        (["a", "b"], 2, 1),
        (["a", "b"], "2", 1),
        (["a", "b"], "Step 2", 1),
        (["Step 2: a", "Step 3: b"], 3, 1),
        (["Step 1: a", "b"], 2, 1),
        (["a", "b"], 3, None),
        (["a", "b"], 0, None),
        (["Step 1: a", "Step 1: b"], 1, None),
        (["Step 3: a", "Step 5: b"], 2, None),
        (["a", "b"], "somewhere", None),
        (["a", "b"], "N/A", None),
    ],
)
def test_the_error_step_is_the_number_in_front_of_it_else_counted(
    tmp_path: Path, steps: list[str], stated: Any, index: int | None
) -> None:
    row = ROW | {
        "model_output_steps": steps,
        "model_output_solution_first_error_step": stated,
    }
    (item,), listed = read("mr-gsm8k", jsonl(tmp_path / "a.jsonl", [row]))
    gold = labels_by_name(item)["gold"]
    assert gold.first_error_index == index
    assert (gold.abstention is None) is (index is not None)
    if gold.abstention is not None:
        assert gold.abstention.reason is AbstentionReason.GOLD_UNUSABLE
        assert (listed[0].imported, listed[0].id) == (True, "u-1")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model_output_steps": "1. a 2. b"}, "not a list"),
        ({"uuid": None}, "'uuid' is null"),
    ],
)
def test_a_wrong_field_rejects_the_row(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    traces, (rejected,) = read("mr-gsm8k", jsonl(tmp_path / "a.jsonl", [ROW | changes]))
    assert not traces
    assert word in rejected.reason
