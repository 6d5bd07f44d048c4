"""MR-Ben: steps by their written number, options and gold letters, the traps of its real file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from formats import ProblemIds, read_file
from tests.formats.builders import jsonl, labels_by_name, read
from traces import AbstentionReason, ImportedTrace

ROW: dict[str, Any] = {
    "Question_UUID": "u1",
    "Subject": "college_biology",
    "Question": "Which one?",
    "Options": "A: Enhancer \nB: Repressor: a protein \nC: Operator ",
    "Ground_Truth_Analysis": "",
    "Ground_Truth_Answer": "C",
    "Ground_Truth_Answer_Modified": "A",
    "Sampled_Model": "GPT3.5",
    "Model_Solution_Steps": ["Step 1: One.", "Step 2: Two.", "Solution: Choice_A"],
    "Model_Solution_Correctness": "incorrect",
    "Model_Solution_First_Error_Step": "2",
    "Model_Solution_Error_Reason": ["because"],
    "Model_Solution_Rectified_First_Error_Step": ["Step 2: Better."],
}


def one(tmp_path: Path, **changes: Any) -> Any:
    traces, rejected = read("mr-ben", jsonl(tmp_path / "a.jsonl", [ROW | changes]))
    return traces[0] if traces else rejected[0]


def test_reads_a_row_to_the_letter(tmp_path: Path) -> None:
    item = one(tmp_path)
    assert item.trace.id == "u1:GPT3.5"
    assert item.problem.id == "u1"
    assert item.problem.options == ("Enhancer", "Repressor: a protein", "Operator")
    assert item.problem.answer == "A"
    assert item.trace.steps == ("Step 1: One.", "Step 2: Two.")
    assert item.trace.final_answer == "Choice_A"
    assert item.trace.final_answer_correct is True
    assert item.trace.subset == "college_biology"
    # The annotators' reason is a word about the error: it goes with their label, not with the trace.
    assert labels_by_name(item)["gold"].meta == {
        "reason": ["because"],
        "rectified": ["Step 2: Better."],
    }
    assert labels_by_name(item)["gold"].first_error_index == 1


@pytest.mark.parametrize(
    ("modified", "answer"), [("", "C"), ("  ", "C"), ("B", "B"), ("AC", None), ("D", None)]
)
def test_the_modified_answer_wins_when_there_is_one(
    tmp_path: Path, modified: str, answer: str | None
) -> None:
    assert one(tmp_path, Ground_Truth_Answer_Modified=modified).problem.answer == answer


def test_unnumbered_lines_join_the_step_before(tmp_path: Path) -> None:
    lines = [
        "Here we go:",
        " Step 1: One.",
        "- more",
        " ",
        "Step n: odd",
        "Step 2: Two.",
        "Solution: Choice_B",
        "Confidence: High",
    ]
    item = one(tmp_path, Model_Solution_Steps=lines)
    assert item.trace.steps == (
        "Here we go:\nStep 1: One.\n- more\nStep n: odd",
        "Step 2: Two.\nConfidence: High",
    )
    assert item.trace.final_answer == "Choice_B"
    assert labels_by_name(item)["gold"].first_error_index == 1


def test_the_error_step_is_a_number_not_a_list_index(tmp_path: Path) -> None:
    item = one(
        tmp_path,
        Model_Solution_Steps=["Step 2: Two.", "Step 5: Five."],
        Model_Solution_First_Error_Step="5",
    )
    assert labels_by_name(item)["gold"].first_error_index == 1


def test_a_number_that_stands_twice_means_the_first_and_says_so(tmp_path: Path) -> None:
    item = one(tmp_path, Model_Solution_Steps=["Step 1: a", "Step 2: b", "Step 1: c", "Step 2: d"])
    gold = labels_by_name(item)["gold"]
    assert gold.first_error_index == 1
    assert gold.meta["step_number_repeated"] == 2


@pytest.mark.parametrize(
    ("correctness", "step"),
    [
        ("incorrect", "3"),
        ("incorrect", "0"),
        ("incorrect", "N/A"),
        ("incorrect", ""),
        ("correct", "1"),
    ],
)
def test_gold_that_cannot_be_placed_is_imported_and_listed(
    tmp_path: Path, correctness: str, step: str
) -> None:
    row = ROW | {"Model_Solution_Correctness": correctness, "Model_Solution_First_Error_Step": step}
    (item,), (listed,) = read("mr-ben", jsonl(tmp_path / "a.jsonl", [row]))
    gold = labels_by_name(item)["gold"]
    assert gold.abstention is not None
    assert gold.abstention.reason is AbstentionReason.GOLD_UNUSABLE
    assert (listed.imported, listed.id) == (True, "u1:GPT3.5")


def test_correct_is_no_error(tmp_path: Path) -> None:
    item = one(
        tmp_path, Model_Solution_Correctness="correct", Model_Solution_First_Error_Step="N/A"
    )
    gold = labels_by_name(item)["gold"]
    assert (gold.first_error_given, gold.first_error_index) == (True, None)


@pytest.mark.parametrize(
    ("said", "right"),
    [("Choice_A", True), ("Choice\\_A.", True), ("Choice A: Enhancer", True), ("Choice_B", False),
     ("Choice_A/B", None), ("Choice A and C", None), ("None of the choices", None)],
)  # fmt: skip
def test_the_final_answer_is_judged_only_if_it_names_one_option(
    tmp_path: Path, said: str, right: bool | None
) -> None:
    item = one(tmp_path, Model_Solution_Steps=["Step 1: x", "Step 2: y", f"Solution: {said}"])
    assert item.trace.final_answer == said
    assert item.trace.final_answer_correct is right


def test_options_that_cannot_be_split_stay_in_the_question(tmp_path: Path) -> None:
    item = one(tmp_path, Options="A: x\nC: y")
    assert item.problem.options == ()
    assert item.problem.question == "Which one?\nA: x\nC: y"


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        (" \n\n", "no steps"),
        (["no number"], "Step N"),
        ([], "no steps"),
        (["Step 1: a", 3], "position 2"),
    ],
)
def test_a_row_without_usable_steps_is_rejected(tmp_path: Path, steps: Any, word: str) -> None:
    rejected = one(tmp_path, Model_Solution_Steps=steps)
    assert word in rejected.reason
    assert (rejected.id, rejected.imported) == ("u1:GPT3.5", False)


PROGRAM = "\n\ndef f(x):\n    # Add one.\n\n    x += 1\n    if x:\n        return x\n    return x\n"


@pytest.mark.parametrize(
    ("line", "index"),
    [
        ("    # Add one.", 1),
        ("    # Add one.   ", 1),
        ("# Add  one.", 1),
        ("x+=1", 2),
        ("        return x", 4),
        ("    return x", 5),
        ("    if x:\n        return x", 3),
        ("return x", None),
        ("", None),
        ("return y", None),
        ("N/A", None),
        (3, None),
    ],
)
def test_the_gold_of_a_program_is_one_of_its_lines(
    tmp_path: Path, line: Any, index: int | None
) -> None:
    changes = {"Subject": "coding", "Options": None, "Ground_Truth_Answer_Modified": None}
    item = one(
        tmp_path,
        **changes,
        Ground_Truth_Answer="",
        Model_Solution_Steps=PROGRAM,
        Model_Solution_First_Error_Step=line,
    )
    assert "\n".join(item.trace.steps) == PROGRAM
    assert len(item.trace.steps) == 6
    assert (item.trace.subset, item.trace.final_answer, item.problem.answer) == (
        "coding",
        None,
        None,
    )
    gold = labels_by_name(item)["gold"]
    assert gold.first_error_index == index
    if index is None:
        assert gold.abstention is not None
        assert gold.abstention.reason is AbstentionReason.GOLD_UNUSABLE


def test_a_correct_program_has_no_wrong_line(tmp_path: Path) -> None:
    right = {"Model_Solution_Correctness": "correct", "Model_Solution_First_Error_Step": "N/A"}
    item = one(tmp_path, Subject="coding", Model_Solution_Steps=PROGRAM, **right)
    gold = labels_by_name(item)["gold"]
    assert (gold.first_error_given, gold.first_error_index) == (True, None)


@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        (["1단계: 하나.", "그래서.", "2단계: 둘.", "정답: A"], "A"),
        (["단계 1: 하나.", "그래서.", "단계 2: 둘.", "답: Choice_A"], "Choice_A"),
        (["步骤1：一。", "所以。", "步骤2：二。", "答案：A"], "A"),
        (["ステップ1：一。", "だから。", "ステップ2：二。", "正解：A"], "A"),
    ],
)
def test_steps_are_numbered_in_other_languages_too(
    tmp_path: Path, steps: list[str], answer: str
) -> None:
    item = one(tmp_path, Model_Solution_Steps=steps)
    assert item.trace.steps == (f"{steps[0]}\n{steps[1]}", steps[2])
    assert (item.trace.final_answer, item.trace.final_answer_correct) == (answer, True)
    assert labels_by_name(item)["gold"].first_error_index == 1


def test_another_question_under_the_same_id_keeps_its_traces(tmp_path: Path) -> None:
    other = ROW | {"Question": "Another?"}
    rows = [
        ROW,
        other | {"Sampled_Model": "a"},
        other | {"Sampled_Model": "b", "Question": " Another?\n"},
        ROW | {"Sampled_Model": "c", "Options": ROW["Options"].replace("A: ", "A: not ")},
        ROW | {"Sampled_Model": "d", "Question": f"{ROW['Question']} "},
    ]
    traces, notes = read("mr-ben", jsonl(tmp_path / "a.jsonl", rows))
    assert [item.trace.problem_id for item in traces] == ["u1", "u1~2", "u1~2", "u1~3", "u1"]
    assert [item.problem.id for item in traces] == [item.trace.problem_id for item in traces]
    assert [item.problem.question for item in traces[1:3]] == ["Another?", "Another?"]
    assert traces[4].problem == traces[0].problem
    # One note for each new problem, not for each of its traces.
    assert [(note.imported, note.id) for note in notes] == [(True, "u1:a"), (True, "u1:c")]
    assert "kept as 'u1~2'" in notes[0].reason
    assert all(note.harmless for note in notes)


def test_files_of_one_call_share_their_problem_ids(tmp_path: Path) -> None:
    problems = ProblemIds()
    paths = [
        jsonl(tmp_path / "a.jsonl", [ROW]),
        jsonl(tmp_path / "b.jsonl", [ROW | {"Sampled_Model": "b", "Question": "Another?"}]),
    ]
    found = [item for path in paths for item in read_file("mr-ben", path, problems=problems)]
    traces = [item for item in found if isinstance(item, ImportedTrace)]
    assert [item.problem.id for item in traces] == ["u1", "u1~2"]


def test_problems_of_an_earlier_import_keep_their_ids(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [ROW])
    (stored,) = (item for item in read_file("mr-ben", path) if isinstance(item, ImportedTrace))
    problems = ProblemIds()
    problems.know([stored.problem, replace(stored.problem, id="u1~2", question="Another?")])
    rows = [
        ROW | {"Sampled_Model": "b", "Question": "Which  one?"},
        ROW | {"Sampled_Model": "c", "Question": "Another?"},
        ROW | {"Sampled_Model": "d", "Question": "A third?"},
    ]
    found = list(read_file("mr-ben", jsonl(tmp_path / "b.jsonl", rows), problems=problems))
    traces = [item for item in found if isinstance(item, ImportedTrace)]
    assert [item.problem.id for item in traces] == ["u1", "u1~2", "u1~3"]
    assert traces[0].problem == stored.problem
    assert len(found) == 4  # one note, of the third


def test_reads_the_object_of_lists_and_the_json_list_alike(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"Sampled_Model": "Claude2"}]
    for name, document in (("dict.json", {"u1": rows}), ("list.json", rows)):
        (tmp_path / name).write_text(json.dumps(document))
        traces, _ = read("mr-ben", tmp_path / name)
        assert [item.trace.id for item in traces] == ["u1:GPT3.5", "u1:Claude2"]


def test_the_real_file_has_its_known_counts(real_data: Path) -> None:
    traces, listed = read("mr-ben", real_data / "mr_ben" / "biology.json")
    golds = [labels_by_name(item)["gold"] for item in traces]
    assert len(traces) == 1035
    assert len({item.problem.id for item in traces}) == 345
    assert sum(gold.first_error_index is not None for gold in golds) == 416
    assert sum(gold.abstention is not None for gold in golds) == 2
    assert all(row.imported for row in listed)
    assert [(row.line, row.id.split(":")[1]) for row in listed if row.id] == [
        (58, "Claude2"),
        (588, "mistral-medium"),
    ]
    # Independent of the reader: the text behind the index begins with the number gold names.
    for item, gold in zip(traces, golds, strict=True):
        assert all("Step " in step for step in item.trace.steps)
        if gold.first_error_index is not None:
            assert item.trace.steps[gold.first_error_index].lstrip().startswith(("Step", "Here is"))
        assert len(item.problem.options) == 4
        assert item.problem.answer in {"A", "B", "C", "D", None}
