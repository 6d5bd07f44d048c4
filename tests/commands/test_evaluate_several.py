"""`evaluate` of several labelers: one table, tests against the best; tables in four formats."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path

import pytest

import stepgold
from tests.commands.conftest import Cli
from tests.commands.labelled_workspace import make_workspace

ON = ("evaluate", "--dataset", "d", "--resamples", "50", "--threshold", "0.7")
THREE = ("--labeler", "judge", "--labeler", "prm", "--labeler", "blank")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("several"))


@pytest.fixture
def on(cli: Cli, folder: Path) -> Cli:
    return partial(cli, workspace=folder)


def test_each_labeler_has_the_document_of_its_own_call(on: Cli) -> None:
    several = on(*ON, *THREE, "--json").document
    assert list(several) == ["protocol", "dataset", "gold", "labelers", "best", "paired", "methods"]
    assert list(several["labelers"]) == ["judge", "prm", "blank"]
    for name in ("judge", "prm", "blank"):
        alone = on(*ON, "--labeler", name, "--json").document
        assert alone["labeler"] == name
        # Beside a PRM, a labeler of verdicts keeps the threshold that was given.
        assert several["labelers"][name] == alone


def test_the_best_is_tested_against_each_other(on: Cli) -> None:
    several = on(*ON, *THREE, "--json").document
    assert several["best"] == "prm"
    assert [(pair["a"], pair["b"]) for pair in several["paired"]] == [("prm", "judge"), ("prm", "blank")]  # fmt: skip
    for pair in several["paired"]:
        alone = on(*ON, "--labeler", "prm", "--against", pair["b"], "--json").document["against"]
        assert pair["measures"] == alone["measures"]


def test_gold_is_no_candidate_for_the_best(on: Cli) -> None:
    done = on(*ON, "--labeler", "gold", "--labeler", "judge", "--json").document
    assert done["best"] == "judge"
    assert done["paired"] == []
    words = on(*ON, "--labeler", "gold", "--labeler", "judge").out
    assert "'gold' is compared with itself" in words


def test_four_subsets_fit_a_terminal(cli: Cli, tmp_path: Path) -> None:
    """With nothing missing, the table of ProcessBench has at most 80 columns."""
    names = ("gsm8k", "math", "olympiadbench", "omnimath")
    for subset in names:
        rows = [
            {"id": f"{subset}-{at}", "problem": f"{subset} {at}?", "steps": ["a", "b"], "label": at % 2 - 1}
            for at in range(6)
        ]  # fmt: skip
        (tmp_path / f"{subset}.json").write_text(json.dumps(rows))
    on = partial(cli, workspace=tmp_path / "w")
    files = [tmp_path / f"{subset}.json" for subset in names]
    assert on("import", "processbench", *files, "--dataset", "pb").code == 0
    for number, labeler in enumerate(("one", "two", "three")):
        first = [(f"{subset}-{at}", at % 2 - 1 if at >= number else 1) for subset in names for at in range(6)]  # fmt: skip
        lines = [json.dumps({"id": id, "first_error": None if at < 0 else at}) for id, at in first]
        (tmp_path / "scores.jsonl").write_text("\n".join(lines))
        scores = ("import", "scores", tmp_path / "scores.jsonl", "--dataset", "pb")
        assert on(*scores, "--labeler", labeler).code == 0
    asked = ("--labeler", "one", "--labeler", "two", "--labeler", "three", "--resamples", "20")
    table = on("evaluate", "--dataset", "pb", *asked).out.splitlines()[1:9]
    assert table[0].split() == ["labeler", *names, "average"]
    assert max(map(len, table)) <= 80
    document = on("evaluate", "--dataset", "pb", *asked, "--json").document
    for found in document["labelers"].values():
        parts = [part["processbench_f1"] for part in found["subsets"].values()]
        assert found["average"]["processbench_f1"] == pytest.approx(sum(parts) / 4)


def test_the_table_has_a_row_per_labeler_and_floor(on: Cli) -> None:
    lines = on(*ON, *THREE).out.splitlines()
    assert lines[1].split() == ["labeler", "dev", "test", "average", "missing"]
    assert [line.split()[0] for line in lines[2:5]] == ["judge", "prm", "blank"]
    assert "floor position" in lines[7]
    assert max(map(len, lines[1:9])) <= 80
    assert any(line.startswith("processbench_f1 of prm - judge: +") for line in lines)
    assert any("p is not corrected for 2 tests" in line for line in lines)


@pytest.mark.parametrize("protocol", ["macro-f1", "prmbench", "balanced-f1", "mistake", "mr-ben"])
def test_every_protocol_has_the_table(on: Cli, protocol: str) -> None:
    done = on(*ON, *THREE, "--protocol", protocol, "--format", "csv")
    assert done.code == 0
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["labeler"] for row in rows[:3]] == ["judge", "prm", "blank"]
    assert [row["kind"] for row in rows[3:]] == ["floor"] * 4


def test_csv_has_the_figures_of_the_document_with_all_digits(on: Cli) -> None:
    document = on(*ON, *THREE, "--json").document
    rows = list(csv.DictReader(io.StringIO(on(*ON, *THREE, "--format", "csv").out)))
    for row in rows[:3]:
        each = document["labelers"][row["labeler"]]
        assert float(row["processbench_f1"]) == each["average"]["processbench_f1"]
        low = each["average"]["ci95"][0]
        assert float(row["processbench_f1_ci95_low"]) == low
        for subset, part in each["subsets"].items():
            assert float(row[f"processbench_f1_{subset}"]) == part["processbench_f1"]
        assert int(row["missing"]) == each["average"].get("missing", int(row["missing"]))
    apart = document["paired"][0]["measures"]["processbench_f1"]
    assert float(rows[0]["difference"]) == -apart["difference"]
    assert float(rows[0]["difference_ci95_low"]) == -apart["ci95"][1]
    assert float(rows[0]["p_value"]) == apart["p_value"]
    assert (rows[1]["difference"], rows[3]["missing"]) == ("", "")


def test_markdown_and_latex_set_the_best_in_bold(on: Cli) -> None:
    markdown = on(*ON, *THREE, "--format", "md").out
    assert r"| prm | **1.000** | **1.000** | **1.000 \[1.000, 1.000\]** | 0 | best |" in markdown
    latex = on(*ON, *THREE, "--format", "tex").out
    assert latex.count(r"\textbf{") == 3
    assert r"prm & \textbf{1.000} & \textbf{1.000} & \textbf{1.000 [1.000, 1.000]}" in latex
    assert latex.index(r"\toprule") < latex.index(r"\midrule") < latex.index("floor no-error")
    assert r"processbench\_f1" not in latex.partition(r"\toprule")[2]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("evaluate", "--dataset", "d", "--labeler", "prm"), "average & 12 &"),
        (("compare", "--dataset", "d", "gold", "prm"), "gold / prm & 30 &"),
        (("best-of-n", "--dataset", "d", "--labeler", "prm", "-n", "1,2"), "N & min & product"),
    ],
)
def test_other_tables_are_printed_in_every_format(
    on: Cli, command: tuple[str, ...], told: str
) -> None:
    few = (*command, "--resamples", "50", "--format")
    latex = on(*few, "tex")
    assert latex.code == 0
    assert told in latex.out
    assert told.replace("&", "|") in on(*few, "md").out
    assert len(list(csv.DictReader(io.StringIO(on(*few, "csv").out)))) >= 1


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (("--labeler", "prm", "--labeler", "prm"), "Labeler 'prm' is named twice"),
        ((*THREE, "--against", "gold"), "compared with the best"),
        ((*THREE, "--format", "xlsx"), "xlsx"),
        (("--labeler", "prm", "--labeler", "nobody"), "nobody"),
    ],
)
def test_wrong_wishes_are_refused(on: Cli, wish: tuple[str, ...], told: str) -> None:
    done = on(*ON, *wish)
    assert done.code == 2
    assert told in done.err


def test_python_gives_the_same_document_and_table(on: Cli, folder: Path) -> None:
    ws = stepgold.Workspace(folder)
    few = {"threshold": 0.7, "resamples": 50}
    several = ws.evaluate(dataset="d", labeler=["judge", "prm", "blank"], **few)
    assert several.as_json() == on(*ON, *THREE, "--json").document
    assert several.best == "prm"
    assert several.labelers["prm"].average.processbench_f1 == 1.0
    assert str(several) == on(*ON, *THREE).out.rstrip("\n")
    assert "<td>judge</td>" in several._repr_html_()
    one = ws.evaluate(dataset="d", labeler="prm", threshold=0.7, resamples=50, format="tex")
    assert one.labelers == {"prm": one}
    assert str(one).startswith("% prm:")
    assert one.average.processbench_f1 == 1.0
