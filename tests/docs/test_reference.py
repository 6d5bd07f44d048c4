"""The generated reference: every command and option, every method and argument."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from tools.docs_pages import (
    attribute_docstrings,
    cli_reference,
    python_reference,
    results_reference,
    type_name,
)
from traces.config import StrPath

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))


@pytest.fixture(scope="module")
def python_page() -> str:
    return python_reference()


def test_the_cli_page_has_every_command_and_option() -> None:
    from typer.main import get_command

    import cli
    from commands.table import COMMANDS

    page = cli_reference()
    sections = dict(re.findall(r"^## `stepgold ([^`]+)`\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    root = get_command(cli.app)
    for words in COMMANDS:
        leaf: Any = root
        for word in words:
            leaf = leaf.get_command(None, word)
        section = sections.pop(" ".join(words))
        for parameter in leaf.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert parameter.opts[0] in section, (words, parameter.name)
    assert not sections


def test_the_python_page_has_every_verb_with_its_arguments(python_page: str) -> None:
    from stepgold import Workspace

    verbs = {
        name
        for name, value in vars(Workspace).items()
        if inspect.isfunction(value) and hasattr(value, "__wrapped__")
    }
    assert set(re.findall(r"^## `Workspace\.(\w+)`", python_page, re.M)) == verbs | {"plan"}
    assert "| `policy_max_tokens` | [`continue_`](#continue_) | `max_tokens` |" in python_page
    judge = python_page.split("## `Workspace.judge`")[1].split("\n## ")[0]
    assert "| `dataset` | `str` | required |" in judge
    assert "| `budget` | `float | None` | `None` |" in judge
    assert "Returns: [`JudgeResult`](results.md#stepgold.judging.JudgeResult)" in judge


def test_the_results_page_has_every_result_once() -> None:
    page = results_reference()
    named = re.findall(r"^::: (\S+)$", page, re.M)
    assert len(named) == len(set(named))
    assert {"stepgold.results.Result", "stepgold.judging.JudgeResult"} <= set(named)


def test_a_type_is_written_as_a_reader_writes_it() -> None:
    assert type_name(StrPath | None) == "StrPath | None"
    assert type_name(tuple[int, str] | None) == "tuple[int, str] | None"


def test_docstrings_of_attributes_are_read_in_order(tmp_path: Path) -> None:
    source = tmp_path / "one.py"
    source.write_text('class A:\n    b = 1\n    """B."""\n    c = 2\n    a = 3\n    """A."""\n')
    assert attribute_docstrings(source, "A") == {"b": "B.", "a": "A."}


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_dated_short_listed_and_linked(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.match(rf"# {int(page.name[:4])}\. .+\n\n\*20\d\d-\d\d-\d\d\*\n", text)
    assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences"]
    assert len(text.split()) <= 300, "one screen"
    assert f"({page.name})" in (page.parent / "index.md").read_text("utf-8")
    others = [path for path in (ROOT / "docs").rglob("*.md") if path.parent != page.parent]
    assert any(f"decisions/{page.name}" in other.read_text("utf-8") for other in others)


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_a_decision_is_called_by_its_number() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for called, number in re.findall(
            r"\[decision (\d+)\]\(\S*?(\d{4})-", page.read_text("utf-8")
        ):
            assert int(called) == int(number), page
