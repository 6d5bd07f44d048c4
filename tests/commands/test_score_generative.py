"""`stepgold score` with generative families: options, stored replies, retries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stepgold
from tests.scoring.test_generative import LIKELY, SAID, P, Verifier, logprobs

Cli = Callable[..., Any]


@pytest.fixture
def imported(cli: Cli, tmp_path: Path) -> Path:
    row = {"id": "t", "problem": "What is 1+1+1?", "steps": ["1+1=2.", "2+1=3."]}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return tmp_path / "w"


def test_scores_are_stored_and_asked_once(cli: Cli, imported: Path) -> None:
    with Verifier(lambda *_: SAID["genprm"]) as server:
        base = ("score", "--dataset", "d", "--prm", "openai:m", "--family", "genprm", "--json")
        done = cli(*base, "--base-url", server.url, "--max-tokens", "77", "--budget", "1")
        assert (done.code, done.document["done"], done.document["family"]) == (0, 1, "genprm")
        calls = len(server.calls)
        again = cli(*base, "--base-url", server.url, "--max-tokens", "77")
        assert (again.document["unchanged"], len(server.calls)) == (1, calls)
        other = cli(*base, "--base-url", server.url)
        assert other.code == 2, "another limit is another labeler"
    assert {body["max_tokens"] for _, body, _ in server.calls} == {77, 1}
    [label] = stepgold.Workspace(imported).labels(dataset="d", labeler="prm")
    assert [step.score for step in label.step_labels] == pytest.approx([P, P])
    assert "Let's analyze the Paragraph 2" in str(label.step_labels[1].reasoning)


def test_unreadable_traces_are_asked_again(cli: Cli, imported: Path) -> None:
    listed = {"first": logprobs(x=-1.0)}
    with Verifier(lambda *_: SAID["r-prm"], lambda _: listed["first"]) as server:
        asked = ("--prm", "openai:m", "--family", "r-prm", "--votes", "1", "--json")
        where = ("--dataset", "d", "--base-url", server.url)
        first = cli("score", *where, *asked)
        assert (first.code, first.document["abstained"]) == (1, {"unreadable": 1})
        listed["first"] = LIKELY
        retried = cli("retry", *where, "--labeler", "prm", "--json")
        assert retried.document["done"] == 1
    [label] = stepgold.Workspace(imported).labels(dataset="d", labeler="prm")
    assert label.abstention is None


def test_options_and_models_that_do_not_fit_are_refused(cli: Cli, imported: Path) -> None:
    score = ("score", "--dataset", "d", "--prm")
    assert "--prm" in cli(*score, "gemini:gemini-3.5-flash", "--family", "genprm").err
    needless = cli(*score, "hf:nowhere", "--family", "qwen-prm", "--votes", "3")
    assert needless.code == 2
    assert "generative" in needless.err
    equal = cli(*score, "openai:m", "--family", "fover", "--votes", "3")
    assert (equal.code, "all be equal" in equal.err) == (2, True)
