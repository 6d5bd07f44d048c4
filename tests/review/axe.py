"""axe-core, which looks for barriers on a page; from npm, kept in the cache of the user."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

VERSION = "4.14.1"
CACHE = Path.home() / ".cache" / "stepgold" / f"axe-core-{VERSION}"
SCRIPT = CACHE / "node_modules" / "axe-core" / "axe.min.js"
INSTALL_S = 300


def axe_script() -> str:
    """The source of axe-core; skips the test if it is neither here nor on npm."""
    if not SCRIPT.is_file():
        if shutil.which("npm") is None:
            pytest.skip("axe-core needs npm: apt-get install npm")
        CACHE.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--prefix", str(CACHE), "--no-save", "--no-audit"]
        made = subprocess.run(
            [*words, "--ignore-scripts", f"axe-core@{VERSION}"],
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
        if not SCRIPT.is_file():
            pytest.skip(f"axe-core cannot be installed: {made.stderr.strip()[-200:]}")
    return SCRIPT.read_text("utf-8")


def barriers(page: Any, script: str) -> list[str]:
    """Serious and critical barriers of a page, one line each."""
    page.evaluate(script)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {each['help']}: {node['html'][:160]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
