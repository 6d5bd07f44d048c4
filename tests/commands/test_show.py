"""`show`: a trace with the very requests and replies; `corpus show`: a document as indexed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepgold import ShowOptions, Workspace
from tests.judge.electorate import Electorate
from tests.judge.sheets import PASSAGE

Cli = Callable[..., Any]


def judged(cli: Cli, tmp_path: Path, server: Electorate) -> None:
    row = {
        "id": "t1",
        "problem": "What is the dose?",
        "options": ["5 mg", "10 mg"],
        "answer": "A",
        "steps": ["t1", "second", "third"],
        "evidence": [{"source": "guide", "title": "Dosing", "text": PASSAGE}],
        "labels": {"gold": {"kind": "gold", "first_error": 1}},
    }
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    assert (
        cli(
            "judge", "--dataset", "d", "--judge", "openai:m", "--votes", "3",
            "--base-url", server.url,
        ).code == 0
    )  # fmt: skip


class Recorder(Electorate):
    """Keeps what it receives and what it sends."""

    def __init__(self) -> None:
        super().__init__(lambda _name, vote: (0, 1, 1)[vote % 3])
        self.received: list[list[list[str]]] = []
        self.sent: list[Any] = []

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """As prescribed."""
        said = super().answer(path, body)
        self.received.append([[each["role"], each["content"]] for each in body["messages"]])
        self.sent.append(said[1])
        return said


def test_the_very_requests_and_replies_are_shown(cli: Cli, tmp_path: Path) -> None:
    with Recorder() as server:
        judged(cli, tmp_path, server)
    found = cli("show", "t1", "--dataset", "d", "--labeler", "judge", "--json")
    assert found.code == 0
    (judge,) = found.document["labelers"]
    assert [vote["index"] for vote in judge["votes"]] == [0, 1, 2]
    assert [key for vote in judge["votes"] for key in vote["request_keys"]] == [
        call["key"] for call in judge["calls"]
    ]
    assert [json.loads(call["request"])["messages"] for call in judge["calls"]] == server.received
    assert [json.loads(call["raw"]) for call in judge["calls"]] == server.sent
    page = cli("show", "t1", "--dataset", "d", "--labeler", "judge").out
    for messages in server.received:
        for _, text in messages:
            assert text in page


def test_everyone_is_shown_beside_each_step(cli: Cli, tmp_path: Path) -> None:
    with Electorate(lambda _name, _vote: 2) as server:
        judged(cli, tmp_path, server)
    page = cli("show", "t1", "--dataset", "d").out
    assert "gold   first error at step 2" in page
    assert "judge  first error at step 3" in page
    assert "A. 5 mg" in page
    assert PASSAGE in page
    assert "prompt of call" not in page
    shown = Workspace(tmp_path / "w").show("t1", dataset="d")
    assert [row["gold"] for row in shown.rows()] == ["+", "-", "?"]
    assert "<table>" in shown._repr_html_()
    assert ShowOptions(trace="t1", dataset="d").labeler == ()


def test_unknown_names_are_refused(cli: Cli, traces_file: Path) -> None:
    cli("import", "traces", traces_file, "--dataset", "d")
    for argv, named in (
        (("show", "zz", "--dataset", "d"), "'zz'"),
        (("show", "a", "--dataset", "zz"), "'zz'"),
        (("show", "a", "--dataset", "d", "--labeler", "zz"), "'zz'"),
        (("corpus", "show", "zz"), "'zz'"),
    ):
        called = cli(*argv)
        assert (called.code, named in called.err) == (2, True)


def test_a_document_is_shown_with_the_passages_of_its_text(cli: Cli, tmp_path: Path) -> None:
    text = "# Aspirin\n\nThe dose is 5 mg.\n\n## Renal\n\nHalve it below eGFR 30.\n"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(text)
        assert cli("corpus", "add", tmp_path / name, "--corpus", name).code == 0
    several = cli("corpus", "show", "a.md")
    assert (several.code, "--corpus one" in several.err) == (2, True)
    shown = cli("corpus", "show", "a.md", "--corpus", "two", "--json").document
    assert shown["passages"]
    for each in shown["passages"]:
        assert shown["text"][each["start"] : each["end"]] == each["text"]
    assert "The dose is 5 mg." in cli("corpus", "show", "a.md", "--corpus", "two").out
