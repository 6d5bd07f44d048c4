"""VisualProcessBench: every step rated, images by path, neutral by policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from formats import NeutralPolicy, read_file
from tests.formats.builders import jsonl, labels_by_name, read
from tests.formats.samples import VISUALPROCESSBENCH as ROW
from traces.labels import Verdict
from traces.records import ImportedTrace


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    (item,), rejected = read("visualprocessbench", jsonl(tmp_path / "test.jsonl", [ROW]))
    assert not rejected
    assert (item.trace.id, item.trace.subset) == ("test:0", "MMMU")
    assert item.problem.images == ("images/1.png", "images/2.png")
    assert (item.problem.answer, item.trace.generator) == ("B", "InternVL2.5-8B")
    assert [step.verdict for step in labels_by_name(item)["gold"].step_labels] == [
        Verdict.CORRECT, Verdict.NEUTRAL, Verdict.INCORRECT,
    ]  # fmt: skip


@pytest.mark.parametrize("image", ["images/1.png", [{"path": "images/1.png", "bytes": None}]])
def test_one_image_may_stand_alone_or_in_an_object(tmp_path: Path, image: Any) -> None:
    path = jsonl(tmp_path / "a.jsonl", [ROW | {"image": image}])
    assert read("visualprocessbench", path)[0][0].problem.images == ("images/1.png",)


def test_ignored_neutral_steps_say_why_they_have_no_verdict(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [ROW])
    (item,) = read_file("visualprocessbench", path, neutral=NeutralPolicy.IGNORE)
    assert isinstance(item, ImportedTrace)
    ignored = labels_by_name(item)["gold"].step_labels[1].abstention
    assert ignored is not None
    assert "--neutral ignore" in ignored.detail


def test_ratings_of_another_number_of_steps_are_listed(tmp_path: Path) -> None:
    row = ROW | {"response": {"steps": ["a", "b"], "process_correctness": [1]}}
    (item,), (listed,) = read("visualprocessbench", jsonl(tmp_path / "a.jsonl", [row]))
    assert labels_by_name(item)["gold"].abstention is not None
    assert (listed.imported, listed.id) == (True, "a:0")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"response": "a\n\nb"}, "'response'"),
        ({"image": [3]}, "'image' holds the number 3"),
    ],
)
def test_a_wrong_field_rejects_the_row(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    traces, (rejected,) = read("visualprocessbench", jsonl(tmp_path / "a.jsonl", [ROW | changes]))
    assert not traces
    assert word in rejected.reason
