"""Our own rows: every field, labels of every shape, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from formats import ExportRow, write_file
from tests.formats.builders import jsonl, labels_by_name, read
from traces.evidence import Quote
from traces.labels import AbstentionReason, Labeler, LabelerKind, StepLabel, TraceLabel, Verdict
from traces.privacy import refuse_phi
from traces.problem import TraceInContext

ROW: dict[str, Any] = {"id": "t1", "problem": "Q?", "steps": ["a", "b", "c"]}
FULL: dict[str, Any] = ROW | {
    "options": ["x", "y"],
    "answer": "A",
    "images": ["scan.png"],
    "subset": "hard",
    "generator": "m",
    "final_answer": "B",
    "final_answer_correct": False,
    "labels": {
        "gold": {"kind": "gold", "first_error": 1},
        "judge": {"kind": "judge", "verdicts": [1, 0, None]},
        "prm": {"kind": "prm", "scores": [0.9, None, 0]},
        "fine": {"kind": "expert", "first_error": None},
    },
    "evidence": [{"source": "guide.md", "title": "T", "text": "Passage."}],
    "meta": {"phi_removed": False},
    "more": 1,
}


def test_reads_a_full_row_to_the_letter(tmp_path: Path) -> None:
    (item,), rejected = read("traces", jsonl(tmp_path / "a.jsonl", [FULL]))
    assert not rejected
    problem, trace = item.problem, item.trace
    assert (problem.question, problem.options, problem.answer, problem.images) == (
        "Q?",
        ("x", "y"),
        "A",
        ("scan.png",),
    )
    assert (trace.subset, trace.generator, trace.final_answer, trace.final_answer_correct) == (
        "hard",
        "m",
        "B",
        False,
    )
    assert trace.meta == {"phi_removed": False, "more": 1}
    assert item.evidence[0].passage.document == "guide.md"
    assert item.evidence[0].passage.text == "Passage."
    labels = labels_by_name(item)
    assert labels["gold"].first_error_index == 1
    assert (labels["fine"].first_error_given, labels["fine"].first_error_index) == (True, None)
    assert [step.verdict for step in labels["judge"].step_labels] == [
        Verdict.CORRECT,
        Verdict.NEUTRAL,
        None,
    ]
    assert [step.score for step in labels["prm"].step_labels] == [0.9, None, 0.0]
    silent = labels["judge"].step_labels[2].abstention
    assert silent is not None
    assert silent.reason is AbstentionReason.NOT_MEASURED


def test_subset_of_the_user_wins(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [FULL])
    assert read("traces", path, subset="mine")[0][0].trace.subset == "mine"
    assert read("traces", jsonl(tmp_path / "b.jsonl", [ROW]))[0][0].trace.subset == "default"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("gold", AbstentionReason.GOLD_UNUSABLE), ("judge", AbstentionReason.UNREADABLE)],
)
@pytest.mark.parametrize(
    "said", [{"first_error": 3}, {"verdicts": [1, 1]}, {"scores": [1, 1, 1, 1]}]
)
def test_a_label_that_does_not_fit_is_an_abstention_and_listed(
    tmp_path: Path, kind: str, reason: AbstentionReason, said: dict[str, Any]
) -> None:
    row = ROW | {"labels": {"who": {"kind": kind, **said}}}
    (item,), (listed,) = read("traces", jsonl(tmp_path / "a.jsonl", [row]))
    label = labels_by_name(item)["who"]
    assert label.abstention is not None
    assert label.abstention.reason is reason
    assert listed.imported
    assert "who" in listed.reason


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"steps": []}, "no steps"),
        ({"steps": ["", " "]}, "no steps"),
        ({"steps": "a"}, "'steps' is the text 'a'"),
        ({"steps": ["a", None]}, "position 2"),
        ({"id": 5.5}, "'id' is the number 5.5"),
        ({"id": " "}, "'id'"),
        ({"problem": None}, "'problem' is null"),
        ({"final_answer_correct": "yes"}, "final_answer_correct"),
        ({"meta": []}, "'meta' is a list"),
        ({"meta": {"more": 2}, "more": 1}, "'more' is a key of the row and"),
        ({"evidence": [{"source": "s"}]}, "'text' is missing"),
        ({"evidence": "e"}, "evidence"),
        ({"labels": {"j": {"verdicts": [1, 1, 1]}}}, "kind"),
        ({"labels": {"j": {"kind": "human", "first_error": 0}}}, "'human'"),
        ({"labels": {"j": {"kind": "mc"}}}, "none of"),
        ({"labels": {"j": {"kind": "mc", "first_eror": 1}}}, "'first_eror'"),
        ({"labels": {"j": {"kind": "mc", "first_error": -1}}}, "null for no error"),
        ({"labels": {"j": {"kind": "mc", "first_error": "1"}}}, "0-based"),
        ({"labels": {"j": {"kind": "mc", "verdicts": [1, 2, 1]}}}, "verdict is 2"),
        ({"labels": {"j": {"kind": "mc", "verdicts": [True, 1, 1]}}}, "verdict is True"),
        ({"labels": {"j": {"kind": "prm", "scores": [0.5, 1.5, 1]}}}, "outside [0, 1]"),
        ({"labels": {"j": {"kind": "prm", "scores": ["0.5", 1, 1]}}}, "score is '0.5'"),
        ({"labels": {"j": {"kind": "prm", "scores": {}}}}, "not a list"),
        (
            {
                "labels": {
                    "j": {
                        "kind": "mc",
                        "verdicts": [1, 1, 1],
                        "details": [{"successes": -1}, None, None],
                    }
                }
            },
            "successes",
        ),
        (
            {
                "labels": {
                    "j": {
                        "kind": "mc",
                        "verdicts": [1, 1, None],
                        "details": [None, None, {"abstention": {"reason": "x"}}],
                    }
                }
            },
            "'x'",
        ),
    ],
)
def test_a_wrong_field_rejects_the_row_by_name(
    tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    traces, (rejected,) = read("traces", jsonl(tmp_path / "a.jsonl", [ROW | changes]))
    assert not traces
    assert word in rejected.reason
    assert not rejected.imported
    assert rejected.line == 1


def test_one_labeler_has_one_kind_in_a_file(tmp_path: Path) -> None:
    rows = [
        ROW | {"id": kind, "labels": {"j": {"kind": kind, "first_error": None}}}
        for kind in ("judge", "mc")
    ]
    traces, (rejected,) = read("traces", jsonl(tmp_path / "a.jsonl", rows))
    assert [item.trace.id for item in traces] == ["judge"]
    assert "kind mc here and judge in an earlier row" in rejected.reason


def test_rows_that_contradict_each_other_on_the_answer_are_two_problems(tmp_path: Path) -> None:
    rows = [
        ROW | {"id": "1", "answer": "4"},
        ROW | {"id": "2", "answer": "5"},
        ROW | {"id": "3", "answer": "4"},
    ]
    ids = [item.problem.id for item in read("traces", jsonl(tmp_path / "a.jsonl", rows))[0]]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize(
    ("meta", "held"),
    [
        ({"phi_removed": False}, True),
        ({"metadata": {"phi_removed": False}}, True),
        ({"phi_removed": True}, False),
        ({"phi_removed": "false"}, False),
        ({"metadata": "phi_removed: false"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("key", ["meta", "problem_meta"])
def test_a_row_that_says_phi_was_not_removed_goes_to_no_hosted_model(
    tmp_path: Path, key: str, meta: dict[str, Any], held: bool
) -> None:
    ((item,), _) = read("traces", jsonl(tmp_path / "a.jsonl", [ROW | {key: meta}]))
    context = TraceInContext(item.problem, item.trace)
    assert (refuse_phi(context, hosted=True, allow_phi=False) is not None) is held
    assert refuse_phi(context, hosted=False, allow_phi=False) is None
    assert refuse_phi(context, hosted=True, allow_phi=True) is None


def test_a_quote_that_does_not_stand_in_its_document_stays_unverified(tmp_path: Path) -> None:
    label = TraceLabel(
        "t1",
        (
            StepLabel(Verdict.INCORRECT, quote=Quote("made up", 2, False)),
            StepLabel(Verdict.CORRECT, quote=Quote("Passage", 1, True, 0, 7, "exact")),
            StepLabel(Verdict.CORRECT),
        ),
    )
    (item,), _ = read("traces", jsonl(tmp_path / "a.jsonl", [ROW]))
    judge = Labeler("judge", LabelerKind.JUDGE, {"imported_from": "traces"})
    write_file("traces", tmp_path / "o.jsonl", [ExportRow(item.problem, item.trace, label, judge)])
    (again,), _ = read("traces", tmp_path / "o.jsonl")
    assert labels_by_name(again)["judge"] == label
