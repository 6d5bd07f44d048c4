"""Names and ids are text: they steer neither the terminal nor the layout of our output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
NAMES = ["[red]a[/]", "[/b]", "a\x1b[2Jb", "a\u202eb", "\x9b31mx"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_and_not_obeyed(cli: Cli, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name.replace('/', '-')}.jsonl"
    row: dict[str, Any] = {"id": name, "problem": "1 + 1?", "answer": "2", "steps": ["It is 2."]}
    row["labels"] = {
        "gold": {"kind": "gold", "first_error": None},
        name: {"kind": "judge", "first_error": 0},
    }
    file.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    called = cli("import", "traces", file, "--dataset", "d")
    assert called.code == 1, called.err
    shown = [called]
    shown += [cli("status"), cli("evaluate", "--dataset", "d", "--labeler", "gold")]
    shown += [cli("search", name), cli("export", "traces", file, "--dataset", name)]
    shown += [cli("import", "traces", tmp_path / name, "--dataset", "e")]
    for one in shown:
        assert one.code in (0, 1, 2), one.err
        for stream in (one.out, one.err):
            assert not any(control in stream for control in "\x1b\x9b\u202e")
    assert any("[red]" in one.out + one.err for one in shown) == ("[red]" in name)


@pytest.mark.parametrize("label", NAMES)
def test_a_progress_bar_shows_its_label_as_it_is(
    label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from stepgold.console import progress

    assert list(progress([1, 2], total=2, label=label)) == [1, 2]
    shown = capsys.readouterr().err
    assert not any(control in shown for control in "\x9b\u202e")
    assert "[/" in shown or "[/" not in label
