"""PRMBench: ids by class, 1-based error steps, those outside listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from formats import ExportRow, write_file
from tests.formats.builders import jsonl, labels_by_name, read
from tests.formats.samples import PRMBENCH as ROW
from traces.labels import AbstentionReason, Verdict

C, I = Verdict.CORRECT, Verdict.INCORRECT  # noqa: E741


def verdicts(item: Any) -> list[Verdict | None]:
    return [step.verdict for step in labels_by_name(item)["gold"].step_labels]


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    (item,), rejected = read("prmbench", jsonl(tmp_path / "a.jsonl", [ROW]))
    assert not rejected
    assert (item.trace.id, item.trace.subset) == ("circular_prm_test_p1_0", "circular")
    assert item.problem.question == "What is 2 + 3?"
    assert item.trace.steps == ("Assume 6", "6 = 6", "So 6")
    assert verdicts(item) == [I, C, I]
    assert labels_by_name(item)["gold"].meta == {"reason": "Circular."}
    assert item.trace.meta["original_process"] == ["2 + 3 = 5", "So 5"]
    assert item.trace.meta["modified_steps"] == [1, 2]


def test_the_class_survives_a_subset_of_the_users(tmp_path: Path) -> None:
    (item,), _ = read("prmbench", jsonl(tmp_path / "a.jsonl", [ROW]), subset="mine")
    assert (item.trace.subset, item.trace.meta["classification"]) == ("mine", "circular")


def test_ids_are_not_prefixed_twice_and_classes_share_an_idx(tmp_path: Path) -> None:
    rows = [
        ROW | {"idx": "circular_prm_test_p1_0"},
        ROW | {"classification": "deception"},
        ROW | {"idx": 7},
        ROW,
    ]
    traces, (rejected,) = read("prmbench", jsonl(tmp_path / "a.jsonl", rows))
    assert [item.trace.id for item in traces] == [
        "circular_prm_test_p1_0", "deception_prm_test_p1_0", "circular_7",
    ]  # fmt: skip
    assert rejected.reason == "the id occurs twice in the file"


def test_no_error_step_means_that_all_are_right(tmp_path: Path) -> None:
    row = ROW | {"error_steps": [], "classification": "multi_solutions", "ground_truth": "5"}
    (item,), rejected = read("prmbench", jsonl(tmp_path / "a.jsonl", [row]))
    assert not rejected
    assert verdicts(item) == [C, C, C]


def test_error_steps_outside_are_listed_and_the_others_kept(tmp_path: Path) -> None:
    row = ROW | {"error_steps": [2, 9, 0]}
    (item,), (listed,) = read("prmbench", jsonl(tmp_path / "a.jsonl", [row]))
    assert verdicts(item) == [C, I, C]
    assert labels_by_name(item)["gold"].meta["error_steps_outside"] == [0, 9]
    assert (listed.imported, listed.id) == (True, "circular_prm_test_p1_0")
    assert "error steps 0, 9" in listed.reason


def test_gold_with_error_steps_outside_only_is_unusable(tmp_path: Path) -> None:
    (item,), listed = read("prmbench", jsonl(tmp_path / "a.jsonl", [ROW | {"error_steps": [9]}]))
    abstention = labels_by_name(item)["gold"].abstention
    assert abstention is not None
    assert abstention.reason is AbstentionReason.GOLD_UNUSABLE
    assert [row.imported for row in listed] == [True]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"modified_process": []}, "no steps"),
        ({"idx": None}, "'idx'"),
        ({"classification": " "}, "'classification'"),
    ],
)
def test_a_wrong_field_rejects_the_row(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    traces, (rejected,) = read("prmbench", jsonl(tmp_path / "a.jsonl", [ROW | changes]))
    assert not traces
    assert word in rejected.reason


def test_a_first_error_alone_is_not_made_into_verdicts_on_all_steps(tmp_path: Path) -> None:
    (item,), _ = read("prmbench", jsonl(tmp_path / "a.jsonl", [ROW]))
    from traces.labels import TraceLabel

    label = TraceLabel(item.trace.id, (), True, 0)
    row = ExportRow(item.problem, item.trace, label, item.labels[0][0])
    outcome = write_file("prmbench", tmp_path / "o.jsonl", [row])
    assert outcome.written == 0
    assert "step 2 has no verdict" in outcome.skipped[0].detail


def test_the_real_files_have_their_known_counts(real_data: Path) -> None:
    n_stray = 0
    for path in sorted((real_data / "prmbench").glob("*.jsonl")):
        traces, listed = read("prmbench", path)
        # Counted again without the reader: lines, error steps inside, rows with one outside.
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [item.trace.id for item in traces] == [
            f"{row['classification']}_{row['idx']}" for row in rows
        ]
        for row, item in zip(rows, traces, strict=True):
            errors = {place for place, word in enumerate(verdicts(item), 1) if word is I}
            assert errors == set(row["error_steps"]) & set(
                range(1, len(row["modified_process"]) + 1)
            )
        stray = [
            f"{row['classification']}_{row['idx']}"
            for row in rows
            if max(row["error_steps"]) > len(row["modified_process"])
        ]
        assert [row.id for row in listed] == stray
        n_stray += len(stray)
    assert n_stray == 3
