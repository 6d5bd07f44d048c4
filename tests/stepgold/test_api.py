"""Ways to call the methods: several names, the options of `plan`, defaults of the folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import pytest

import stepgold
from tests.commands.conftest import Cli
from tests.commands.labelled_workspace import make_workspace
from traces import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("api")).resolve()


@pytest.fixture
def ws(made: Path, tmp_path: Path) -> stepgold.Workspace:
    """A workspace with the labelers gold and prm on the dataset `d`."""
    return stepgold.Workspace(shutil.copytree(made, tmp_path / "w"), progress=False)


def test_several_names_are_a_list_or_arguments(ws: stepgold.Workspace) -> None:
    listed = ws.compare(["prm", "judge"], dataset="d", resamples=20)
    assert ws.compare("prm", "judge", dataset="d", resamples=20) == listed


def test_several_files_are_a_list_or_arguments(ws: stepgold.Workspace, traces_file: Path) -> None:
    other = traces_file.with_name("other.jsonl")
    other.write_text(traces_file.read_text().replace('"id": "', '"id": "other-'))
    # For type checkers the files of import_ are a list, so that they check its options.
    import_: Any = ws.import_
    taken = import_("traces", traces_file, other, dataset="two")
    assert taken.done == 2 * ws.import_("traces", traces_file, dataset="one").done


def test_too_many_arguments_are_refused(ws: stepgold.Workspace) -> None:
    with pytest.raises(TypeError, match="takes 2 positional arguments, not 3"):
        cast(Any, ws).export("trl", "a.jsonl", "b.jsonl", dataset="d", labeler="prm")
    with pytest.raises(TypeError, match="labelers"):
        ws.compare("prm", "judge", labelers=["gold"], dataset="d")


def test_a_plan_takes_stages_or_the_options_of_the_command(
    cli: Cli, ws: stepgold.Workspace
) -> None:
    judge = stepgold.JudgeOptions(dataset="d", judge="gemini:gemini-3.5-flash-lite", votes=3)
    policy = stepgold.ContinueOptions(dataset="d", policy="openai:m", k=2, max_tokens=64)
    planned = ws.plan([judge, policy])
    options: dict[str, Any] = {"votes": 3, "k": 2, "policy_max_tokens": 64}
    by_name = ws.plan(dataset="d", judge=judge.judge, policy=policy.policy, **options)
    assert by_name == planned
    assert [row["stage"] for row in planned.rows()] == ["judge", "continue"]
    flags = ("--votes", 3, "--k", 2, "--policy-max-tokens", 64, "--json")
    printed = cli("plan", "--dataset", "d", "--judge", judge.judge, "--policy", "openai:m", *flags)
    assert printed.document == planned.as_json()


@pytest.mark.slow
def test_the_frame_of_a_plan_has_a_row_for_a_prm(ws: stepgold.Workspace) -> None:
    (row,) = ws.plan(dataset="d", prm="lab", prm_name="x").rows()
    assert (row["stage"], row["model"], row["missing"]) == ("score", "lab", row["traces"])


def test_options_of_a_plan_without_effect_are_refused(ws: stepgold.Workspace) -> None:
    with pytest.raises(InputError, match="--k, --strategy has no effect without --policy"):
        ws.plan(dataset="d", judge="openai:m", k=3, strategy="binary")
    with pytest.raises(InputError, match="nothing to plan"):
        ws.plan()
    with pytest.raises(TypeError, match="no option vote"):
        ws.plan(dataset="d", judge="openai:m", vote=3)


def test_the_folder_gives_the_defaults_of_methods(cli: Cli, ws: stepgold.Workspace) -> None:
    defaults = ws.folder / "stepgold.toml"
    defaults.write_text('[evaluate]\nlabeler = "prm"\nthreshold = "0.7"\nresamples = 20\n')
    found = ws.evaluate(dataset="d")  # type: ignore[call-overload]
    assert (found.labeler, found.threshold) == ("prm", 0.7)
    assert cli("evaluate", "--dataset", "d", "--json").document == found.as_json()
    assert ws.evaluate(dataset="d", labeler="prm", threshold=0.5).threshold == 0.5
    defaults.write_text("[evaluate]\nlabelers = 1\n")
    with pytest.raises(InputError, match="Unknown key 'labelers'"):
        ws.evaluate(dataset="d", labeler="prm")


def test_a_default_that_needs_something_else_is_not_refused(ws: stepgold.Workspace) -> None:
    (ws.folder / "stepgold.toml").write_text("[judge]\nagree = 3\n")
    assert ws.judge(dataset="d", judge="lab", name="j", limit=1).done == 1
    with pytest.raises(InputError, match="no effect without --votes"):
        ws.judge(dataset="d", judge="lab", name="j", agree=3)


def test_the_folder_must_be_trusted_before_texts_go_elsewhere(
    ws: stepgold.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path))
    (ws.folder / "stepgold.toml").write_text('[judge]\nbase_url = "http://127.0.0.1:1/v1"\n')
    with pytest.raises(InputError, match="you have not trusted the file"):
        ws.judge(dataset="d", judge="openai:m")
    assert ws.trust().trusted
    assert "base_url" in ws.defaults_of(stepgold.JudgeOptions)
    assert not ws.trust(revoke=True).trusted


def test_scores_take_the_defaults_of_import(ws: stepgold.Workspace) -> None:
    (ws.folder / "stepgold.toml").write_text('[import]\ndataset = "d"\nsubset = "s"\n')
    assert ws.defaults_of(stepgold.ScoresOptions) == {"dataset": "d"}
    assert ws.defaults_of(stepgold.LabelsOptions) == {}


def test_a_checkup_is_a_table_of_items(ws: stepgold.Workspace) -> None:
    rows = list(ws.doctor().rows())
    assert {"item": "GEMINI_API_KEY", "state": "not set"} in rows
    assert all(isinstance(value, str) for row in rows for value in row.values())
