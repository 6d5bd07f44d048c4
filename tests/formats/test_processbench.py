"""ProcessBench: 0-based labels, -1 for none, gold outside the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.builders import jsonl, labels_by_name, read
from traces.labels import AbstentionReason

ROW: dict[str, Any] = {
    "id": "gsm8k-0",
    "generator": "Qwen2",
    "problem": "2 + 2?",
    "steps": ["2 + 2 = 5.", "So 5."],
    "final_answer_correct": False,
    "label": 0,
}


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    (item,), rejected = read("processbench", jsonl(tmp_path / "a.jsonl", [ROW | {"extra": [1]}]))
    assert not rejected
    assert item.trace.id == "gsm8k-0"
    assert item.trace.steps == ("2 + 2 = 5.", "So 5.")
    assert item.trace.problem_id == item.problem.id
    assert item.trace.generator == "Qwen2"
    assert item.trace.final_answer_correct is False
    assert item.trace.subset == "gsm8k"
    assert item.trace.meta == {"extra": [1]}
    gold = labels_by_name(item)["gold"]
    assert (gold.first_error_given, gold.first_error_index) == (True, 0)
    assert item.labels[0][0].kind == "gold"


def test_minus_one_is_no_error(tmp_path: Path) -> None:
    (item,), _ = read(
        "processbench", jsonl(tmp_path / "a.jsonl", [ROW | {"label": -1}]), subset="mine"
    )
    gold = labels_by_name(item)["gold"]
    assert (gold.first_error_given, gold.first_error_index) == (True, None)
    assert item.trace.subset == "mine"


@pytest.mark.parametrize("label", [2, 7, -2])
def test_gold_outside_the_steps_is_imported_and_listed(tmp_path: Path, label: int) -> None:
    (item,), (listed,) = read("processbench", jsonl(tmp_path / "a.jsonl", [ROW | {"label": label}]))
    gold = labels_by_name(item)["gold"]
    assert gold.abstention is not None
    assert gold.abstention.reason is AbstentionReason.GOLD_UNUSABLE
    assert listed.imported
    assert (listed.id, listed.line) == ("gsm8k-0", 1)
    assert str(label) in listed.reason


def test_a_wrong_type_rejects_the_row(tmp_path: Path) -> None:
    row = ROW | {"final_answer_correct": 1}
    traces, (rejected,) = read("processbench", jsonl(tmp_path / "a.jsonl", [row]))
    assert not traces
    assert not rejected.imported
    assert rejected.id == "gsm8k-0"
    assert "final_answer_correct" in rejected.reason


@pytest.mark.parametrize(
    ("id", "subset"),
    [("math-7", "math"), ("omnimath-0", "omnimath"), ("run-3", "default"), ("gsm8k", "default")],
)
def test_only_the_subsets_of_processbench_are_read_from_ids(
    tmp_path: Path, id: str, subset: str
) -> None:
    (item,), _ = read("processbench", jsonl(tmp_path / "a.jsonl", [ROW | {"id": id}]))
    assert item.trace.subset == subset


def test_equal_questions_are_one_problem(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"id": "gsm8k-1"}, ROW | {"id": "gsm8k-2", "problem": "3 + 3?"}]
    traces, _ = read("processbench", jsonl(tmp_path / "a.jsonl", rows))
    first, second, third = (item.problem.id for item in traces)
    assert first == second != third


def test_the_real_file_has_its_known_counts(real_data: Path) -> None:
    traces, rejected = read(
        "processbench", real_data / "processbench" / "gsm8k.json", subset="gsm8k"
    )
    errors = [labels_by_name(item)["gold"].first_error_index is not None for item in traces]
    assert (len(traces), sum(errors), len(rejected)) == (400, 207, 0)
    assert {item.trace.subset for item in traces} == {"gsm8k"}
