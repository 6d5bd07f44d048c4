"""PRM800K: the way the labellers took, what they left aside, and how neutral is read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from formats import ExportRow, NeutralPolicy, read_file, write_file
from tests.formats.builders import jsonl, labels_by_name, read
from tests.formats.samples import PRM800K as ROW
from traces.errors import InputError
from traces.labels import LabelerKind, Verdict, first_error
from traces.records import ImportedTrace

C, N, I = Verdict.CORRECT, Verdict.NEUTRAL, Verdict.INCORRECT  # noqa: E741


def changed(*steps: dict[str, Any], phase_1: bool = True, **label: Any) -> dict[str, Any]:
    """The sample row with other steps; phase 1 has no solution written beforehand."""
    row = copy.deepcopy(ROW)
    row["label"] |= {"steps": list(steps), **label}
    if phase_1:
        row["question"] |= {"pre_generated_steps": None}
    return row


def step(
    *texts: tuple[str, int | None], chosen: int | None = 0, human: Any = None
) -> dict[str, Any]:
    completions = [{"text": text, "rating": rating, "flagged": None} for text, rating in texts]
    return {"completions": completions, "human_completion": human, "chosen_completion": chosen}


def one(tmp_path: Path, row: dict[str, Any], policy: str = "keep") -> ImportedTrace:
    found = list(
        read_file("prm800k", jsonl(tmp_path / "p.jsonl", [row]), neutral=NeutralPolicy(policy))
    )
    assert isinstance(found[0], ImportedTrace)
    return found[0]


def words(item: ImportedTrace) -> list[Verdict | None]:
    return [each.verdict for each in labels_by_name(item)["gold"].step_labels]


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    item = one(tmp_path, ROW)
    assert item.trace.id == "p:0"
    assert (item.problem.question, item.problem.answer) == ("What is 2 * 3?", "6")
    # At the last step nothing was chosen: the solution's own one is in pre_generated_steps.
    assert item.trace.steps == ("Let us see.", "2 * 3 = 6.", "So 7.")
    assert words(item) == [N, C, I]
    assert item.trace.meta["alternatives"] == [{"step": 2, "text": "So 6.", "rating": 1}]
    assert item.trace.meta["finish_reason"] == "found_error"
    assert item.trace.meta["labeler"] == "340d89bc"
    assert item.labels[0][0].kind is LabelerKind.GOLD


@pytest.mark.parametrize(
    ("policy", "read_as", "error"),
    [("keep", N, 2), ("positive", C, 2), ("negative", I, 0), ("ignore", None, 2)],
)
def test_neutral_is_read_by_the_policy(
    tmp_path: Path, policy: str, read_as: Verdict | None, error: int
) -> None:
    item = one(tmp_path, ROW, policy)
    assert words(item) == [read_as, C, I]
    labeler, label = item.labels[0]
    assert first_error(label).index == error
    assert labeler.config.get("neutral") == (None if policy == "keep" else policy)


def test_a_format_without_neutral_steps_takes_no_policy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no option --neutral"):
        list(read_file("processbench", tmp_path / "a", neutral=NeutralPolicy.POSITIVE))


@pytest.mark.parametrize("human", [{"text": "So 6.", "rating": 1}, "So 6."])
def test_a_step_written_by_a_person_is_right(tmp_path: Path, human: Any) -> None:
    row = changed(step(("a", 1)), step(("b", -1), ("c", -1), chosen=None, human=human))
    item = one(tmp_path, row)
    assert (item.trace.steps, words(item)) == (("a", "So 6."), [C, C])
    assert item.trace.meta["human_steps"] == [1]
    assert [other["text"] for other in item.trace.meta["alternatives"]] == ["b", "c"]


def test_of_several_candidates_without_a_choice_none_was_taken(tmp_path: Path) -> None:
    row = changed(step(("a", 1)), step(("b", -1), ("c", 0), chosen=None), step(("d", 1)))
    (item,), (listed,) = read("prm800k", jsonl(tmp_path / "p.jsonl", [row]))
    assert item.trace.steps == ("a",)
    assert [other["text"] for other in item.trace.meta["alternatives"]] == ["b", "c"]
    assert listed.imported
    assert "step 2" in listed.reason


def test_a_single_candidate_without_a_choice_is_the_last_step(tmp_path: Path) -> None:
    item = one(tmp_path, changed(step(("a", 1)), step(("b", -1), chosen=None)))
    assert (item.trace.steps, words(item)) == (("a", "b"), [C, I])


def test_a_step_that_nobody_rated_stays_open(tmp_path: Path) -> None:
    item = one(tmp_path, changed(step(("a", 1)), step(("b", None)), step(("c", -1))))
    assert words(item) == [C, None, I]
    assert first_error(labels_by_name(item)["gold"]).missing


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (changed(step(("a", 1), chosen=3)), "'chosen_completion' is 3"),
        (changed({"completions": None, "chosen_completion": None}), "no steps"),
        (changed(step(("a", 1)), 7), "not an object"),  # type: ignore[arg-type]
        (changed(step((None, 1))), "not a text"),  # type: ignore[arg-type]
        (ROW | {"label": "good"}, "'label' is the text 'good'"),
        (ROW | {"question": {"problem": " "}}, "'problem'"),
    ],
)
def test_a_wrong_field_rejects_the_row(tmp_path: Path, row: dict[str, Any], word: str) -> None:
    traces, (rejected,) = read("prm800k", jsonl(tmp_path / "p.jsonl", [row]))
    assert not traces
    assert word in rejected.reason
    assert rejected.id == "p:0"


def test_a_row_goes_back_as_it_came(tmp_path: Path) -> None:
    row = changed(
        step(("a", 0)),
        step(("b", -1), chosen=None, human={"text": "B", "rating": 1, "flagged": None}),
        step(("c", -1), ("d", 1)),
    )
    row["label"]["steps"][2]["completions"][0]["flagged"] = True
    item = one(tmp_path, row)
    exported = ExportRow(item.problem, item.trace, item.labels[0][1], item.labels[0][0])
    assert write_file("prm800k", tmp_path / "o.jsonl", [exported]).not_carried == {}
    written = json.loads((tmp_path / "o.jsonl").read_text())
    assert written["label"] == row["label"]
    assert written["question"] == row["question"]
    assert {key: written[key] for key in ("labeler", "timestamp", "generation")} == {
        key: row[key] for key in ("labeler", "timestamp", "generation")
    }


def test_rated_alternatives_become_traces_on_request(tmp_path: Path) -> None:
    row = changed(
        step(("a", 1), ("b", -1), ("c", None), ("d", 0)),
        step(("e", 1), ("f", -1)),
    )
    path = jsonl(tmp_path / "p.jsonl", [row])
    chosen, *others = read_file("prm800k", path, alternatives=True)
    assert isinstance(chosen, ImportedTrace)
    assert chosen.trace.steps == ("a", "e")
    assert [next(read_file("prm800k", path))] == [chosen]
    found = {
        item.trace.id: (item.trace.steps, words(item))
        for item in others
        if isinstance(item, ImportedTrace)
    }
    assert found == {
        "p:0/0.1": (("b",), [I]),
        "p:0/0.3": (("d",), [N]),
        "p:0/1.1": (("a", "f"), [C, I]),
    }
    with pytest.raises(InputError, match="no option --alternatives"):
        read_file("processbench", path, alternatives=True)
