"""`overlap`: an exported training set and another dataset against an evaluation set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import Cli


@pytest.mark.slow
def test_an_export_of_the_dataset_is_found_in_every_format(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    for format in ("trl", "traces", "math-shepherd"):
        out = tmp_path / f"{format}.jsonl"
        assert cli("export", format, out, "--dataset", "d", "--labeler", "gold").code == 0
        done = cli("overlap", out, "--dataset", "d", "--ngram", "3", "--json")
        assert done.code == 0, format
        document = done.document
        assert document["problems"] == 2
        assert document["counts"]["question_any"] == 2, format
        assert document["rate"] == 1.0
        assert document["matches"][0]["source"] == str(out)
    assert "2 of 2 problems (100.0%) overlap" in cli("overlap", out, "--dataset", "d", "--ngram", "3").out  # fmt: skip


@pytest.mark.slow
def test_another_dataset_and_a_faulty_row(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    cli("import", "traces", traces_file, "--dataset", "d")
    cli("import", "traces", traces_file, "--dataset", "copy")
    document = cli("overlap", "--dataset", "d", "--with", "copy", "--json").document
    assert document["training"] == ["copy"]
    assert document["counts"]["by_id"] == 2
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"prompt": "unlike"}) + "\n{broken\n")
    done = cli("overlap", path, "--dataset", "d", "--json")
    assert done.code == 1
    assert done.document["overlapping"] == 0
    assert [row["line"] for row in done.document["rejected"]] == [2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "No training set to search"),
        (["--with", "d"], "overlaps with itself"),
        (["--with", "e"], "e"),
        (["none.jsonl"], "none.jsonl"),
        (["--with", "d", "--ngram", "0"], "ngram"),
    ],
)
def test_wrong_use_is_refused(cli: Cli, traces_file: Path, argv: list[str], told: str) -> None:
    cli("import", "traces", traces_file, "--dataset", "d")
    done = cli("overlap", *argv, "--dataset", "d")
    assert done.code == 2
    assert told in done.err
