"""BIG-Bench-Mistake: 0-based, null for none, ids by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.formats.builders import jsonl, labels_by_name, read
from tests.formats.samples import BIG_BENCH_MISTAKE as ROW


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    (item, other), rejected = read(
        "big-bench-mistake", jsonl(tmp_path / "word.jsonl", [ROW, ROW | {"mistake_index": None}])
    )
    assert not rejected
    assert (item.trace.id, other.trace.id) == ("word:0", "word:1")
    assert (item.problem.question, item.problem.answer) == ("((2 + 3)) =", "5")
    assert (item.trace.final_answer, item.trace.final_answer_correct) == ("6", False)
    assert labels_by_name(item)["gold"].first_error_index == 0
    gold = labels_by_name(other)["gold"]
    assert (gold.first_error_given, gold.first_error_index) == (True, None)


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [("5", " 5", True), ("(A)", "(B)", False), ("yes", "no", None), ("a b", "a  b", None), ("-3", "3", False)],
)  # fmt: skip
def test_an_answer_is_wrong_only_where_no_other_wording_could_be_right(
    tmp_path: Path, answer: str, target: str, right: bool | None
) -> None:
    row = ROW | {"answer": answer, "target": target}
    (item,), _ = read("big-bench-mistake", jsonl(tmp_path / "a.jsonl", [row]))
    assert item.trace.final_answer_correct is right


@pytest.mark.parametrize("index", [2, -1, 10**30])
def test_a_mistake_outside_is_imported_and_listed(tmp_path: Path, index: int) -> None:
    row = ROW | {"mistake_index": index}
    (item,), (listed,) = read("big-bench-mistake", jsonl(tmp_path / "a.jsonl", [row]))
    assert labels_by_name(item)["gold"].abstention is not None
    assert (listed.imported, listed.id) == (True, "a:0")


def test_the_real_file_has_its_known_counts(real_data: Path) -> None:
    path = real_data / "big_bench_mistake" / "multistep_arithmetic.jsonl"
    traces, listed = read("big-bench-mistake", path)
    # Counted again without the reader.
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(traces) == len(rows) == 300
    assert not listed
    assert [labels_by_name(item)["gold"].first_error_index for item in traces] == [
        row["mistake_index"] for row in rows
    ]
    assert sum(row["mistake_index"] is not None for row in rows) == 238
    right = [item.trace.final_answer_correct for item in traces]
    assert right == [row["answer"] == row["target"] for row in rows]
