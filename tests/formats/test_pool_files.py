"""Pool and score files: every fault is named with its line, nothing is guessed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from formats.auxiliary import PoolRow, ScoreRow, read_pool, read_pool_scores
from traces.errors import TraceFormatError

CANDIDATE: dict[str, Any] = {
    "problem_id": "p", "candidate_index": 0, "answer": "5", "is_correct": True, "ground_truth": "5",
}  # fmt: skip
SCORED: dict[str, Any] = {"problem_id": "p", "candidate_index": 0, "step_scores": [0.5, 1]}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def test_rows_are_read_as_they_are(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        CANDIDATE | {"n_steps": 3},
        CANDIDATE | {"candidate_index": 1, "answer": None, "is_correct": False},
        CANDIDATE | {"candidate_index": 2, "answer": 5, "is_correct": None},
        CANDIDATE | {"candidate_index": 3, "answer": " "},
    )
    assert read_pool(path) == [
        PoolRow("p", 0, "5", True, 3),
        PoolRow("p", 1, None, False, None),
        PoolRow("p", 2, "5", None, None),
        PoolRow("p", 3, None, True, None),
    ]
    path = written(
        tmp_path,
        SCORED,
        SCORED | {"candidate_index": 1, "step_scores": None},
        SCORED | {"candidate_index": 2, "step_scores": [0.5, None]},
        SCORED | {"candidate_index": 3, "step_scores": []},
    )
    assert read_pool_scores(path) == [
        ScoreRow("p", 0, (0.5, 1.0), 1),
        ScoreRow("p", 1, None, 2),
        ScoreRow("p", 2, None, 3),
        ScoreRow("p", 3, None, 4),
    ]


def test_gzip_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(CANDIDATE) + "\n")
    assert len(read_pool(path)) == 1


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("{broken", "is not JSON"),
        (CANDIDATE, "candidate 0 of problem 'p' is also in line 1"),
        ({k: v for k, v in CANDIDATE.items() if k != "is_correct"}, "'is_correct' is missing"),
        (CANDIDATE | {"is_correct": 1}, "'is_correct' is 1, not true, false or null"),
        (CANDIDATE | {"candidate_index": -1}, "'candidate_index' is -1"),
        (CANDIDATE | {"candidate_index": "1"}, "'candidate_index' is '1'"),
        (CANDIDATE | {"problem_id": 7.5}, "'problem_id' is the number 7.5"),
        (CANDIDATE | {"answer": ["5"]}, "'answer' is not a text"),
        (CANDIDATE | {"n_steps": 1.5}, "'n_steps' is 1.5"),
    ],
)
def test_a_faulty_pool_row_is_named_with_its_line(tmp_path: Path, second: Any, told: str) -> None:
    with pytest.raises(TraceFormatError) as caught:
        read_pool(written(tmp_path, CANDIDATE, second))
    assert told.lower() in caught.value.what.lower()
    assert caught.value.where is not None
    assert caught.value.where.endswith("rows.jsonl:2")


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (SCORED | {"step_scores": [0.5, 1.5]}, "has 1.5 at position 2"),
        (SCORED | {"step_scores": [-0.1]}, "has -0.1 at position 1"),
        (SCORED | {"step_scores": [True]}, "has True at position 1"),
        (SCORED | {"step_scores": ["0.5"]}, "has '0.5' at position 1"),
        (SCORED | {"step_scores": 0.5}, "'step_scores' is not a list"),
        ({"problem_id": "p", "candidate_index": 1}, "'step_scores' is missing"),
        ('{"problem_id": "p", "candidate_index": 1, "step_scores": [NaN]}', "NaN"),
        ('{"problem_id": "p", "candidate_index": 1, "step_scores": [-Infinity]}', "-Infinity"),
        (SCORED, "is also in line 1"),
    ],
)
def test_a_faulty_score_row_is_named_with_its_line(tmp_path: Path, second: Any, told: str) -> None:
    with pytest.raises(TraceFormatError) as caught:
        read_pool_scores(written(tmp_path, SCORED, second))
    assert told.lower() in caught.value.what.lower()
    assert caught.value.where is not None
    assert caught.value.where.endswith("rows.jsonl:2")
