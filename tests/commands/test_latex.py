"""LaTeX tables compile, and the figures on the page are those of `evaluate --json`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Cli
from tests.commands.labelled_workspace import make_workspace

ON = ("--dataset", "d", "--resamples", "50", "--threshold", "0.7")
NAMES = ("prm", "judge", "blank")
LABELERS = [part for name in NAMES for part in ("--labeler", name)]
PAGE = r"""\documentclass[landscape]{article}
\usepackage[margin=1cm]{geometry}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("latex"))


@pytest.fixture
def on(cli: Cli, folder: Path) -> Cli:
    return partial(cli, workspace=folder)


def printed(file: Path) -> str:
    """The text of the compiled file."""
    from pypdf import PdfReader

    if shutil.which("tectonic"):
        command = ["tectonic", file.name]
    elif shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", file.name]
    else:
        pytest.skip("neither tectonic nor pdflatex is installed")
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    pages = PdfReader(file.with_suffix(".pdf")).pages
    return "".join("".join(page.extract_text().split()) for page in pages)


def shown(figures: Mapping[str, Any]) -> str:
    """The headline figure with its interval as the page has it, without spaces."""
    low, high = figures["ci95"]
    return f"{figures['processbench_f1']:.3f}[{low:.3f},{high:.3f}]"


@pytest.mark.slow
def test_the_table_of_several_labelers_compiles(on: Cli, tmp_path: Path) -> None:
    file = tmp_path / "table.tex"
    file.write_text(PAGE % on("evaluate", *ON, *LABELERS, "--format", "tex").out)
    text = printed(file)
    document = on("evaluate", *ON, *LABELERS, "--json").document
    for name in NAMES:
        found = document["labelers"][name]
        row = [f"{part['processbench_f1']:.3f}" for part in found["subsets"].values()]
        assert f"{name}{''.join(row)}{shown(found['average'])}" in text
    chance = document["labelers"]["prm"]["floors"]["chance"]
    parts = [part["processbench_f1"] for part in chance["subsets"].values()]
    row = [f"{value:.3f}" for value in (*parts, chance["processbench_f1"])]
    assert f"floorchance{''.join(row)}" in text
    for pair in document["paired"]:
        apart = pair["measures"]["processbench_f1"]
        assert f"{-apart['difference']:.3f}".removeprefix("-") in text
        assert f"{apart['p_value']:.3f}" in text


@pytest.mark.slow
def test_the_report_compiles(on: Cli, tmp_path: Path) -> None:
    file = tmp_path / "report.tex"
    assert on("report", file, *ON).code == 0
    text = printed(file)
    for name in NAMES:
        document = on("evaluate", *ON, "--labeler", name, "--json").document
        for figures in (document["average"], *document["subsets"].values()):
            assert f"{name}{shown(figures)}" in text
    assert "Krippendorff" in text


@pytest.mark.slow
def test_hostile_names_compile(tmp_path: Path) -> None:
    """Signs with a meaning in LaTeX are shown as they are, also at the start of a row."""
    from evaluation import FigureTable

    names = ["[0.5] 50%", "*a_b^c", r"\input{x}", "#1 & $x$ ~ <|>"]
    table = FigureTable(title="t\nu", head=("name", "n"), rows=[(name, "-0.100") for name in names])
    file = tmp_path / "names.tex"
    file.write_text(PAGE % table.latex())
    text = printed(file)
    assert "[0.5]50%" in text
    assert "input" in text
    assert "#1&$x$" in text


@pytest.mark.parametrize("name", ["r.pdf", "r.docx", "r.txt"])
def test_a_report_with_an_unknown_ending_is_refused(on: Cli, tmp_path: Path, name: str) -> None:
    done = on("report", tmp_path / name, "--dataset", "d", "--resamples", "5")
    assert done.code == 2
    assert ".html, .md, .json, .csv, .tex" in done.err
    assert not (tmp_path / name).exists()
    # The remedy: choose the format.
    few = ("--dataset", "d", "--resamples", "5", "--format", "md")
    assert on("report", tmp_path / name, *few).code == 0
    assert (tmp_path / name).read_text().startswith("# ")


@pytest.mark.parametrize("name", ["x.csv", "x.txt", "x.csv.gz", "x.tsv"])
def test_an_export_with_an_unknown_ending_is_refused(on: Cli, tmp_path: Path, name: str) -> None:
    asked = ("--dataset", "d", "--labeler", "gold")
    done = on("export", "trl", tmp_path / name, *asked)
    assert done.code == 2
    assert ".jsonl, .json, .jsonl.gz or .json.gz" in done.err
    assert not (tmp_path / name).exists()
    for known in ("x", "x.jsonl", "x.json.gz"):
        assert on("export", "trl", tmp_path / known, *asked).code == 0
