"""What must import where a system lacks the modules of Unix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import OURS, ROOT, sources

UNIX_ONLY = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
"""Modules of the standard library that Windows does not have."""
IMPORT_ALL = f"""
import builtins, importlib, sys
plain = builtins.__import__
def refusing(name, variables=None, *rest, **named):
    importer = (variables or {{}}).get("__name__", "").split(".")[0]
    if importer in {set(OURS)!r} and name in {UNIX_ONLY!r}:
        raise ModuleNotFoundError(f"{{name}} is imported by {{variables['__name__']}}")
    return plain(name, variables, *rest, **named)
builtins.__import__ = refusing
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
"""Libraries are let alone: what they import depends on the system that they find themselves on."""


def module_name(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.slow
def test_every_module_imports_without_the_modules_of_unix() -> None:
    names = [module_name(path) for path in sources()]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
