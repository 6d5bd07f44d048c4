"""`best-of-n`: both forms, what does not fit, and the Math-Shepherd pool."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Cli


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def candidate(problem: str, index: int, answer: str | None, right: bool | None) -> dict[str, Any]:
    return {
        "problem_id": problem, "candidate_index": index, "answer": answer, "is_correct": right, "ground_truth": "5",
    }  # fmt: skip


@pytest.fixture
def pool(tmp_path: Path) -> tuple[Path, Path]:
    """Two problems of three candidates; rows out of order, one candidate unscored."""
    rows = [
        candidate("p", 2, "5", True),
        candidate("p", 0, "7", False),
        candidate("p", 1, "5.0", True),
        candidate("q", 0, None, False),
        candidate("q", 1, "5", True) | {"n_steps": 2},
        candidate("q", 2, "6", False),
    ]
    scores = [
        {"problem_id": "p", "candidate_index": index, "step_scores": said}
        for index, said in ((0, [0.9]), (1, [0.2]), (2, [0.95]))
    ]
    scores += [
        {"problem_id": "q", "candidate_index": 0, "step_scores": [0.1]},
        {"problem_id": "q", "candidate_index": 1, "step_scores": [0.8, 0.7]},
    ]
    return jsonl(tmp_path / "pool.jsonl", rows), jsonl(tmp_path / "scores.jsonl", scores)


def on(pool: tuple[Path, Path]) -> list[str]:
    return ["best-of-n", "--pool", str(pool[0]), "--scores", str(pool[1])]


def test_a_pool_file_with_its_scores(cli: Cli, pool: tuple[Path, Path]) -> None:
    done = cli(*on(pool), "-n", "1,2, 3", "--json")
    assert done.code == 0
    document = done.document
    assert (document["pools"], document["candidates"], document["unscored"]) == (2, 6, 1)
    assert document["unanswered"] == 1
    assert list(document["n"]) == ["1", "2", "3"]
    # The first two of p are 7 (.9) and 5.0 (.2), of q nothing (.1) and 5 (.7).
    assert document["n"]["2"].items() >= {
        "min": 0.5, "product": 0.5, "last": 0.5, "mean": 0.5, "majority": 0.5, "weighted_majority": 0.5,
        "pass": 1.0, "mean_accuracy": 0.5,
    }.items()  # fmt: skip
    assert document["n"]["3"]["min"] == 1.0
    # 7, 5.0 and 5 are three answers until they are normalised.
    assert document["n"]["3"]["majority"] == 0.5
    normal = cli(*on(pool), "-n", "3", "--normalise-answers", "--json").document
    assert normal["n"]["3"]["majority"] == 1.0
    assert normal["normalised"] is True
    words = cli(*on(pool), "-n", "3").out
    assert "1 of 6 candidates have no scores" in words


def test_expected_is_over_all_subsets(cli: Cli, pool: tuple[Path, Path]) -> None:
    document = cli(*on(pool), "-n", "2", "--expected", "--json").document
    # p: the best of {7 .9, 5.0 .2, 5 .95}: 5 in two of three pairs. q: 5 in both pairs that hold it, one has 0 only.
    assert document["n"]["2"]["min"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert document["n"]["2"]["pass"] == pytest.approx((1 + 2 / 3) / 2)
    assert document["over"].startswith("all subsets")
    again = cli(*on(pool), "-n", "2", "--expected", "--json").document
    assert again == document


def test_rows_that_fit_no_candidate_are_listed(cli: Cli, pool: tuple[Path, Path]) -> None:
    with pool[1].open("a") as file:
        for row in (
            {"problem_id": "z", "candidate_index": 0, "step_scores": [0.5]},
            {"problem_id": "p", "candidate_index": 9, "step_scores": [0.5]},
        ):
            file.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in pool[1].read_text().splitlines()]
    rows[4]["step_scores"] = [0.8]
    jsonl(pool[1], rows)
    done = cli(*on(pool), "-n", "2", "--json")
    assert done.code == 1
    assert done.document["rejected"] == [
        {"line": 5, "problem_id": "q", "candidate_index": 1, "reason": "1 scores for 2 steps"},
        {"line": 6, "problem_id": "z", "candidate_index": 0, "reason": "the pool has no such candidate"},
        {"line": 7, "problem_id": "p", "candidate_index": 9, "reason": "the pool has no such candidate"},
    ]  # fmt: skip
    assert done.document["unscored"] == 2
    assert "line 6, z candidate 0" in cli(*on(pool), "-n", "2").out


def test_candidates_of_unknown_correctness_are_left_out_and_counted(
    cli: Cli, pool: tuple[Path, Path]
) -> None:
    with pool[0].open("a") as file:
        file.write(json.dumps(candidate("r", 0, "5", None)) + "\n")
    document = cli(*on(pool), "-n", "1", "--json").document
    assert (document["unknown_correctness"], document["pools"]) == (1, 3)
    assert document["n"]["1"]["short"] == 1


def test_the_workspace_form(cli: Cli, tmp_path: Path) -> None:
    rows, scores = [], []
    for problem in ("Five?", "Six?"):
        for index, (answer, right) in enumerate((("7", False), ("5", True), ("5", True))):
            id = f"{problem}:{index}"
            rows.append(
                {"id": id, "problem": problem, "steps": ["a", "b"], "final_answer": answer, "final_answer_correct": right}
            )  # fmt: skip
            scores.append({"id": id, "scores": [0.9, 0.5 + index / 10]})
    scores[0]["scores"] = [None, 0.9]
    assert cli("import", "traces", jsonl(tmp_path / "t.jsonl", rows), "--dataset", "d").code == 0
    cli(
        "import",
        "scores",
        jsonl(tmp_path / "s.jsonl", scores),
        "--dataset",
        "d",
        "--labeler",
        "prm",
    )
    command = ["best-of-n", "--dataset", "d", "--labeler", "prm", "-n", "1,3", "--json"]
    document = cli(*command).document
    assert (document["dataset"], document["labeler"], document["pools"]) == ("d", "prm", 2)
    assert document["unscored"] == 1
    assert document["n"]["3"]["min"] == 1.0
    assert document["n"]["1"]["mean_accuracy"] == 0.0
    assert document["n"]["1"]["unscored_pools"] == 1


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["-n", "0"], "not a list of positive integers"),
        (["-n", "8;32"], "not a list of positive integers"),
        (["-n", ""], "not a list of positive integers"),
        (["-n", "-1"], "not a list of positive integers"),
        ([], "-n"),
    ],
)
def test_wrong_numbers_are_refused(
    cli: Cli, pool: tuple[Path, Path], argv: list[str], told: str
) -> None:
    done = cli(*on(pool), *argv)
    assert done.code == 2
    assert told in done.err


@pytest.mark.slow
def test_half_a_form_is_refused(cli: Cli, pool: tuple[Path, Path], traces_file: Path) -> None:
    for argv in (
        ["--pool", str(pool[0])],
        ["--dataset", "d"],
        ["--dataset", "d", "--labeler", "l", "--pool", str(pool[0])],
        [],
    ):
        done = cli("best-of-n", "-n", "2", *argv)
        assert done.code == 2
        assert "--pool and --scores" in done.err
    missing = cli("best-of-n", "--pool", "none.jsonl", "--scores", str(pool[1]), "-n", "1")
    assert missing.code == 2
    assert "none.jsonl" in missing.err
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    unknown = cli("best-of-n", "--dataset", "d", "--labeler", "gold", "-n", "1")
    assert unknown.code == 2
    assert "has a known correctness of its final answer" in unknown.err


def test_scores_of_nothing_are_refused(cli: Cli, pool: tuple[Path, Path], tmp_path: Path) -> None:
    other = jsonl(
        tmp_path / "o.jsonl", [{"problem_id": "z", "candidate_index": 0, "step_scores": [1.0]}]
    )
    done = cli("best-of-n", "--pool", pool[0], "--scores", other, "-n", "1")
    assert done.code == 2
    assert "No candidate has a score" in done.err
    rows = [
        {"problem_id": "z", "candidate_index": 0, "answer": "1", "is_correct": None, "ground_truth": "1"}
    ]  # fmt: skip
    unknown = jsonl(tmp_path / "u.jsonl", rows)
    done = cli("best-of-n", "--pool", unknown, "--scores", other, "-n", "1")
    assert done.code == 2
    assert "has a known correctness" in done.err


@pytest.mark.slow
def test_the_math_shepherd_pool_from_the_command_line(cli: Cli, real_data: Path) -> None:
    folder = real_data / "best_of_n"
    done = cli(
        "best-of-n", "--pool", folder / "candidates_gsm8k.jsonl.gz",
        "--scores", folder / "math_shepherd_gsm8k.jsonl.gz", "-n", "8,32", "--json",
    )  # fmt: skip
    assert done.code == 0
    found = done.document["n"]["32"]
    assert round(found["mean_accuracy"], 4) == 0.8419
    assert {name: found[name] for name in ("pass", "majority", "product", "min")} == {
        "pass": 0.962, "majority": 0.856, "product": 0.85, "min": 0.852,
    }  # fmt: skip


def test_several_score_files_make_one_table(
    cli: Cli, pool: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in pool[1].read_text().splitlines()]
    flipped = [row | {"step_scores": [1 - score for score in row["step_scores"]]} for row in rows]
    other = jsonl(tmp_path / "other.jsonl", flipped)
    (tmp_path / "more").mkdir()
    namesake = jsonl(tmp_path / "more" / "other.jsonl", rows)
    several = [*on(pool), "--scores", str(other), "-n", "2,3"]
    document = cli(*several, "--json").document
    assert list(document) == ["pool", "labelers"]
    for name, file in (("scores.jsonl", pool[1]), ("other.jsonl", other)):
        alone = cli(
            "best-of-n", "--pool", pool[0], "--scores", file, "-n", "2,3", "--json"
        ).document
        assert document["labelers"][name] == alone
    words = cli(*several).out
    assert words.count("scores.jsonl") >= 2
    for name in document["labelers"]:
        figures = document["labelers"][name]["n"]["3"]
        low, high = figures["ci95"]["min"]
        assert f"{figures['min']:.3f} [{low:.3f}, {high:.3f}]" in words
    assert "scores.jsonl: 1 of 6 candidates have no scores" in words
    lines = list(csv.DictReader(io.StringIO(cli(*several, "--format", "csv").out)))
    assert [(line["labeler"], line["n"]) for line in lines] == [
        ("scores.jsonl", "2"), ("scores.jsonl", "3"), ("other.jsonl", "2"), ("other.jsonl", "3"),
    ]  # fmt: skip
    assert "textbf" in cli(*several, "--format", "tex").out
    paths = cli(*several, "--scores", namesake, "--json").document["labelers"]
    assert list(paths) == ["scores.jsonl", str(other), str(namesake)]
    twice = cli(*several, "--scores", other)
    assert (twice.code, "is named twice" in twice.err) == (2, True)


def test_three_labelers_fit_a_terminal_and_four_say_so(
    cli: Cli, pool: tuple[Path, Path], tmp_path: Path
) -> None:
    more = [tmp_path / f"prm-{at}.jsonl" for at in range(3)]
    for file in more:
        file.write_text(pool[1].read_text())
    three = [*on(pool), "--scores", str(more[0]), "--scores", str(more[1]), "-n", "3"]
    assert max(map(len, cli(*three).out.splitlines()[1:])) <= 80
    four = cli(*three, "--scores", more[2]).out
    width = max(map(len, four.splitlines()[1:]))
    assert f"The table is {width} columns wide" in four
