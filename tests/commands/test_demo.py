"""`stepgold demo`: the whole pipeline, its table against `evaluate`, its folder against other seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab of a few problems: this tests the way, not the figures."""
    from stepgold import demo

    monkeypatch.setattr(demo, "PROBLEMS", 6)
    monkeypatch.setattr(demo, "DISTRACTORS", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_demo_ends_with_what_it_promises(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    called = cli("demo", "--out", out, "--seed", "3", "--json")
    assert called.code == 0, called.err
    document = called.document
    assert set(document["labelers"]) == {"judge", "mc", "consensus", "prm", "likelihood"}

    # The figures are those of `evaluate` on the written workspace, to the last digit.
    for name, shown in document["labelers"].items():
        on = ("evaluate", "--dataset", "lab", "--labeler", name, "--json")
        assert cli(*on, workspace=out).document == shown["processbench"]
        assert cli(*on, "--protocol", "macro-f1", workspace=out).document == shown["macro-f1"]
        assert set(shown["processbench"]["subsets"]) == {"corrupted", "sampled"}

    rows = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    kept = sum(
        subset["kept"]["n"]
        for subset in document["labelers"]["consensus"]["processbench"]["subsets"].values()
    )
    assert len(rows) == kept
    assert all(len(row["completions"]) == len(row["labels"]) for row in rows)
    page = (out / "report.html").read_text()
    assert "likelihood" in page
    assert (
        str(document["labelers"]["judge"]["processbench"]["subsets"]["corrupted"]["n_error"])
        in page
    )

    status = cli("status", "--json", workspace=out).document
    labelers = {row["name"]: row for row in status["labelers"]}
    assert labelers["prm"]["resolved_model"] != labelers["likelihood"]["resolved_model"]
    assert labelers["likelihood"]["resolved_model"] == labelers["mc"]["resolved_model"]
    assert labelers["judge"]["resolved_model"] not in {None, labelers["mc"]["resolved_model"]}

    again = cli("demo", "--out", out, "--seed", "3", "--json")
    assert again.code == 0
    assert again.document == document
    other = cli("demo", "--out", out, "--seed", "4")
    assert other.code == 2
    assert "seed 3" in other.err


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_another_seed_is_another_lab(cli: Cli, tmp_path: Path) -> None:
    one = cli("demo", "--out", tmp_path / "1", "--seed", "1", "--json").document["labelers"]
    two = cli("demo", "--out", tmp_path / "2", "--seed", "2", "--json").document["labelers"]
    assert one != two
    assert (tmp_path / "1" / "traces.jsonl").read_text() != (
        tmp_path / "2" / "traces.jsonl"
    ).read_text()


def test_a_folder_that_is_no_demo_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    called = cli("demo", "--out", tmp_path / "mine")
    assert called.code == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
