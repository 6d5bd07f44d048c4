"""Third-party scores: oracle and constant rows give the figures that the definitions say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_processbench_gsm8k(cli: Cli, real_data: Path, tmp_path: Path) -> None:
    source = real_data / "processbench" / "gsm8k.json"
    on = ("--dataset", "pb", "--json")
    imported = cli("import", "processbench", source, "--subset", "gsm8k", *on)
    assert imported.code == 0
    assert [
        imported.document[key] for key in ("traces", "with_error", "without_error", "unlabelled")
    ] == [400, 207, 193, 0]

    truth = json.loads(source.read_text())
    oracle = write(
        tmp_path / "oracle.jsonl",
        [{"id": r["id"], "first_error": None if r["label"] == -1 else r["label"]} for r in truth],
    )
    silent = write(
        tmp_path / "silent.jsonl",
        [{"id": r["id"], "verdicts": [1] * len(r["steps"])} for r in truth],
    )
    assert cli("import", "scores", oracle, "--labeler", "oracle", *on).code == 0
    assert cli("import", "scores", silent, "--labeler", "silent", *on).code == 0

    perfect = cli("evaluate", "--labeler", "oracle", *on).document["subsets"]["gsm8k"]
    assert (perfect["n_error"], perfect["n_correct"]) == (207, 193)
    assert perfect["processbench_f1"] == perfect["kept"]["first_error_precision"] == 1.0
    nothing = cli("evaluate", "--labeler", "silent", *on).document
    assert nothing["subsets"]["gsm8k"]["correct_accuracy"] == 1.0
    assert (
        nothing["subsets"]["gsm8k"]["processbench_f1"]
        == nothing["average"]["processbench_f1"]
        == 0.0
    )


@pytest.mark.slow
def test_mr_ben_biology(cli: Cli, real_data: Path) -> None:
    called = cli(
        "import", "mr-ben", real_data / "mr_ben" / "biology.json", "--dataset", "bio", "--json"
    )
    assert called.code == 1
    assert called.document["traces"] == 1035
    assert called.document["notes"]
    assert called.document["unlabelled"] == len(called.document["notes"])
    status = cli("status", "--json").document
    assert (
        sum(f["reason"] == "gold_unusable" for f in status["failures"])
        == called.document["unlabelled"]
    )


def test_scores_are_matched_by_id_and_never_zipped(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    rows = [
        {"id": "b", "scores": [0.2, 0.9]},
        {"id": "a", "scores": [0.9]},
        {"id": "nobody", "scores": [0.5]},
    ]
    called = cli(
        "import",
        "scores",
        write(tmp_path / "s.jsonl", rows),
        "--dataset",
        "d",
        "--labeler",
        "mine",
        "--json",
    )
    assert called.code == 1
    assert called.document["done"] == 1
    assert sorted(row["id"] for row in called.document["rejected"]) == ["a", "c", "nobody"]
    assert called.document["failed"] == 2, "traces without a word: done and failed are all traces"
    document = cli("evaluate", "--dataset", "d", "--labeler", "mine", "--json").document
    row = document["subsets"]["default"]
    assert (row["error_accuracy"], row["correct_accuracy"], row["missing"]) == (0.5, 0.0, 2)


def test_a_score_at_the_threshold_is_correct(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    rows = [
        {"id": "a", "scores": [0.5, 0.5]},
        {"id": "b", "scores": [0.49, 1]},
        {"id": "c", "scores": [0.5, 0.1, 0.1]},
    ]
    cli(
        "import", "scores", write(tmp_path / "s.jsonl", rows), "--dataset", "d", "--labeler", "mine"
    )
    on = ("evaluate", "--dataset", "d", "--labeler", "mine", "--json")
    assert cli(*on).document["average"]["processbench_f1"] == 1.0
    assert cli(*on, "--threshold", "0.6").document["subsets"]["default"]["correct_accuracy"] == 0.0


def test_a_file_that_fits_nothing_is_refused(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    path = write(tmp_path / "s.jsonl", [{"id": "nobody", "scores": [0.5]}])
    assert cli("import", "scores", path, "--dataset", "d", "--labeler", "mine").code == 2
    assert [row["name"] for row in cli("status", "--json").document["labelers"]] == ["gold"]


def test_status_lists_the_traces_that_imported_scores_have_no_row_for(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    scores = write(
        tmp_path / "s.jsonl",
        [{"id": "a", "scores": [0.9, 0.8]}, {"id": "b", "scores": [0.9]}],
    )
    imported = cli("import", "scores", scores, "--dataset", "d", "--labeler", "prm", "--json")
    assert (imported.code, imported.document["failed"]) == (1, 2)
    listed = cli("status", "--json").document["failures"]
    assert [(each["id"], each["stage"], each["reason"]) for each in listed] == [
        ("b", "prm", "no_row"), ("c", "prm", "no_row")
    ]  # fmt: skip
    assert "missing: d/c: prm: no_row" in cli("status").out
    rest = write(tmp_path / "t.jsonl", [{"id": "c", "scores": [0.9, 0.8, 0.7]}])
    both = (scores, rest, "--dataset", "d", "--labeler", "prm", "--replace")
    assert cli("import", "scores", *both).code == 1
    assert [each["id"] for each in cli("status", "--json").document["failures"]] == ["b"]
