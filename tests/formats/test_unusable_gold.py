"""Gold of the wrong type costs the label, not the trace, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats import (
    test_mr_ben,
    test_processbench,
)
from tests.formats.builders import jsonl, read
from tests.formats.samples import (
    AGENTPROCESSBENCH,
    BIG_BENCH_MISTAKE,
    DELTABENCH,
    HARD2VERIFY,
    MR_GSM8K,
    PRMBENCH,
    VISUALPROCESSBENCH,
)
from tests.formats.test_prm800k import changed, step
from traces import AbstentionReason, LabelerKind

TRACE = {"id": "t", "problem": "1 + 1?", "steps": ["2", "3"]}
GOLD = {"kind": LabelerKind.GOLD}
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    *(
        ("processbench", test_processbench.ROW, {"label": label}, "'label'")
        for label in ("1", None, True, 1.5, [1])
    ),
    *(
        ("big-bench-mistake", BIG_BENCH_MISTAKE, {"mistake_index": index}, "mistake_index")
        for index in (True, "1", 1.5)
    ),
    ("mr-gsm8k", MR_GSM8K, {"model_output_solution_correctness": "maybe"}, "'maybe'"),
    ("mr-gsm8k", MR_GSM8K, {"model_output_solution_first_error_step": True}, "True"),
    ("mr-gsm8k", MR_GSM8K, {"model_output_solution_first_error_step": [1]}, "[1]"),
    ("mr-ben", test_mr_ben.ROW, {"Model_Solution_Correctness": "maybe"}, "'maybe'"),
    ("mr-ben", test_mr_ben.ROW, {"Model_Solution_Correctness": 1}, "Model_Solution_Correctness"),
    ("prmbench", PRMBENCH, {"error_steps": ["1"]}, "'1'"),
    ("prmbench", PRMBENCH, {"error_steps": [True]}, "True"),
    ("prmbench", PRMBENCH, {"error_steps": None}, "not a list"),
    ("prm800k", changed(step(("a", 2))), {}, "a rating is 2"),
    *(
        ("visualprocessbench", VISUALPROCESSBENCH, {"response": response}, reason)
        for response, reason in (
            ({"steps": ["a"], "process_correctness": [True]}, "a rating is True"),
            ({"steps": ["a"], "process_correctness": [0.5]}, "a rating is 0.5"),
            ({"steps": ["a"]}, "'process_correctness'"),
        )
    ),
    *(
        ("deltabench", DELTABENCH, {"reason_error_section_numbers": n}, "numb")
        for n in ("x", [1.5], 3)
    ),
    *(
        ("agentprocessbench", AGENTPROCESSBENCH, {"step_labels": labels}, "")
        for labels in ([1], "x", None)
    ),
    ("hard2verify", HARD2VERIFY, {"human_labels": "yes"}, "not a list"),
    ("traces", TRACE, {"labels": {"gold": GOLD | {"verdicts": [1, "x"]}}}, "labeler 'gold'"),
    ("traces", TRACE, {"labels": {"gold": GOLD | {"first_error": "1"}}}, "labeler 'gold'"),
]


@pytest.mark.parametrize(("format", "row", "changes", "word"), CASES)
def test_the_trace_is_imported_without_its_gold_and_listed(
    tmp_path: Path, format: str, row: dict[str, Any], changes: dict[str, Any], word: str
) -> None:
    (item,), (listed, *_) = read(format, jsonl(tmp_path / "a.jsonl", [row | changes]))
    ((_, label),) = item.labels
    assert label.abstention is not None
    assert label.abstention.reason is AbstentionReason.GOLD_UNUSABLE
    assert listed.imported
    assert word in listed.reason


def test_a_judges_labels_of_the_wrong_type_reject_the_row(tmp_path: Path) -> None:
    labels = {"j": {"kind": "judge", "verdicts": [1, "x"]}}
    traces, (rejected,) = read("traces", jsonl(tmp_path / "a.jsonl", [TRACE | {"labels": labels}]))
    assert not traces
    assert not rejected.imported
