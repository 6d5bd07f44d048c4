"""Gold answers that do not equal themselves are listed before anything is spent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]
GOLDS = {"fine": "42", "broken": r"\frac{1}{", "text": "appendicitis", "none": None}


@pytest.fixture
def imported(cli: Cli, tmp_path: Path) -> Any:
    file = tmp_path / "t.jsonl"
    rows = [
        {"id": f"t-{name}", "problem": f"What is {name}?", "answer": gold, "steps": ["So."]}
        for name, gold in GOLDS.items()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return cli("import", "traces", file, "--dataset", "d", "--json")


def test_import_lists_them(imported: Any) -> None:
    assert imported.code == 0
    [one] = imported.document["unusable_golds"]
    assert one["answer"] == r"\frac{1}{"
    assert "cannot be read as a whole" in one["reason"]
    assert "1 gold answer cannot be compared" in imported.err


def test_continue_lists_them_and_asks_nothing_for_them(
    cli: Cli, imported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer("The answer is 42.") as policy:
        argv = ["continue", "--dataset", "d", "--policy", "openai:m", "-k", "1", "--json"]
        done = cli(*argv, "--base-url", policy.url)
        assert len(policy.calls) == 2
    assert [one["answer"] for one in done.document["unusable_golds"]] == [r"\frac{1}{"]
    assert done.document["abstained"] == {"no_answer": 2}
