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
)
COMMANDS = (
    ["demo"],
    ["run"],
    ["import"],
    ["export"],
    ["corpus", "add"],
    ["corpus", "list"],
    ["corpus", "remove"],
    ["index"],
    ["search"],
    ["retrieve"],
    ["judge"],
    ["continue"],
    ["consensus"],
    ["score"],
    ["evaluate"],
    ["compare"],
    ["report"],
    ["best-of-n"],
    ["overlap"],
    ["sample"],
    ["plan"],
    ["retry"],
    ["status"],
    ["doctor"],
    ["trust"],
    ["remove", "dataset"],
    ["remove", "labeler"],
)


def test_help_loads_no_heavy_library() -> None:
    program = (
        "import sys, cli\n"
        "code = cli.execute(['--help'])\n"
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


def test_every_summary_is_whole_at_80_columns() -> None:
    from commands.table import COMMANDS as TABLE
    from commands.table import GROUPS

    for summary in (*GROUPS.values(), *(entry.summary for entry in TABLE.values())):
        assert len(summary) <= 50, summary
