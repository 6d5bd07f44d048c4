"""`stepgold compare`: the contract's document, thresholds, disagreements with evidence, bad input."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.commands.conftest import Cli
from tests.commands.labelled_workspace import EVIL, make_workspace

PAIR = {"a", "b", "n_steps", "agreement", "cohen_kappa", "pearson", "first_error_agreement"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("compare"))


ON = ("compare", "--dataset", "d", "--resamples", "50")


def test_the_document_is_the_contracts(cli: Cli, folder: Path) -> None:
    done = cli(*ON, "prm", "judge", "gold", "--json", workspace=folder)
    assert done.code == 0
    document = done.document
    assert [(pair["a"], pair["b"]) for pair in document["pairs"]] == [
        ("prm", "judge"), ("prm", "gold"), ("judge", "gold"),
    ]  # fmt: skip
    assert all(pair.keys() >= PAIR for pair in document["pairs"])
    assert document["krippendorff_alpha"] is not None
    # At .5 the PRM sees no error: it parts from the judge on the five that the judge sees.
    first, second, third = document["pairs"]
    assert (first["n_steps"], first["agreement"]) == (24, pytest.approx(19 / 24))
    assert second["first_errors"]["missed"] == 6
    assert (third["first_errors"]["of"], third["first_errors"]["missing"]) == ("judge", 7)
    assert first["paired"]["processbench_f1"]["n_traces"] == 12
    assert second["paired"] is None
    assert (first["pearson"], first["cohen_kappa"]) == (None, 0.0)


def test_the_f1_of_each_labeler_is_that_of_evaluate(cli: Cli, folder: Path) -> None:
    found = cli(*ON, "prm", "judge", "gold", "--json", workspace=folder).document["against_gold"]
    assert list(found) == ["prm", "judge"]
    shown = cli(*ON, "prm", "judge", "gold", "--disagreements", "0", workspace=folder).out
    for name, figures in found.items():
        alone = ("evaluate", "--dataset", "d", "--labeler", name, "--resamples", "50", "--json")
        first = cli(*alone, workspace=folder).document["average"]
        steps = cli(*alone, "--protocol", "macro-f1", workspace=folder).document["overall"]
        assert (figures["processbench_f1"], figures["ci95"]) == (
            first["processbench_f1"],
            first["ci95"],
        )
        assert figures["macro_f1"] == steps["macro_f1"]
        assert f"{figures['macro_f1']:.3f}" in shown
    assert max(map(len, shown.splitlines()[:-4])) <= 87
    assert "processbench_f1" in shown
    rows = list(
        csv.DictReader(
            io.StringIO(cli(*ON, "prm", "gold", "--format", "csv", workspace=folder).out)
        )
    )
    assert float(rows[0]["processbench_f1_a"]) == found["prm"]["processbench_f1"]


@pytest.mark.slow
def test_disagreements_are_bounded_and_counted(cli: Cli, folder: Path) -> None:
    on = (*ON, "prm", "judge", "--disagreements", "2")
    document = cli(*on, "--json", workspace=folder).document
    assert document["disagreements_total"] == {"traces": 5, "steps": 5}
    assert len(document["disagreements"]) == 2
    entry = document["disagreements"][0]
    assert entry["steps"][0]["text"] == f"two <2> {EVIL}"
    assert entry["steps"][0]["labels"]["judge"]["verdict"] == "incorrect"
    assert entry["evidence"][0]["text"] == f"passage 1 {EVIL}"
    words = cli(*on, workspace=folder).out
    assert "They disagree on 5 steps of 5 traces; 2 traces follow" in words
    assert "passage 1" in words
    none = cli(*ON, "prm", "judge", "--disagreements", "0", "--json", workspace=folder).document
    assert none["disagreements"] == []


@pytest.mark.slow
def test_a_fitted_threshold_is_said_and_verdicts_need_none(cli: Cli, folder: Path) -> None:
    on = (*ON, "prm", "judge", "--threshold", "fit:d/dev", "--subset", "test")
    document = cli(*on, "--json", workspace=folder).document
    assert document["thresholds"]["prm"]["threshold"] == pytest.approx(0.7)
    assert document["thresholds"]["prm"]["threshold_source"] == "fit:d/dev"
    assert document["thresholds"]["judge"]["threshold_source"] == "none needed: verdicts"
    assert document["pairs"][0]["agreement"] == 1.0
    assert "threshold of prm: 0.7 from fit:d/dev" in cli(*on, workspace=folder).out
    refused = cli(*ON, "prm", "judge", "--threshold", "fit:d/dev", workspace=folder)
    assert refused.code == 2
    assert "--in-sample" in refused.err


def test_a_labeler_without_a_word_leaves_its_pairs_undefined(cli: Cli, folder: Path) -> None:
    document = cli(*ON, "prm", "blank", "--json", workspace=folder).document
    (pair,) = document["pairs"]
    assert (pair["n_steps"], pair["agreement"], pair["cohen_kappa"]) == (0, None, None)
    assert document["krippendorff_alpha"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["prm"], "cannot be compared with itself"),
        (["prm", "prm"], "named twice"),
        (["prm", "nobody"], "nobody"),
        (["prm", "judge", "--gold", "nobody"], "nobody"),
        (["prm", "judge", "--subset", "train"], "no subset 'train'"),
        (["prm", "judge", "--disagreements", "-1"], "disagreements"),
        (["prm", "judge", "--threshold", "2"], "not a threshold"),
    ],
)
def test_bad_input(cli: Cli, folder: Path, argv: list[str], told: str) -> None:
    done = cli(*ON, *argv, workspace=folder)
    assert done.code == 2
    assert told in done.err


def test_an_unknown_dataset_is_named(cli: Cli, folder: Path) -> None:
    done = cli("compare", "--dataset", "x", "a", "b", "--json", workspace=folder)
    assert done.code == 2
    assert "'x'" in done.document["error"]["what"]
