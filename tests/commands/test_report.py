"""`stepgold report`: figures equal to `evaluate --json`, four formats, thresholds said, bad input."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.commands.conftest import Cli
from tests.commands.labelled_workspace import make_workspace
from tests.commands.report_page_reader import Figures, expected_figures

RESAMPLED = ("--resamples", "50", "--seed", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize(
    "wish",
    [
        (),
        pytest.param(("--threshold", "fit:d/dev", "--in-sample"), marks=pytest.mark.slow),
    ],
)
def test_every_figure_is_that_of_evaluate(
    cli: Cli, folder: Path, tmp_path: Path, wish: tuple[str, ...]
) -> None:
    page = tmp_path / "r.html"
    done = cli("report", page, "--dataset", "d", *RESAMPLED, *wish, "--json", workspace=folder)
    assert done.code == 0
    assert done.document["labelers"] == ["prm", "judge", "blank"]
    assert done.document["bytes"] == page.stat().st_size
    shown = Figures(page.read_text()).found
    checked = 0
    for labeler in ("prm", "judge", "blank"):
        # A labeler of verdicts takes no threshold, on the page as in `--against`.
        asked = wish if labeler == "prm" else ()
        on = ("evaluate", "--dataset", "d", "--labeler", labeler, *RESAMPLED, "--json")
        first = cli(*on, *asked, workspace=folder).document
        # The page fits one threshold for processbench_f1; macro-f1 alone would fit for its own measure.
        same = ("--threshold", str(first["threshold"])) if asked else ()
        macro = cli(*on, *same, "--protocol", "macro-f1", workspace=folder).document
        for key, figures in expected_figures(labeler, first, macro).items():
            assert shown[key] == figures, key
            checked += 1
    assert checked > 60


def test_best_of_n_and_agreement_are_those_of_their_commands(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "r.json"
    cli("report", page, "--dataset", "d", *RESAMPLED, workspace=folder)
    document = json.loads(page.read_text())
    compared = cli(
        "compare", "--dataset", "d", "gold", "prm", "judge", "blank", *RESAMPLED, "--json",
        workspace=folder,
    ).document  # fmt: skip
    for shown, pair in zip(document["comparison"]["pairs"], compared["pairs"], strict=True):
        assert shown | {"paired": None} == pair | {"paired": None}
    assert document["comparison"]["krippendorff_alpha"] == compared["krippendorff_alpha"]
    assert document["disagreements_total"] == compared["disagreements_total"]
    parts = [part for part in document["best_of_n"] if part["labeler"] == "prm"]
    assert [part["subset"] for part in parts] == ["dev", "test"]
    for part in parts:
        on = ("best-of-n", "--dataset", "d", "--labeler", "prm", "--subset", part["subset"])
        alone = cli(*on, "-n", "1,2", "--expected", *RESAMPLED, "--json", workspace=folder).document
        assert part["n"] == alone["n"]
        assert (part["pools"], part["candidates"]) == (3, 6)


def test_candidates_of_different_subsets_are_never_mixed(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "r.json"
    on = ("report", page, "--dataset", "d", *RESAMPLED)
    assert cli(*on, "--candidates", "dev", workspace=folder).code == 0
    shown = json.loads(page.read_text())["best_of_n"]
    assert {part["subset"] for part in shown} == {"dev"}
    assert shown[0]["pools"] == 3
    refused = cli(*on, "--candidates", "train", workspace=folder)
    assert refused.code == 2
    assert "dev, test" in refused.err


def test_a_threshold_fitted_in_sample_is_said_on_the_page(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    on = ("report", tmp_path / "r.html", "--dataset", "d", *RESAMPLED, "--threshold", "fit:d/dev")
    refused = cli(*on, workspace=folder)
    assert refused.code == 2
    assert "--in-sample" in refused.err
    assert not (tmp_path / "r.html").exists()
    assert cli(*on, "--in-sample", workspace=folder).code == 0
    page = (tmp_path / "r.html").read_text()
    assert "fit:d/dev (in-sample: dev)" in page
    assert "its figures are optimistic" in page
    assert "none needed: verdicts" in page


@pytest.mark.slow
def test_the_format_follows_the_ending_or_the_option(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    on = ("--dataset", "d", "--labeler", "prm", *RESAMPLED)
    for name, beginning in (("r.md", "# StepGold report"), ("r.csv", "dataset,"), ("r.json", "{"), ("r.html", "<!DOCTYPE")):  # fmt: skip
        assert cli("report", tmp_path / name, *on, workspace=folder).code == 0
        assert (tmp_path / name).read_text().lstrip().startswith(beginning)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    first = cli("evaluate", *on, "--json", workspace=folder).document
    (found,) = [
        row
        for row in rows
        if (row["subset"], row["measure"], row["labeler"]) == ("dev", "error_accuracy", "prm")
    ]
    assert float(found["value"]) == first["subsets"]["dev"]["error_accuracy"]
    assert cli("report", tmp_path / "r.md", *on, "--format", "csv", workspace=folder).code == 0
    assert (tmp_path / "r.md").read_text().startswith("dataset,")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--format", "pdf"], "'pdf' is not a value of --format"),
        (["--labeler", "nobody"], "nobody"),
        (["--gold", "nobody"], "nobody"),
        (["--threshold", "2"], "not a threshold"),
        (["--examples", "-1"], "examples"),
    ],
)
def test_bad_input_leaves_no_file(
    cli: Cli, folder: Path, tmp_path: Path, argv: list[str], told: str
) -> None:
    done = cli("report", tmp_path / "r.html", "--dataset", "d", *argv, workspace=folder)
    assert done.code == 2
    assert told in done.err
    assert list(tmp_path.glob("r*")) == []


def test_a_folder_that_is_not_there_is_named(cli: Cli, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "none" / "r.html"
    done = cli("report", out, "--dataset", "d", "--resamples", "10", workspace=folder)
    assert done.code == 2
    assert "cannot be written" in done.err


def test_a_dataset_without_labels_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bare.jsonl"
    file.write_text(json.dumps({"id": "a", "problem": "1+1?", "steps": ["2"]}) + "\n")
    assert cli("import", "traces", file, "--dataset", "bare").code == 0
    done = cli("report", tmp_path / "r.html", "--dataset", "bare")
    assert done.code == 2
    assert "no labels" in done.err


def test_labelers_without_gold_are_still_compared(cli: Cli, tmp_path: Path) -> None:
    file, scores = tmp_path / "bare.jsonl", tmp_path / "s.jsonl"
    file.write_text(json.dumps({"id": "a", "problem": "1+1?", "steps": ["2", "so 2"]}) + "\n")
    cli("import", "traces", file, "--dataset", "bare")
    for name, verdicts in (("one", [1, -1]), ("two", [1, 1])):
        scores.write_text(json.dumps({"id": "a", "verdicts": verdicts}) + "\n")
        assert cli("import", "scores", scores, "--dataset", "bare", "--labeler", name).code == 0
    done = cli("report", tmp_path / "r.html", "--dataset", "bare", "--json")
    assert (done.code, done.document["gold"]) == (0, None)
    page = (tmp_path / "r.html").read_text()
    assert "without gold" in page
    assert 'data-measure="cohen_kappa"' in page


@pytest.mark.parametrize("argv", [["--subset", "train"], ["--subset", "dev", "--pool", "p"]])
def test_a_subset_of_candidates_that_is_not_there(cli: Cli, folder: Path, argv: list[str]) -> None:
    on = ("best-of-n", "--dataset", "d", "--labeler", "prm", "-n", "1")
    assert cli(*on, *argv, workspace=folder).code == 2


def test_figures_are_written_as_three_files_each(cli: Cli, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("svglib", reason="needs the extra figures")
    on = ("report", tmp_path / "r.md", "--dataset", "d", "--figures", tmp_path / "f", *RESAMPLED)
    done = cli(*on, "--json", workspace=folder)
    assert done.code == 0
    files = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert sorted(Path(path).name for path in done.document["figures"]) == files
    assert {"thresholds.svg", "thresholds.pdf", "thresholds.csv"} <= set(files)
    assert f"{len(files) // 3} charts as SVG, PDF and CSV" in cli(*on, workspace=folder).out
    assert "## Methods" in (tmp_path / "r.md").read_text()


def test_a_folder_for_figures_that_is_a_file_is_refused(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("")
    on = ("report", tmp_path / "r.md", "--dataset", "d", "--figures", tmp_path / "f", *RESAMPLED)
    done = cli(*on, workspace=folder)
    assert done.code == 2
    assert "figures cannot be written" in done.err
    assert not (tmp_path / "r.md").exists()


def test_evaluate_adds_a_methods_paragraph(cli: Cli, folder: Path) -> None:
    on = ("evaluate", "--dataset", "d", "--labeler", "prm", *RESAMPLED)
    found = cli(*on, "--json", workspace=folder).document["methods"]
    assert "12 traces of 6 problems" in found["text"]
    shown = cli(*on, "--methods", workspace=folder).out
    assert found["text"] in shown
    assert found["bibtex"] in shown
    assert found["text"] not in cli(*on, workspace=folder).out
    refused = cli(*on, "--methods", "--format", "csv", workspace=folder)
    assert refused.code == 2
    assert "use --format text, md or tex" in refused.err
