"""Third-party outputs: matched by id, refused where they do not fit, never lined up by position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from formats import read_scores
from tests.formats.builders import jsonl
from traces.errors import TraceFormatError
from traces.labels import TraceLabel, Verdict
from traces.records import RejectedRow

KNOWN = {"a": 2, "b": 3, "c": 1}


def scored(
    tmp_path: Path, rows: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, TraceLabel], list[RejectedRow]]:
    found = list(read_scores(jsonl(tmp_path / "s.jsonl", rows), KNOWN))
    labels = {item.trace_id: item for item in found if isinstance(item, TraceLabel)}
    return labels, [item for item in found if isinstance(item, RejectedRow)]


def test_reads_the_three_kinds_of_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "b", "scores": [0.9, None, 0]},
        {"id": "a", "verdicts": [1, -1], "note": "kept out"},
        {"id": "c", "first_error": None},
    ]
    labels, rejected = scored(tmp_path, rows)
    assert not rejected
    assert [step.score for step in labels["b"].step_labels] == [0.9, None, 0.0]
    assert labels["b"].step_labels[1].abstention is not None
    assert [step.verdict for step in labels["a"].step_labels] == [
        Verdict.CORRECT,
        Verdict.INCORRECT,
    ]
    assert (labels["c"].first_error_given, labels["c"].first_error_index) == (True, None)


def test_a_row_may_say_whether_its_reason_is_right(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "first_error": 1, "reason_correct": True},
        {"id": "b", "first_error": 0, "reason_correct": None},
        {"id": "c", "first_error": 0, "reason_correct": 1},
    ]
    labels, rejected = scored(tmp_path, rows)
    assert labels["a"].meta == {"reason_correct": True}
    assert labels["b"].meta == {}
    assert [row.id for row in rejected] == ["c"]
    assert "'reason_correct' is the number 1" in rejected[0].reason


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"id": "z", "scores": [0.5]}, "no trace with this id"),
        ({"id": "a", "scores": [0.5]}, "'scores' has 1 entries, the trace has 2 steps"),
        ({"id": "a", "first_error": 2}, "outside the 2 steps"),
        ({"id": "a", "first_error": -1}, "null for no error"),
        ({"id": "a", "first_error": 1.5}, "0-based"),
        ({"id": "a", "scores": [0.5, 7]}, "outside [0, 1]"),
        ({"id": "a", "verdicts": ["+", "-"]}, "verdict"),
        ({"id": 3, "scores": [0.5, 1]}, "no trace with this id"),
        ({"id": True, "scores": [0.5, 1]}, "'id' is true"),
        ({"id": "a"}, "none of"),
        ({"id": "c", "first_error": 0}, "twice"),
    ],
)
def test_a_row_that_does_not_fit_is_listed(tmp_path: Path, row: dict[str, Any], word: str) -> None:
    labels, (rejected,) = scored(tmp_path, [{"id": "c", "first_error": 0}, row])
    assert list(labels) == ["c"]
    assert word in rejected.reason
    assert rejected.line == 2


def test_nan_is_no_score(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(
        '{"id": "a", "scores": [NaN, 1]}\n{"id": "c", "scores": [-Infinity]}\n{"id": "b", "first_error": 0}\n'
    )
    first, second, label = read_scores(path, KNOWN)
    assert isinstance(first, RejectedRow)
    assert "NaN" in first.reason
    assert isinstance(second, RejectedRow)
    assert "-Infinity" in second.reason
    assert isinstance(label, TraceLabel)


def test_a_file_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="looks like traces"):
        scored(tmp_path, [{"id": "a", "problem": "Q", "steps": ["x"]}])


def test_a_whole_number_is_an_id_as_its_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", [{"id": 7, "scores": [0.5, 1]}])
    (label,) = read_scores(path, {"7": 2})
    assert isinstance(label, TraceLabel)
    assert label.trace_id == "7"


def test_columns_of_class_probabilities_add_up(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": "a", "scores": [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]}]
    path = jsonl(tmp_path / "s.jsonl", rows)
    (label,) = read_scores(path, KNOWN, columns=(1, 2))
    assert isinstance(label, TraceLabel)
    assert [step.score for step in label.step_labels] == pytest.approx([0.5, 0.9])
    (row,) = read_scores(path, KNOWN)
    assert isinstance(row, RejectedRow)
    assert "--column" in row.reason
    (row,) = read_scores(path, KNOWN, columns=(3,))
    assert isinstance(row, RejectedRow)
    assert "no column 3" in row.reason
