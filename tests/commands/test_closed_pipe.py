"""A reader that has seen enough (`| head`) is no defect."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.mark.slow
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_closed_pipe_gives_no_traceback(
    cli: Cli, traces_file: Path, tmp_path: Path, form: tuple[str, ...]
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    assert _ended(tmp_path / "w", form) == (0, "")


@pytest.mark.slow
def test_an_error_into_a_closed_pipe_keeps_its_exit_code(tmp_path: Path) -> None:
    assert _ended(tmp_path, ("--json",)) == (2, "")


def _ended(workspace: Path, form: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and standard error of `status` with nobody at the other end."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "cli", "--workspace", str(workspace), "status", *form],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            check=False,
        )
    finally:
        os.close(writing)
    return ended.returncode, ended.stderr
