"""What is typed wrongly is answered with what was meant; what destroys asks first."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import STOPPED, execute
from stepgold import CompareOptions, Workspace
from traces import InputError

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    ("typed", "what", "remedy"),
    [
        ("evalute", "No such command 'evalute'. Did you mean 'evaluate'?", "stepgold evaluate --help"),
        ("corpus lst", "Did you mean 'list'?", "stepgold corpus list --help"),
        ("xyzzy", "No such command 'xyzzy'.", "stepgold --help"),
        ("evaluate --labler x", "Did you mean --labeler?", "stepgold evaluate --help"),
        ("status --workspace a", "--workspace belongs before the command", "--workspace a status"),
        ("status --db=sqlite:///a.db", "--db belongs before", "--db sqlite:///a.db status"),
        ("status --debug", "--debug belongs before", "--debug status"),
        (
            "import processbnch f.json --dataset d",
            "Unknown format 'processbnch'",
            "did you mean 'processbench'? Use one of",
        ),
        (
            "evaluate --dataset d --labeler gold --protocol procesbench",
            "Unknown protocol",
            "did you mean 'processbench'?",
        ),
        ("search x --mode bm52", "is not a value of --mode", "did you mean 'bm25'?"),
        ("evaluate --dataset d --labeler gold --subset defalt", "no subset", "did you mean 'default'?"),
        ("evaluate --dataset d --labeler glod", "no labeler", "did you mean 'gold'?"),
    ],
)  # fmt: skip
def test_what_was_meant_is_named(
    cli: Cli,
    traces_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    what: str,
    remedy: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.json").write_text("[]")
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    called = cli(*shlex.split(typed))
    assert called.code == 2
    assert what in called.err
    assert remedy in called.err


def test_a_remedy_repeats_no_password(cli: Cli) -> None:
    called = cli("status", "--db", "postgresql://me:secret@host/x", "--json")
    assert called.code == 2
    assert "--db URL" in called.document["error"]["remedy"]
    assert "secret" not in called.out + called.err


@pytest.mark.parametrize(
    ("text", "meant"), [("[juge]\n", "judge"), ("[judge]\ndatset = 'd'\n", "dataset")]
)
def test_tables_and_keys_of_toml_are_suggested(
    cli: Cli, tmp_path: Path, text: str, meant: str
) -> None:
    (tmp_path / "run.toml").write_text(text)
    called = cli("run", tmp_path / "run.toml")
    assert called.code == 2
    assert f"did you mean '{meant}'?" in called.err


def test_a_search_in_one_corpus_finds_nothing_of_another(cli: Cli, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.md").write_text(f"# {name}\n\nGive 5 mg of {name}ol daily.")
        assert cli("corpus", "add", tmp_path / name, "--corpus", name).code == 0

    def found(*only: str) -> Any:
        called = cli("search", "mg daily", "--mode", "bm25", *only, "--json")
        assert called.code == 0, called.out
        return sorted(hit["corpus"] for hit in called.document["hits"])

    assert found() == ["a", "b", "c"]
    assert found("--corpus", "b") == ["b"]
    assert found("--corpus", "c", "--corpus", "a") == ["a", "c"]
    assert found("--corpus", "c", "--quota", "c=1") == ["c"]
    unknown = cli("search", "mg", "--mode", "bm25", "--corpus", "d")
    assert (unknown.code, "no corpus 'd'" in unknown.err) == (2, True)
    outside = cli("search", "mg", "--mode", "bm25", "--corpus", "a", "--quota", "b=1")
    assert outside.code == 2
    assert "add --corpus b" in outside.err


def test_without_a_terminal_only_yes_removes(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    refused = cli("remove", "dataset", "d", "--json")
    assert refused.code == 2
    error = refused.document["error"]
    assert "3 traces and the labels of gold on 3 traces" in error["what"]
    remedy = shlex.split(error["remedy"])
    assert remedy[:3] == ["stepgold", "--workspace", str(tmp_path / "w")]
    refused = cli("remove", "labeler", "gold", "--dataset", "d", "--json")
    assert "goes with the labels of gold on 3 traces" in refused.document["error"]["what"]
    assert set(cli("status", "--json").document["datasets"]) == {"d"}
    assert cli("remove", "dataset", "nothing").code == 2
    assert cli(*remedy[3:]).code == 0
    assert cli("status", "--json").document["datasets"] == {}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 2), ("no\n", 2)])
def test_on_a_terminal_removal_asks(
    cli: Cli, traces_file: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    master, slave = os.openpty()
    with os.fdopen(slave, "r+b", buffering=0) as terminal, os.fdopen(master, "r+b", 0) as person:
        person.write(answer.encode())
        at = str(traces_file.parent / "w")
        with (
            open(terminal.fileno(), closefd=False) as keys,
            open(terminal.fileno(), "w", closefd=False) as screen,
        ):
            monkeypatch.setattr(sys, "stdin", keys)
            monkeypatch.setattr(sys, "stderr", screen)
            ended = execute(["--workspace", at, "remove", "dataset", "d"])
        shown = ""
        while "Go on? [y/N]" not in shown:  # a terminal hands over what it has, line by line
            shown += os.read(person.fileno(), 4096).decode()
        monkeypatch.undo()
    assert ended == code
    assert "goes with 3 traces" in shown
    assert "Go on? [y/N]" in shown
    assert ("d" in cli("status", "--json").document["datasets"]) == (code == 2)


def test_python_is_not_asked(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    ws = Workspace(tmp_path / "w", progress=False)
    assert ws.remove_labeler("gold", dataset="d").done == 1
    assert ws.remove_dataset("d").done == 1


@pytest.mark.parametrize(
    ("name", "text"), [("traces", "not JSON\n"), ("traces", ""), ("processbench", '{"a": 1}\n')]
)
def test_a_refused_import_leaves_no_empty_database(
    cli: Cli, tmp_path: Path, name: str, text: str
) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text(text)
    refused = cli("import", name, file, "--dataset", "d")
    assert refused.code == 2, refused.err
    assert not (tmp_path / "w").exists()

    (tmp_path / "mine").mkdir()
    assert cli("import", name, file, "--dataset", "d", workspace=tmp_path / "mine").code == 2
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_refused_import_keeps_what_was_there(cli: Cli, traces_file: Path, tmp_path: Path) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    (tmp_path / "bad.jsonl").write_text("not JSON\n")
    assert cli("import", "traces", tmp_path / "bad.jsonl", "--dataset", "e").code == 2
    assert set(json.loads(cli("status", "--json").out)["datasets"]) == {"d"}


@pytest.mark.parametrize("labelers", [3, [3], ["a", None]])
def test_a_number_is_no_list_of_texts(labelers: Any) -> None:
    with pytest.raises(InputError, match="is no list of texts"):
        CompareOptions(labelers=labelers, dataset="d")


class Interrupted(io.StringIO):
    """Standard error that a signal meets at the first line."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = False

    def write(self, text: str) -> int:
        """Write, except the first time."""
        if not self.begun:
            self.begun = True
            raise KeyboardInterrupt
        return super().write(text)


def test_a_signal_that_meets_the_printing_ends_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Interrupted()
    monkeypatch.setattr(sys, "stderr", shown)
    code = execute(["--workspace", str(tmp_path / "w"), "compare", "a", "b", "--dataset", "none"])
    assert code == 130
    assert shown.getvalue().splitlines() == [f"error: {STOPPED[0]}", f"  do: {STOPPED[2]}"]
