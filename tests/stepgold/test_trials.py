"""Labelers on trial from Python: typed results, the commands' documents, and stored labels as rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stepgold
from tests.commands.labelled_workspace import make_workspace
from traces import InputError

DRAWN = ("--resamples", "50", "--json")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> stepgold.Workspace:
    return stepgold.Workspace(
        make_workspace(tmp_path_factory.mktemp("trials")).resolve(), progress=False
    )


@pytest.fixture
def document(
    workspace: stepgold.Workspace, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """The document of a command on the workspace."""
    from cli import execute

    def call(*argv: str) -> Any:
        capsys.readouterr()
        execute(["--workspace", str(workspace.folder), *argv, *DRAWN])
        return json.loads(capsys.readouterr().out)

    return call


def test_an_evaluation_has_the_figures_of_its_document(
    workspace: stepgold.Workspace, document: Callable[..., Any]
) -> None:
    found = workspace.evaluate(dataset="d", labeler="prm", threshold=0.7, resamples=50)
    expected = document("evaluate", "--dataset", "d", "--labeler", "prm", "--threshold", "0.7")
    assert found.as_json() == expected
    assert found.average.processbench_f1 == expected["average"]["processbench_f1"] == 1.0
    assert found.average.kept.n == expected["average"]["kept"]["n"]
    assert found.average.error_accuracy == 1.0
    assert found.subsets["dev"].processbench_f1 == 1.0
    assert (found.threshold, found.threshold_source, found.missing) == (0.7, "given", 0)
    assert found.diagnostics["step_scores"]["auroc"] == 1.0
    assert found.against is None
    assert [row["subset"] for row in found.rows()] == ["dev", "test", "average"]
    assert "prm: processbench" in repr(found)
    assert "<td>average</td>" in found._repr_html_()


@pytest.mark.parametrize(
    ("protocol", "whole", "parts", "measure"),
    [
        ("macro-f1", "overall", "subsets", "macro_f1"),
        ("prmbench", "overall", "classes", "prmscore"),
        ("mistake", "overall", "subsets", "location_accuracy"),
        ("processbench", "average", "subsets", "processbench_f1"),
    ],
)
def test_a_protocol_has_its_own_names_and_says_so_of_others(
    workspace: stepgold.Workspace, protocol: Any, whole: str, parts: str, measure: str
) -> None:
    found = workspace.evaluate(
        dataset="d", labeler="prm", protocol=protocol, threshold=0.7, resamples=5
    )
    assert getattr(getattr(found, whole), measure) == 1.0
    assert getattr(found, parts).keys() == {"dev", "test"}
    assert found.document[whole][measure] == 1.0
    other = {"average": "overall", "overall": "average"}[whole]
    with pytest.raises(AttributeError, match=f"The protocol {protocol} has no {other}; use "):
        getattr(found, other)
    other = {"subsets": "classes", "classes": "subsets"}[parts]
    with pytest.raises(AttributeError, match=f"The protocol {protocol} has no {other}; use "):
        getattr(found, other)
    assert not hasattr(found, other)
    with pytest.raises(AttributeError, match=f"{protocol} has no mcc_ci95; it has "):
        _ = found.whole.mcc_ci95


def test_a_comparison_has_its_pairs(
    workspace: stepgold.Workspace, document: Callable[..., Any]
) -> None:
    found = workspace.compare(["prm", "judge"], dataset="d", resamples=50, subset="test")
    assert found.as_json() == document(
        "compare", "prm", "judge", "--dataset", "d", "--subset", "test"
    )
    (pair,) = found.pairs
    assert (pair.a, pair.b, pair.n_steps) == ("prm", "judge", 12)
    assert pair.agreement == found.document["pairs"][0]["agreement"]
    assert found.gold == "gold"
    assert found.disagreements == found.document["disagreements"]
    (row,) = found.rows()
    low, agreement, high = (
        row["agreement_ci95_low"], row["agreement"], row["agreement_ci95_high"],
    )  # fmt: skip
    assert low <= agreement <= high
    with pytest.raises(InputError, match="cannot be compared with itself"):
        workspace.compare("prm", dataset="d")


def test_best_of_n_takes_numbers_and_gives_figures_by_n(
    workspace: stepgold.Workspace, document: Callable[..., Any]
) -> None:
    found = workspace.best_of_n(n=[1, 2], dataset="d", labeler="prm", resamples=50)
    assert found.as_json() == document(
        "best-of-n", "-n", "1,2", "--dataset", "d", "--labeler", "prm"
    )
    assert (found.pools, found.candidates) == (6, 12)
    assert found.n[2].min == found.document["n"]["2"]["min"]
    assert found.n[2]["pass"] == 1.0
    assert [row["n"] for row in found.rows()] == [1, 2]
    assert workspace.best_of_n(n=2, dataset="d", labeler="prm", resamples=5).n.keys() == {2}
    for wrong in (0, [], [1, 0], "1;2"):
        with pytest.raises(InputError, match="not a list of positive integers"):
            workspace.best_of_n(n=wrong, dataset="d", labeler="prm")
    with pytest.raises(InputError, match="needs a dataset and a labeler"):
        workspace.best_of_n(n=2, dataset="d")


def test_a_report_says_what_it_wrote(workspace: stepgold.Workspace, tmp_path: Path) -> None:
    page = tmp_path / "r.md"
    found = workspace.report(page, dataset="d", labeler="prm", resamples=5)
    assert (found.format, found.labelers, found.gold) == ("md", ("prm",), "gold")
    assert found.size == page.stat().st_size
    assert found.as_json()["out"] == str(page)
    assert str(found).startswith("report on prm: ")
    other = workspace.report(
        str(tmp_path / "r.html"), dataset="d", labeler="prm", format="csv", resamples=5
    )
    assert other.format == "csv"


def test_labels_are_iterated_and_become_rows_of_steps(workspace: stepgold.Workspace) -> None:
    scores = workspace.labels(dataset="d", labeler="prm")
    assert len(scores) == len(list(scores)) == 12
    first = next(iter(scores))
    rows = list(scores.rows())
    assert len(rows) == 36
    assert rows[1] == {
        "trace_id": "t0", "step_index": 1, "verdict": None,
        "score": first.step_labels[1].score, "abstention": None,
    }  # fmt: skip
    assert repr(scores) == "<LabelsResult\nprm on d: 12 traces labeled, 0 abstained\n>"
    assert "prm on d" in scores._repr_html_()
    gold = list(workspace.labels(dataset="d", labeler="gold").rows())
    assert [row["verdict"] for row in gold[:6]] == [
        "correct", "incorrect", None, "correct", "correct", "correct",
    ]  # fmt: skip
    with pytest.raises(InputError, match="nobody"):
        workspace.labels(dataset="d", labeler="nobody")


def test_an_abstention_stands_on_every_step(workspace: stepgold.Workspace) -> None:
    from traces import AbstentionReason, Labeler, LabelerKind, abstained

    with workspace.open_store() as store:
        store.labels.declare("d", Labeler("silent", LabelerKind.JUDGE, {}))
        store.labels.put("d", "silent", [abstained("t0", AbstentionReason.BLOCKED)])
    rows = list(workspace.labels(dataset="d", labeler="silent").rows())
    with workspace.open_store() as store:
        store.labels.remove_labeler("d", "silent")
    assert [(row["step_index"], row["verdict"], row["abstention"]) for row in rows] == [
        (0, None, "blocked"), (1, None, "blocked"), (2, None, "blocked"),
    ]  # fmt: skip


@pytest.mark.slow  # imports pandas
def test_labels_become_a_frame(workspace: stepgold.Workspace) -> None:
    pandas = pytest.importorskip("pandas")
    frame = workspace.labels(dataset="d", labeler="prm").frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.columns.tolist() == ["trace_id", "step_index", "verdict", "score", "abstention"]
    assert len(frame) == 36
