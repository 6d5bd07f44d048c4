"""Import, scores and export from Python: the same documents as the commands, and typed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stepgold
from tests.commands.conftest import Cli
from traces import InputError, LabelerKind


def timeless(document: dict[str, Any]) -> dict[str, Any]:
    """A document without what differs from run to run."""
    return {name: value for name, value in document.items() if name != "seconds"}


def workspace(path: Path) -> stepgold.Workspace:
    return stepgold.Workspace(path, progress=False)


def scores_file(path: Path) -> Path:
    rows = [{"id": "a", "scores": [0.9, 0.8]}, {"id": "zz", "scores": [0.1]}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.slow
def test_an_import_is_the_commands(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    ws = workspace(tmp_path / "api")
    result = ws.import_("traces", traces_file, dataset="d")
    assert (result.done, result.traces, result.with_error, result.rejected) == (3, 3, 2, ())
    assert result.exit_code == 0
    called = cli("import", "traces", traces_file, "--dataset", "d", "--json")
    assert timeless(called.document) == timeless(result.as_json())
    again = ws.import_("traces", [str(traces_file)], dataset="d")
    assert (again.done, again.unchanged) == (0, 3)
    assert "3 new" in str(result)
    assert repr(result).startswith("<ImportResult")
    assert result._repr_html_().startswith("<pre>")


def test_scores_are_the_commands_under_both_names(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    scores = scores_file(tmp_path / "scores.jsonl")
    documents = []
    for name in ("one", "two"):
        ws = workspace(tmp_path / name)
        ws.import_("traces", traces_file, dataset="d")
        if name == "one":
            result = ws.import_scores(scores, dataset="d", labeler="p", kind=LabelerKind.PRM)
            assert (result.scored, result.unusable, result.failed) == (1, 1, 2)
            assert [row.id for row in result.rejected] == ["zz", "b", "c"]
            assert result.exit_code == 1
            documents.append(result.as_json())
        else:
            both = ws.import_("scores", scores, dataset="d", labeler="p")
            documents.append(both.as_json())
    cli("import", "traces", traces_file, "--dataset", "d")
    called = cli("import", "scores", scores, "--dataset", "d", "--labeler", "p", "--json")
    assert called.code == 1
    first, second = map(timeless, documents)
    assert timeless(called.document) == first == second


def test_import_refuses_what_does_not_fit(traces_file: Path, tmp_path: Path) -> None:
    ws = workspace(tmp_path / "w")
    with pytest.raises(InputError, match="No labeler named"):
        ws.import_("scores", traces_file, dataset="d")
    with pytest.raises(InputError, match="already have steps, a subset and gold"):
        ws.import_("scores", traces_file, dataset="d", labeler="p", neutral="ignore")
    with pytest.raises(InputError, match="not a value of --kind"):
        ws.import_("trl", traces_file, dataset="d", labeler="p", kind="human")
    with pytest.raises(InputError, match="not a value of --neutral"):
        ws.import_("prm800k", traces_file, dataset="d", neutral="maybe")
    assert not (tmp_path / "w").exists()


def test_an_export_is_the_commands(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    ws = workspace(tmp_path / "w")
    ws.import_("traces", traces_file, dataset="d")
    result = ws.export("trl", tmp_path / "api.jsonl", dataset="d", labeler="gold")
    assert (result.done, result.format, result.out) == (3, "trl", tmp_path / "api.jsonl")
    called = cli(
        *("export", "trl", tmp_path / "cli.jsonl", "--dataset", "d", "--labeler", "gold", "--json")
    )
    ours, theirs = timeless(result.as_json()), timeless(called.document)
    assert Path(ours.pop("out")).read_text() == Path(theirs.pop("out")).read_text()
    assert ours == theirs
    with pytest.raises(InputError, match="nobody"):
        ws.export("trl", tmp_path / "none.jsonl", dataset="d", labeler="nobody")
    assert not (tmp_path / "none.jsonl").exists()


def test_overlap_is_the_commands(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    ws = workspace(tmp_path / "w")
    ws.import_("traces", traces_file, dataset="d")
    result = ws.overlap(traces_file, dataset="d")
    assert result.training == (str(traces_file),)
    called = cli("overlap", traces_file, "--dataset", "d", "--json")
    assert called.document == result.as_json()
    with pytest.raises(InputError, match="No training set to search"):
        ws.overlap(dataset="d")


def test_a_second_file_that_is_cut_off_takes_the_first_with_it(
    traces_file: Path, tmp_path: Path
) -> None:
    ws = workspace(tmp_path / "api")
    cut = tmp_path / "cut.jsonl"
    line = traces_file.read_text().splitlines()[0].replace('"a"', '"other"', 1)
    cut.write_text(f'{line}\n{{"id": "end')
    with pytest.raises(InputError):
        ws.import_("traces", [traces_file, cut], dataset="d")
    assert not (tmp_path / "api").exists(), "nothing is kept, not even an empty database"
    ws.import_("traces", traces_file, dataset="d")
    with pytest.raises(InputError):
        ws.import_("traces", [cut], dataset="d")
    assert ws.status().datasets["d"].traces == 3


def test_scores_that_are_cut_off_leave_no_labeler(traces_file: Path, tmp_path: Path) -> None:
    ws = workspace(tmp_path / "api")
    ws.import_("traces", traces_file, dataset="d")
    cut = scores_file(tmp_path / "theirs.jsonl")
    cut.write_text(cut.read_text() + '{"id": "b", "sco')
    before = ws.status().labelers
    with pytest.raises(InputError):
        ws.import_scores(cut, dataset="d", labeler="theirs", kind="prm")
    assert ws.status().labelers == before


def test_an_unfinished_import_is_a_failure_that_can_be_retried(
    traces_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.imports import ImportRun

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    ws = workspace(tmp_path / "api")
    with monkeypatch.context() as patch:
        patch.setattr(ImportRun, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ws.import_("traces", traces_file, dataset="d")
    (failure,) = ws.status().failures
    assert (failure.id, failure.stage, failure.reason) == (traces_file.name, "import", "unfinished")
    assert failure.retryable
    again = ws.import_("traces", traces_file, dataset="d")
    assert (again.unchanged, again.traces) == (3, 3)
    assert ws.status().failures == ()
