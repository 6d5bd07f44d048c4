"""Help: quick, complete, and without a heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "transformers",
    "faiss",
    "sentence_transformers",
    "google.genai",
    "openai",
    "sqlmodel",
    "numpy",
)
COMMANDS = (
    ["demo"],
    ["run"],
    ["import"],
    ["export"],
    ["corpus", "add"],
    ["corpus", "list"],
    ["corpus", "show"],
    ["corpus", "remove"],
    ["db", "vacuum"],
    ["db", "backup"],
    ["db", "copy"],
    ["db", "check"],
    ["index"],
    ["search"],
    ["retrieve"],
    ["judge"],
    ["continue"],
    ["consensus"],
    ["score"],
    ["train"],
    ["evaluate"],
    ["compare"],
    ["report"],
    ["best-of-n"],
    ["overlap"],
    ["verify"],
    ["sample"],
    ["plan"],
    ["retry"],
    ["show"],
    ["view"],
    ["review"],
    ["review", "export"],
    ["review", "import"],
    ["status"],
    ["view"],
    ["doctor"],
    ["trust"],
    ["remove", "dataset"],
    ["remove", "labeler"],
)


@pytest.mark.parametrize(
    "statement",
    [
        "import cli; code = cli.execute(['--help'])",
        "import cli; code = cli.execute(['judge', '--help'])",
        "import stepgold; stepgold.Workspace; code = 0",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_used(statement: str) -> None:
    program = (
        f"import sys; {statement}\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "LOADED [] 0" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_is_in_the_documentation(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import cli

    assert cli.execute([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: stepgold" in shown
    undocumented = [
        line for line in shown.splitlines() if line.startswith("  --") and len(line.split()) < 2
    ]
    assert not undocumented
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert any(f"stepgold {' '.join(command)}" in page.read_text("utf-8") for page in pages)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import cli
    import stepgold

    assert cli.execute(["--version"]) == 0
    assert capsys.readouterr().out == f"stepgold {stepgold.__version__}\n"


def test_the_command_list_is_complete() -> None:
    from commands.table import COMMANDS as TABLE

    assert set(TABLE) == {tuple(command) for command in COMMANDS}


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_shows_every_command_whole_at_80_columns(
    flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cli
    from commands.table import COMMANDS as TABLE
    from commands.table import GROUPS, SECTIONS

    monkeypatch.setenv("COLUMNS", "80")
    assert cli.execute([flag]) == 0
    listed = capsys.readouterr().out.partition("Options:")[2]
    assert "..." not in listed
    top = {words[0]: entry.summary for words, entry in TABLE.items() if len(words) == 1} | GROUPS
    for name, summary in top.items():
        assert any(line.split() == [name, *summary.split()] for line in listed.splitlines()), name
    assert {name for names in SECTIONS.values() for name in names} <= set(top)
    for entry in TABLE.values():
        assert len(entry.summary) <= 50, entry.summary


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    import cli
    import stepgold

    assert cli.execute(["--version"]) == 0
    assert capsys.readouterr().out == f"stepgold {version('stepgold')}\n"
    assert stepgold.__version__ == version("stepgold")
