"""Formats at the command line: neutral steps by policy, tables, what an export does not carry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats.fuzz import ROWS, corrupted_file
from tests.formats.samples import SAMPLES

Cli = Callable[..., Any]


@pytest.fixture
def prm800k(tmp_path: Path) -> Path:
    path = tmp_path / "phase2.jsonl"
    path.write_text(json.dumps(SAMPLES["prm800k"]) + "\n")
    return path


@pytest.mark.slow
def test_another_policy_for_neutral_steps_is_another_source(cli: Cli, prm800k: Path) -> None:
    assert cli("import", "prm800k", prm800k, "--dataset", "d").code == 0
    again = cli("import", "prm800k", prm800k, "--dataset", "d", "--neutral", "keep", "--json")
    assert (again.code, again.document["unchanged"]) == (0, 1)
    other = cli("import", "prm800k", prm800k, "--dataset", "d", "--neutral", "positive")
    assert other.code == 2
    assert "--replace" in other.err
    assert cli("import", "prm800k", prm800k, "--dataset", "e", "--neutral", "positive").code == 0


@pytest.mark.parametrize(
    ("format", "policy", "word"),
    [("prm800k", "maybe", "is not a value of --neutral"), ("trl", "ignore", "no option --neutral"), ("scores", "ignore", "remove")],
)  # fmt: skip
def test_a_policy_that_means_nothing_is_refused(
    cli: Cli, prm800k: Path, format: str, policy: str, word: str
) -> None:
    who = ["--labeler", "x", "--kind", "mc"] if format == "trl" else []
    called = cli("import", format, prm800k, "--dataset", "d", "--neutral", policy, *who)
    assert called.code == 2
    assert word in called.err


@pytest.mark.slow
def test_an_export_says_what_it_does_not_carry(cli: Cli, prm800k: Path, tmp_path: Path) -> None:
    cli("import", "prm800k", prm800k, "--dataset", "d")
    out = tmp_path / "o.jsonl"
    done = cli("export", "trl", out, "--dataset", "d", "--labeler", "gold", "--json")
    assert (done.code, done.document["done"]) == (0, 1)
    assert done.document["not_carried"] == {"answer": 1, "neutral": 1, "trace_meta": 1}
    words = cli("export", "trl", out, "--dataset", "d", "--labeler", "gold").out
    assert "not carried by trl (traces): answer (1), neutral (1), trace_meta (1)" in words
    assert (
        cli("export", "prm800k", out, "--dataset", "d", "--labeler", "gold", "--json").document[
            "not_carried"
        ]
        == {}
    )


@pytest.mark.slow
def test_a_table_goes_out_and_comes_in(cli: Cli, prm800k: Path, tmp_path: Path) -> None:
    cli("import", "prm800k", prm800k, "--dataset", "d")
    out = tmp_path / "o.parquet"
    assert cli("export", "parquet", out, "--dataset", "d", "--labeler", "gold").code == 0
    assert cli("import", "traces", out, "--dataset", "e", "--json").document["with_error"] == 1


def test_an_unusable_error_step_of_prmbench_is_listed_and_exits_1(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(SAMPLES["prmbench"] | {"error_steps": [1, 9]}) + "\n")
    called = cli("import", "prmbench", path, "--dataset", "d", "--json")
    assert (called.code, called.document["done"]) == (1, 1)
    assert called.document["rejected"] == []
    (listed,) = called.document["notes"]
    assert (listed["file"], listed["line"], listed["id"]) == (
        str(path),
        1,
        "circular_prm_test_p1_0",
    )


@pytest.mark.slow
@pytest.mark.parametrize("format", ["traces", "prm800k", "visualprocessbench", "mr-ben"])
def test_a_corrupted_file_is_counted_row_by_row(cli: Cli, tmp_path: Path, format: str) -> None:
    path = tmp_path / "f.jsonl"
    lines = corrupted_file(format, SAMPLES[format])
    path.write_bytes(b"\n".join(lines) + b"\n")
    called = cli("import", format, path, "--dataset", "d", "--json")
    document = called.document
    assert called.code == 1
    assert document["done"] + document["failed"] == len(lines) == ROWS + 3
    assert len(document["rejected"]) >= document["failed"] > ROWS / 4
    assert all(row["file"] and row["line"] and row["reason"] for row in document["rejected"])
    again = cli("import", format, path, "--dataset", "d", "--json").document
    assert (again["unchanged"], again["rejected"]) == (document["done"], document["rejected"])


def test_an_export_names_the_traces_that_its_format_cannot_hold(cli: Cli, tmp_path: Path) -> None:
    gold = {"gold": {"kind": "gold", "verdicts": [1]}}
    rows = [
        {"id": id, "problem": "p", "steps": [step], "labels": gold}
        for id, step in (("fits", "a"), ("marked", "a \u043a\u0438 b"))
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    argv = ("export", "medprm", tmp_path / "o.json", "--dataset", "d", "--labeler", "gold")
    called = cli(*argv, "--json")
    assert (called.code, called.document["done"]) == (0, 1)
    (left_out,) = called.document["unfit"]
    assert left_out["id"] == "marked"
    assert "step mark" in left_out["reason"]
    words = " ".join(cli(*argv).out.split())
    assert "0 without a label left out, 1 that the format cannot hold" in words
    assert "left out: marked: " in words


def test_one_question_under_two_sources_is_read_back_as_one_problem(
    cli: Cli, tmp_path: Path
) -> None:
    """The second source was rejected: `data_source` made another problem of the same question."""
    gold = {"gold": {"kind": "gold", "verdicts": [1]}}
    rows = [
        {"id": subset, "problem": "p", "steps": ["a"], "subset": subset, "labels": gold}
        for subset in ("one", "two")
    ]
    path, out = tmp_path / "t.jsonl", tmp_path / "o.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    assert cli("export", "medprm", out, "--dataset", "d", "--labeler", "gold").code == 0
    called = cli("import", "medprm", out, "--dataset", "e", "--json")
    assert (called.code, called.document["traces"], called.document["rejected"]) == (0, 2, [])


def test_rated_alternatives_become_training_examples(cli: Cli, tmp_path: Path) -> None:
    def step(*rated: tuple[str, int]) -> dict[str, Any]:
        completions = [{"text": text, "rating": rating, "flagged": None} for text, rating in rated]
        return {"completions": completions, "human_completion": None, "chosen_completion": 0}

    row = {
        "labeler": "l",
        "question": {"problem": "Find x if x + 2 = 5.", "ground_truth_answer": "3"},
        "label": {
            "steps": [
                step(("x = 5 - 2", 1), ("x = 5 + 2", -1), ("x = 7", -1)),
                step(("x = 3", 1), ("x = 4", -1)),
            ],
            "finish_reason": "solution",
        },
    }
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row) + "\n")
    called = cli("import", "prm800k", path, "--dataset", "d", "--alternatives", "--json")
    assert (called.code, called.document["traces"]) == (0, 4)
    out = tmp_path / "o.jsonl"
    cli("export", "trl", out, "--dataset", "d", "--labeler", "gold", "--json")
    written = [json.loads(line) for line in out.read_text().splitlines()]
    examples = {(tuple(each["completions"]), tuple(each["labels"])) for each in written}
    assert examples == {
        (("x = 5 - 2", "x = 3"), (True, True)),
        (("x = 5 + 2",), (False,)),
        (("x = 7",), (False,)),
        (("x = 5 - 2", "x = 4"), (True, False)),
    }
    other = cli("import", "traces", path, "--dataset", "e", "--alternatives", "--json")
    assert (other.code, "--alternatives" in other.document["error"]["remedy"]) == (2, True)


def test_class_probabilities_become_scores_by_column(cli: Cli, tmp_path: Path) -> None:
    traces = tmp_path / "t.jsonl"
    traces.write_text(json.dumps({"id": 7, "problem": "p", "steps": ["a", "b"]}) + "\n")
    cli("import", "traces", traces, "--dataset", "d")
    scores = tmp_path / "s.jsonl"
    scores.write_text(json.dumps({"id": 7, "scores": [[0.1, 0.2, 0.7], [0.8, 0.15, 0.05]]}) + "\n")
    on = ("--dataset", "d", "--json")
    refused = cli("import", "scores", scores, "--labeler", "r", *on)
    assert (refused.code, "--column" in refused.document["error"]["remedy"]) == (2, True)
    for labeler, column, expected in (("v", "1,2", [0.9, 0.2]), ("r", "1", [0.2, 0.15])):
        called = cli("import", "scores", scores, "--labeler", labeler, "--column", column, *on)
        assert (called.code, called.document["done"]) == (0, 1)
        out = tmp_path / f"{labeler}.jsonl"
        cli("export", "traces", out, "--dataset", "d", "--labeler", labeler)
        assert json.loads(out.read_text())["labels"][labeler]["scores"] == pytest.approx(expected)
    wrong = cli("import", "scores", scores, "--labeler", "w", "--column", "3", *on)
    assert (wrong.code, "column 3" in wrong.document["error"]["remedy"]) == (2, True)
