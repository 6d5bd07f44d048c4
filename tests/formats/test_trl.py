"""TRL rows: booleans are verdicts, fractions are scores, and the user names the labeler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.builders import jsonl, labels_by_name, read
from traces.errors import InputError
from traces.labels import AbstentionReason, LabelerKind, Verdict

ROW: dict[str, Any] = {"prompt": "Q?", "completions": ["a", "b"], "labels": [True, False]}


def rows(tmp_path: Path, **changes: Any) -> Any:
    return read(
        "trl", jsonl(tmp_path / "x.jsonl", [ROW | changes]), labeler="mine", kind=LabelerKind.MC
    )


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    (item,), rejected = rows(tmp_path)
    assert not rejected
    assert (item.trace.id, item.problem.question, item.trace.steps) == ("x:0", "Q?", ("a", "b"))
    assert item.labels[0][0].name == "mine"
    assert item.labels[0][0].kind is LabelerKind.MC
    assert [step.verdict for step in labels_by_name(item)["mine"].step_labels] == [
        Verdict.CORRECT,
        Verdict.INCORRECT,
    ]


def test_fractions_stay_fractions(tmp_path: Path) -> None:
    (item,), _ = rows(tmp_path, labels=[1, 0.75])
    first, second = labels_by_name(item)["mine"].step_labels
    assert (first.verdict, second.verdict, second.score) == (Verdict.CORRECT, None, 0.75)


def test_a_wrong_number_of_labels_is_listed_and_not_lined_up(tmp_path: Path) -> None:
    (item,), (listed,) = rows(tmp_path, labels=[True])
    label = labels_by_name(item)["mine"]
    assert label.abstention is not None
    assert label.abstention.reason is AbstentionReason.UNREADABLE
    assert listed.imported


@pytest.mark.parametrize("labels", ["++", [2, 1], [-100, 1], [1.5, 0.0]])
def test_a_wrong_type_rejects_the_row(tmp_path: Path, labels: Any) -> None:
    traces, (rejected,) = rows(tmp_path, labels=labels)
    assert not traces
    assert "label" in rejected.reason


def test_who_labelled_must_be_said_here_and_nowhere_else(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", [ROW])
    with pytest.raises(InputError, match="do not name their labeler"):
        read("trl", path, labeler="mine")
    with pytest.raises(InputError, match="name their labelers themselves"):
        read("processbench", path, labeler="mine", kind=LabelerKind.MC)


def test_a_null_label_leaves_its_step_unlabeled(tmp_path: Path) -> None:
    (item,), rejected = rows(tmp_path, labels=[None, True])
    assert not rejected
    first, second = labels_by_name(item)["mine"].step_labels
    assert (first.verdict, second.verdict) == (None, Verdict.CORRECT)
    assert first.abstention is not None
    assert first.abstention.reason is AbstentionReason.NOT_MEASURED
