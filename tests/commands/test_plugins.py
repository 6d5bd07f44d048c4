"""Formats, protocols and prompts of an installed distribution, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judge import JudgeConfig
from judge.config import find_prompt
from judge.prompt_file import packaged_prompt
from tests.commands.conftest import Cli
from traces.errors import InputError

PLUG_IN = '''
"""A format, a protocol and a prompt of somebody else."""
from formats import FileFormat, RowFault, human_gold, id_of, labeled_trace, steps_of, text_of
from evaluation import Protocol, evaluate_mistake
from judge.prompt_file import packaged_prompt
from traces import Problem, Trace, TraceLabel

GOLD = human_gold("pairs")


def parse(raw, file):
    row = raw.value
    problem = Problem("p-" + id_of(row, "key"), text_of(row, "q"))
    trace = Trace(id_of(row, "key"), problem.id, steps_of(row, "lines"))
    if row["bad"] == "?":
        raise RowFault("'bad' is a question mark")
    label = TraceLabel(trace.id, first_error_given=True, first_error_index=row["bad"])
    yield from labeled_trace(raw, file, problem=problem, trace=trace, labeler=GOLD, label=label)


PAIRS = FileFormat(name="pairs", required=frozenset({"key", "q", "lines", "bad"}), parse=parse)
MINE = Protocol(name="mine", evaluate=evaluate_mistake, measures=("location_accuracy",))
STRICT = packaged_prompt().text.replace("--- system ---\\n", "--- system ---\\nBe strict.\\n", 1)
NOT_A_FORMAT = 42
'''
ENTRY_POINTS = """
[stepgold.formats]
pairs = stepgold_pairs:PAIRS
wrong = stepgold_pairs:NOT_A_FORMAT
gone = stepgold_pairs:GONE

[stepgold.protocols]
mine = stepgold_pairs:MINE
wrong = stepgold_pairs:NOT_A_FORMAT

[stepgold.prompts]
strict = stepgold_pairs:STRICT
wrong = stepgold_pairs:NOT_A_FORMAT
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution on sys.path, with its metadata."""
    site = tmp_path / "site"
    info = site / "stepgold_pairs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stepgold-pairs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "stepgold_pairs.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "stepgold_pairs", raising=False)
    return site


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"key": 1, "q": "1+1?", "lines": ["1+1=3", "3"], "bad": 0},
        {"key": "two", "q": "2+2?", "lines": ["2+2=4"], "bad": None},
        {"key": "three", "q": "3+3?", "lines": ["6"], "bad": "?"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_format_of_another_distribution_is_imported(
    cli: Cli, installed: Path, pairs: Path
) -> None:
    done = cli("import", "pairs", pairs, "--dataset", "d", "--json")
    assert done.code == 1
    document = done.document
    assert (document["traces"], document["with_error"], document["without_error"]) == (2, 1, 1)
    (rejected,) = document["rejected"]
    assert (rejected["id"], rejected["reason"]) == ("pairs:2", "'bad' is a question mark")
    listed = cli("import", "pair", pairs, "--dataset", "d")
    assert listed.code == 2
    assert "pairs" in listed.err


def test_a_protocol_of_another_distribution_evaluates(
    cli: Cli, installed: Path, pairs: Path, tmp_path: Path
) -> None:
    cli("import", "pairs", pairs, "--dataset", "d")
    scores = tmp_path / "s.jsonl"
    scores.write_text('{"id": 1, "first_error": 0}\n{"id": "two", "first_error": 0}\n')
    cli("import", "scores", scores, "--dataset", "d", "--labeler", "j")
    done = cli("evaluate", "--dataset", "d", "--labeler", "j", "--protocol", "mine", "--json")
    assert done.code == 0
    assert done.document["overall"]["location_accuracy"] == 0.5
    unknown = cli("evaluate", "--dataset", "d", "--labeler", "j", "--protocol", "other")
    assert unknown.code == 2
    assert "mine" in unknown.err


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("import", "wrong", "{file}", "--dataset", "d"), "its type is int"),
        (("import", "gone", "{file}", "--dataset", "d"), "AttributeError"),
        (
            ("evaluate", "--dataset", "d", "--labeler", "j", "--protocol", "wrong"),
            "its type is int",
        ),
    ],
)
def test_a_plug_in_that_cannot_be_used_names_its_distribution(
    cli: Cli, installed: Path, pairs: Path, argv: tuple[str, ...], reason: str
) -> None:
    done = cli(*(str(pairs) if part == "{file}" else part for part in argv))
    assert done.code == 2
    assert "distribution 'stepgold-pairs' cannot be used" in done.err
    assert reason in done.err
    assert "pip uninstall stepgold-pairs" in done.err


def test_a_prompt_has_a_name(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_prompt("strict").system.startswith("Be strict.")
    assert JudgeConfig(prompt="strict").template.system.startswith("Be strict.")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strict").write_text(packaged_prompt().text)
    assert find_prompt("strict") == packaged_prompt(), "a file goes before a name"
    with pytest.raises(InputError, match="cannot be used: its type is int"):
        find_prompt("wrong")
    with pytest.raises(InputError, match="no prompt of that name"):
        find_prompt("unknown")


@pytest.mark.slow
def test_the_installed_command_finds_them_too(installed: Path, pairs: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    run: Callable[..., Any] = subprocess.run
    done = run(
        [sys.executable, "-m", "cli", "--workspace", tmp_path / "w", "import", "pairs", pairs,
         "--dataset", "d", "--json"],
        capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["traces"] == 2
