"""The command line, called in this process, with its exit code and both outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Called:
    """What one command line left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


Cli = Callable[..., Called]


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command line on a workspace of its own."""
    from cli import execute

    def call(*argv: str | Path, workspace: Path | None = None) -> Called:
        capsys.readouterr()
        code = execute(["--workspace", str(workspace or tmp_path / "w"), *map(str, argv)])
        shown = capsys.readouterr()
        return Called(code, shown.out, shown.err)

    return call


@pytest.fixture
def traces_file(tmp_path: Path) -> Path:
    """Three small traces of two problems, with gold."""
    rows: list[dict[str, Any]] = [
        {
            "id": "a",
            "problem": "What is 1+1?",
            "answer": "2",
            "steps": ["1+1=2.", "The answer is 2."],
            "first": None,
        },
        {
            "id": "b",
            "problem": "What is 1+1?",
            "answer": "2",
            "steps": ["1+1=3.", "The answer is 3."],
            "first": 0,
        },
        {
            "id": "c",
            "problem": "What is 2+3?",
            "answer": "5",
            "steps": ["2+3=5.", "Add 1.", "The answer is 6."],
            "first": 1,
        },
    ]
    path = tmp_path / "traces.jsonl"
    with path.open("w") as file:
        for row in rows:
            gold = {"kind": "gold", "first_error": row.pop("first")}
            file.write(json.dumps(row | {"labels": {"gold": gold}}) + "\n")
    return path
