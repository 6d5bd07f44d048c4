"""Import of several files, and of a file that lost rows: whose rows they are, and what is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def trace(trace_id: str, **more: Any) -> dict[str, Any]:
    return {"id": trace_id, "problem": "p", "steps": ["s"], **more}


def test_two_files_of_one_name_are_refused_not_taken_for_two_versions(
    cli: Cli, tmp_path: Path
) -> None:
    """With --replace the second one silently removed the traces of the first."""
    files = [
        written(tmp_path / "a" / "t.jsonl", trace("a")),
        written(tmp_path / "b" / "t.jsonl", trace("b")),
    ]
    called = cli("import", "traces", *files, "--dataset", "d", "--replace", "--json")
    assert called.code == 2
    assert str(files[0]) in called.document["error"]["where"]
    assert not (tmp_path / "stepgold.db").exists()


def test_traces_that_left_the_file_are_counted(cli: Cli, tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", trace("a"), trace("b"))
    assert cli("import", "traces", path, "--dataset", "d", "--json").document["removed"] == 0
    written(path, trace("a"))
    called = cli("import", "traces", path, "--dataset", "d", "--replace", "--json")
    assert (called.document["traces"], called.document["removed"]) == (1, 1)
    written(path, trace("c"))
    assert "1 removed" in cli("import", "traces", path, "--dataset", "d", "--replace").out


def test_a_bad_name_of_a_labeler_costs_its_row_and_no_other(cli: Cli, tmp_path: Path) -> None:
    bad = [
        trace(f"bad {number}", labels={name: {"kind": "gold", "first_error": 0}})
        for number, name in enumerate(("", "two\nlines"))
    ]
    path = written(tmp_path / "t.jsonl", trace("good"), *bad)
    called = cli("import", "traces", path, "--dataset", "d", "--json")
    assert (called.code, called.document["done"], called.document["failed"]) == (1, 1, 2)
    assert [(row["file"], row["line"]) for row in called.document["rejected"]] == [
        (str(path), 2),
        (str(path), 3),
    ]
    assert not cli("status", "--json").document["labelers"]


@pytest.mark.parametrize("name", ["a?b", "p%20q", "with space é #1"])
def test_a_workspace_is_exactly_the_folder_that_was_named(
    cli: Cli, traces_file: Path, tmp_path: Path, name: str
) -> None:
    workspace = tmp_path / "at" / name
    called = cli("import", "traces", traces_file, "--dataset", "d", workspace=workspace)
    assert called.code == 0, called.err
    assert (workspace / "stepgold.db").exists()
    assert [entry.name for entry in workspace.parent.iterdir()] == [name]
    assert "d" in cli("status", "--json", workspace=workspace).document["datasets"]


def processbench(trace_id: str, label: int = -1, **more: Any) -> dict[str, Any]:
    row = {"id": trace_id, "problem": f"{trace_id}?", "steps": ["s", "t"], "label": label}
    return row | {"generator": "g", "final_answer_correct": True, **more}


def evaluated(cli: Cli, tmp_path: Path, correct: dict[str, bool]) -> Any:
    """ProcessBench of a labeler that finds an error or none in every trace."""
    rows = [
        {"id": id, "first_error": None if right else 0} for id, right in sorted(correct.items())
    ]
    path = written(tmp_path / "scores.jsonl", *rows)
    assert cli("import", "scores", path, "--dataset", "d", "--labeler", "l", "--json").code == 0
    options = ("--labeler", "l", "--resamples", "20", "--json")
    return cli("evaluate", "--dataset", "d", *options).document


def test_the_average_of_processbench_is_over_the_subsets_that_the_ids_name(
    cli: Cli, tmp_path: Path
) -> None:
    sizes = {"gsm8k": 2, "math": 4, "olympiadbench": 6, "omnimath": 8}
    files = [
        written(
            tmp_path / f"file{number}.jsonl",
            *(processbench(f"{name}-{i}", label=(0 if i % 2 else -1)) for i in range(size)),
        )
        for number, (name, size) in enumerate(sizes.items())
    ]
    called = cli("import", "processbench", *files, "--dataset", "d", "--json")
    assert (called.code, called.document["notes"]) == (0, [])
    # Every error is found; of the traces without one, a share that differs by subset.
    correct = {
        f"{name}-{i}": i % 2 == 0 and i < size - 2 * number
        for number, (name, size) in enumerate(sizes.items())
        for i in range(size)
    }
    document = evaluated(cli, tmp_path, correct)
    assert set(document["subsets"]) == set(sizes)
    expected = []
    for name, size in sizes.items():
        share = sum(correct[f"{name}-{i}"] for i in range(0, size, 2)) / (size / 2)
        expected.append(2 * share / (1 + share))
    assert document["average"]["processbench_f1"] == pytest.approx(sum(expected) / 4, abs=1e-9)


def test_ids_that_name_no_subset_leave_it_to_the_files(cli: Cli, tmp_path: Path) -> None:
    files = [written(tmp_path / f"{name}.jsonl", processbench(name)) for name in ("math", "gsm8k")]
    cli("import", "processbench", *files, "--dataset", "d", "--json")
    assert set(evaluated(cli, tmp_path, {"math": True, "gsm8k": True})["subsets"]) == {
        "gsm8k",
        "math",
    }
    alone = written(tmp_path / "other.jsonl", processbench("x", subset="mine"), processbench("7"))
    cli("import", "processbench", alone, "--dataset", "e")
    rows = written(
        tmp_path / "e.jsonl", {"id": "x", "first_error": 0}, {"id": "7", "first_error": 0}
    )
    cli("import", "scores", rows, "--dataset", "e", "--labeler", "l")
    on = ("--labeler", "l", "--resamples", "20", "--json")
    assert set(cli("evaluate", "--dataset", "e", *on).document["subsets"]) == {"default", "mine"}


def test_files_in_one_subset_are_noted_unless_it_was_named(cli: Cli, tmp_path: Path) -> None:
    files = [written(tmp_path / f"{name}.jsonl", trace(name)) for name in "ab"]
    called = cli("import", "traces", *files, "--dataset", "d", "--json")
    (note,) = called.document["notes"]
    assert called.code == 0
    assert "2 files are in the subset 'default'" in note["reason"]
    assert "--subset" in note["reason"]
    named = cli("import", "traces", *files, "--dataset", "e", "--subset", "s", "--json")
    assert named.document["notes"] == []


def test_gold_against_gold_says_so(cli: Cli, tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", processbench("gsm8k-1"), processbench("gsm8k-2", 1))
    cli("import", "processbench", path, "--dataset", "d")
    on = ("--dataset", "d", "--labeler", "gold", "--resamples", "20")
    assert "compared with itself" in cli("evaluate", *on).out
    assert "compared with itself" in cli("evaluate", *on, "--json").document["notes"][0]


def mr_ben(uuid: str, model: str, question: str, **more: Any) -> dict[str, Any]:
    return {
        "Question_UUID": uuid,
        "Subject": "math",
        "Question": question,
        "Options": "A: 1\nB: 2",
        "Ground_Truth_Answer": "A",
        "Sampled_Model": model,
        "Model_Solution_Steps": ["Step 1: one", "Step 2: two"],
        "Model_Solution_Correctness": "correct",
        "Model_Solution_First_Error_Step": "N/A",
        **more,
    }


def test_separate_imports_keep_the_traces_of_both_problems(cli: Cli, tmp_path: Path) -> None:
    first = written(tmp_path / "a.jsonl", mr_ben("u", "m1", "One?"))
    second = written(
        tmp_path / "b.jsonl", mr_ben("u", "m2", "Another?"), mr_ben("u", "m3", " One?\n")
    )
    assert cli("import", "mr-ben", first, "--dataset", "d").code == 0
    called = cli("import", "mr-ben", second, "--dataset", "d", "--json")
    assert (called.code, called.document["traces"], called.document["rejected"]) == (0, 3, [])
    (note,) = called.document["notes"]
    assert (note["id"], "kept as 'u~2'" in note["reason"]) == ("u:m2", True)
    assert cli("status", "--json").document["datasets"]["d"]["problems"] == 2
    # The same file again lists the note again, and is no failure.
    again = cli("import", "mr-ben", second, "--dataset", "d", "--json")
    assert (again.code, again.document["notes"], again.document["unchanged"]) == (0, [note], 2)
    # A changed file keeps the ids that others have, and its own variant its number.
    written(second, mr_ben("u", "m2", "Another?"), mr_ben("u", "m4", "One?"))
    changed = cli("import", "mr-ben", second, "--dataset", "d", "--replace", "--json")
    assert (changed.code, changed.document["unchanged"], changed.document["removed"]) == (0, 1, 1)
    assert cli("status", "--json").document["datasets"]["d"]["problems"] == 2


def test_unusable_gold_still_exits_with_1(cli: Cli, tmp_path: Path) -> None:
    wrong = {"Model_Solution_Correctness": "incorrect", "Model_Solution_First_Error_Step": "9"}
    path = written(tmp_path / "a.jsonl", mr_ben("u", "m1", "One?", **wrong))
    called = cli("import", "mr-ben", path, "--dataset", "d", "--json")
    assert (called.code, called.document["unlabelled"]) == (1, 1)
    assert cli("import", "mr-ben", path, "--dataset", "d").code == 1
