"""Exports: what each format carries, what it leaves out and says so, and files that are whole or absent."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from formats import ExportRow, write_file
from formats.rows import FormatLimit
from tests.formats.builders import labels_by_name, read
from traces.beside import unfinished
from traces.errors import InputError
from traces.evidence import Evidence, Passage
from traces.labels import (
    Abstention,
    AbstentionReason,
    Labeler,
    LabelerKind,
    StepLabel,
    TraceLabel,
    Verdict,
    abstained,
)
from traces.problem import Problem, Trace

C, N, I = Verdict.CORRECT, Verdict.NEUTRAL, Verdict.INCORRECT  # noqa: E741
MC = Labeler("mc", LabelerKind.MC)
JUDGE = Labeler("consensus", LabelerKind.CONSENSUS)
SILENT = StepLabel(abstention=Abstention(AbstentionReason.NOT_MEASURED))


def row(
    label: TraceLabel | list[Verdict | float | None], labeler: Labeler = JUDGE, **trace: Any
) -> ExportRow:
    """A trace of three steps, or as many as the label has, with that label."""
    if isinstance(label, list):
        steps = [
            SILENT
            if said is None
            else StepLabel(said)
            if isinstance(said, Verdict)
            else StepLabel(score=said)
            for said in label
        ]
        label = TraceLabel(trace.get("id", "t1"), tuple(steps))
    steps_of = trace.pop("steps", tuple(f"step {i}" for i in range(len(label.step_labels) or 3)))
    problem = Problem(trace.pop("problem_id", "q1"), "What?", ("x", "y"), "A")
    passage = Passage("guides", "g.md", 0, 0, 5, "Text.", "Title")
    given: dict[str, Any] = {
        "id": "t1",
        "subset": "s",
        "final_answer": "B",
        "final_answer_correct": True,
    }
    solved = Trace(problem_id=problem.id, steps=steps_of, **(given | trace))
    return ExportRow(problem, solved, label, labeler, (Evidence(passage, 0.5, 0),))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_trl_carries_verdicts_and_cuts_behind_the_first_error(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    outcome = write_file(
        "trl",
        path,
        [
            row([C, N, C]),
            row([C, I, None, C]),
            row([C, I, C]),
            row(TraceLabel("t", first_error_given=True, first_error_index=0)),
        ],
    )
    written = lines(path)
    assert [each["labels"] for each in written] == [
        [True, True, True],
        [True, False],
        [True, False, True],
        [False],
    ]
    assert [len(each["completions"]) for each in written] == [3, 2, 3, 1]
    assert (outcome.written, outcome.shortened, outcome.skipped) == (4, 2, ())


def test_what_a_format_cannot_carry_is_skipped_with_its_reason(tmp_path: Path) -> None:
    rows = [
        row(abstained("t1", AbstentionReason.DISAGREEMENT, "judge 1, mc 2")),
        row([C, None, I]),
        row([0.9, 0.1]),
        row(TraceLabel("t1")),
    ]
    for format in ("trl", "processbench", "math-shepherd"):
        outcome = write_file(format, tmp_path / format, rows)
        reasons = [skipped.reason for skipped in outcome.skipped]
        assert reasons == [
            AbstentionReason.DISAGREEMENT, AbstentionReason.NOT_MEASURED, FormatLimit.NOT_CARRIED, AbstentionReason.NOT_MEASURED,
        ]  # fmt: skip
        assert (outcome.written, (tmp_path / format).read_text()) == (0, "")
    assert outcome.skipped[0].detail == "judge 1, mc 2"


def test_processbench_writes_minus_one_for_no_error(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_file("processbench", path, [row([C, C]), row([C, I, None])])
    assert [each["label"] for each in json.loads(path.read_text())] == [-1, 1]


def test_medprm_gathers_the_solutions_of_a_question(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    rows = [row([C, I], id="a"), row([C], id="b", problem_id="q2"), row([I, None], id="c")]
    assert write_file("medprm", path, rows).written == 3
    first, second = json.loads(path.read_text())
    assert [solution["trace_id"] for solution in first["solutions"]] == ["a", "c"]
    assert first["solutions"][0]["prm_processed_solution"] == "step 0 ки step 1 ки"
    assert first["solutions"][1]["prm_gemini_label"] == [0]
    assert (first["related_docs"], first["options"], first["correct_answer"]) == (
        ["Text."],
        ["x", "y"],
        "A",
    )
    assert first["solutions"][0]["labeler"] == {"name": "consensus", "kind": "consensus"}
    assert second["question_id"] == "q2"


def test_medprm_gives_the_ids_back_where_a_question_stands_in_two_subsets(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    rows = [row([C, I], id="a", subset="one"), row([C], id="b", subset="two")]
    assert write_file("medprm", path, rows).written == 2
    traces, rejected = read("medprm", path)
    assert [(item.trace.id, item.trace.subset) for item in traces] == [("a", "one"), ("b", "two")]
    assert rejected == []


def test_medprm_keeps_mc_scores_and_verdicts_apart(tmp_path: Path) -> None:
    label = TraceLabel("t1", (StepLabel(C, 0.25), StepLabel(I, 0.0)))
    write_file(
        "medprm",
        tmp_path / "out.json",
        [row(label, MC), row([0.5, 1.0], Labeler("p", LabelerKind.PRM))],
    )
    first, second = json.loads((tmp_path / "out.json").read_text())[0]["solutions"]
    assert (first["prm_soft_label"], first["prm_hard_label"]) == ([0.25, 0.0], [1, 0])
    assert second["prm_soft_label"] == [0.5, 1.0]
    assert "prm_hard_label" not in second
    assert "prm_gemini_label" not in second


@pytest.mark.parametrize(
    ("format", "step"),
    [
        ("medprm", "a ки b"),
        ("medprm", " "),
        ("math-shepherd", "скирки"),
        ("math-shepherd", "see Step 1: above"),
    ],
)
def test_a_step_that_would_shift_the_labels_is_not_written(
    tmp_path: Path, format: str, step: str
) -> None:
    outcome = write_file(format, tmp_path / "o", [row([C, C], steps=(step, "fine"))])
    assert [skipped.reason for skipped in outcome.skipped] == [FormatLimit.NOT_CARRIED]


def test_math_shepherd_numbers_only_what_has_no_number(tmp_path: Path) -> None:
    write_file("math-shepherd", tmp_path / "o.jsonl", [row([C, I], steps=("one", "Step 2: two"))])
    assert lines(tmp_path / "o.jsonl") == [
        {
            "input": "What?\n(A) x\n(B) y Step 1: one ки\nStep 2: two ки",
            "label": "What?\n(A) x\n(B) y Step 1: one +\nStep 2: two -",
            "task": "s",
            "trace_id": "t1",
            "labeler": {"name": "consensus", "kind": "consensus"},
        }
    ]


def test_traces_carry_evidence_with_its_source(tmp_path: Path) -> None:
    write_file("traces", tmp_path / "o.jsonl", [row([C])])
    (written,) = lines(tmp_path / "o.jsonl")
    assert written["evidence"] == [{"source": "guides/g.md", "title": "Title", "text": "Text."}]
    assert written["labels"] == {"consensus": {"kind": "consensus", "verdicts": [1]}}


def test_equal_exports_are_equal_bytes_and_gzip_is_gzip(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_file("trl", tmp_path / name, [row([C, I])])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert json.loads(gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()))["labels"] == [
        True,
        False,
    ]


def test_an_export_of_nothing_is_a_valid_file(tmp_path: Path) -> None:
    write_file("medprm", tmp_path / "o.json", [])
    assert json.loads((tmp_path / "o.json").read_text()) == []


def failing_rows() -> Iterator[ExportRow]:
    yield row([C, I])
    raise KeyboardInterrupt


def test_a_failed_export_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_file("trl", path, failing_rows())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["o.jsonl"]


def test_a_score_that_is_no_number_never_reaches_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_file("traces", tmp_path / "o.jsonl", [row([float("nan")])])
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot write"):
        write_file("trl", tmp_path / "absent" / "o.jsonl", [])
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="Cannot write"):
        write_file("trl", tmp_path / "folder", [])
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    with unfinished(path) as beside:  # the name that the writer will use
        beside.touch()
    path.unlink()
    beside.symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left"):
        write_file("trl", path, [row([C, I])])
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "o.jsonl"
    with unfinished(path) as beside:
        mine, beside_name = str(os.getpid()), beside.name
        beside.touch()
    living = tmp_path / beside_name.replace(mine, str(os.getppid()), 1)
    dead = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = tmp_path / beside_name.replace(mine, str(dead.pid), 1)
    for each in (living, left):
        each.touch()
    write_file("trl", path, [row([C, I])])
    assert left.exists(), "it still runs"
    dead.kill()
    dead.communicate()
    write_file("trl", path, [row([C, I])])
    assert {each.name for each in tmp_path.iterdir()} == {path.name, living.name}


@pytest.mark.parametrize("format", ["scores", "csv"])
def test_a_format_that_is_only_read_is_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(InputError, match="processbench"):
        write_file(format, tmp_path / "o", [])


def test_an_exported_abstention_comes_back_with_its_reason(tmp_path: Path) -> None:
    blocked = StepLabel(abstention=Abstention(AbstentionReason.BLOCKED, "safety"))
    label = TraceLabel("t1", (StepLabel(C), blocked))
    write_file("traces", tmp_path / "o.jsonl", [row(label)])
    (item,), _ = read("traces", tmp_path / "o.jsonl")
    assert labels_by_name(item)["consensus"] == label
