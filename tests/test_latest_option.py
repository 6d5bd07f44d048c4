"""Which warnings fail the suite: all of them with the tested versions, fewer with `--latest`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import ROOT

WARNS = """
import warnings
import pytest

@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("transformers.models", UserWarning),
        ("inference.gemini", FutureWarning),  # of a library, about how it was called
        ("inference.gemini", UserWarning),
        ("cli", RuntimeWarning),
    ],
)
def test(module, kind):
    warnings.warn_explicit("said", kind, "file.py", 1, module=module)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "outcome"), [((), "4 failed"), (("--latest",), "2 failed, 2 passed")]
)
def test_warnings_fail(tmp_path: Path, options: tuple[str, ...], outcome: str) -> None:
    suite = tmp_path / "test_warns.py"
    suite.write_text(WARNS)
    pytest_here = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "pyproject.toml"]
    done = subprocess.run(
        [*pytest_here, *options, str(suite)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1], done.stdout
