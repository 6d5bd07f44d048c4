"""`consensus` where its two labelers differ in what they cover, or were replaced since."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
ON = ("--dataset", "d")


def says(cli: Cli, path: Path, name: str, kind: str, words: dict[str, int | None]) -> None:
    """Let a labeler name first errors."""
    rows = (json.dumps({"id": key, "first_error": index}) for key, index in words.items())
    path.write_text("".join(f"{row}\n" for row in rows))
    labeler = ("--labeler", name, "--kind", kind)
    assert cli("import", "scores", path, *ON, *labeler, "--replace").code in (0, 1)


def agree(cli: Cli, *more: str) -> Any:
    return cli("consensus", *ON, "--judge", "judge", "--mc", "mc", "--json", *more)


@pytest.mark.slow
def test_traces_that_one_labeler_has_not_reached_stay_missing(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    assert cli("import", "traces", traces_file, *ON).code == 0
    says(cli, tmp_path / "j.jsonl", "judge", "judge", {"a": None, "b": 0, "c": 1})
    says(cli, tmp_path / "m.jsonl", "mc", "mc", {"a": None})
    pilot = agree(cli)
    counts = {key: pilot.document[key] for key in ("done", "unchanged", "failed", "abstained")}
    assert (pilot.code, counts) == (1, {"done": 1, "unchanged": 0, "failed": 2, "abstained": {}})
    assert agree(cli, "--limit", "1").code == 0
    again = agree(cli)
    assert (again.code, again.document["unchanged"], again.document["failed"]) == (1, 1, 2)
    assert "consensus" not in again.err, "no progress bar where there is nothing to do"


@pytest.mark.slow
def test_a_replaced_judge_is_another_one_for_its_consensus(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    assert cli("import", "traces", traces_file, *ON).code == 0
    says(cli, tmp_path / "j.jsonl", "judge", "judge", {"a": 0, "b": 1, "c": 0})
    says(cli, tmp_path / "m.jsonl", "mc", "mc", {"a": None, "b": 0, "c": 1})
    assert agree(cli).document["abstained"] == {"disagreement": 3}
    says(cli, tmp_path / "j.jsonl", "judge", "judge", {"a": None, "b": 0, "c": 1})
    stale = agree(cli)
    assert stale.code == 2
    assert "--replace" in stale.document["error"]["remedy"]
    assert agree(cli, "--replace").document["done"] == 3


@pytest.mark.slow
def test_an_export_counts_what_its_labeler_has_not_reached(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    assert cli("import", "traces", traces_file, *ON).code == 0
    says(cli, tmp_path / "m.jsonl", "mc", "mc", {"a": None})
    export = ("export", "traces", tmp_path / "out.jsonl", *ON, "--labeler", "mc")
    assert "1 trace written" in (said := cli(*export)).out
    assert "2 without a label" in said.out
    assert cli(*export, "--json").document["failed"] == 2


@pytest.mark.slow
def test_the_first_zero_rule_is_another_consensus(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    assert cli("import", "traces", traces_file, *ON).code == 0
    for name in ("judge", "mc"):
        says(cli, tmp_path / f"{name}.jsonl", name, name, {"a": None, "b": 0, "c": 1})
    assert agree(cli).document["done"] == 3
    assert agree(cli, "--after-first-error", "incorrect").code == 2
    assert agree(cli, "--after-first-error", "zero").code == 2
    zeroed = agree(cli, "--after-first-error", "incorrect", "--name", "zeroed")
    assert (zeroed.code, zeroed.document["done"]) == (0, 3)
    for labeler, verdicts in (("consensus", [1, -1, None]), ("zeroed", [1, -1, -1])):
        out = tmp_path / f"{labeler}.jsonl"
        assert cli("export", "traces", out, *ON, "--labeler", labeler).code == 0
        rows = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
        assert rows["c"]["labels"][labeler]["verdicts"] == verdicts


@pytest.mark.parametrize(
    ("judge", "mc", "name", "what"),
    [
        ("judge", "judge", "c", "with itself"),
        ("judge", "mc", "judge", "made from"),
        ("judge", "mc", "mc", "made from"),
    ],
)
def test_a_consensus_takes_three_names(cli: Cli, judge: str, mc: str, name: str, what: str) -> None:
    """With --replace the votes that it is made from would be lost to it."""
    argv = ["--dataset", "d", "--judge", judge, "--mc", mc, "--name", name, "--replace"]
    called = cli("consensus", *argv, "--json")
    assert called.code == 2
    assert what in called.document["error"]["what"]
