"""`stepgold retry`: what failed is asked again, what was paid for is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import Store
from tests.loopback.gemini_server import GeminiServer
from tests.loopback.openai_server import OpenAIServer

Cli = Callable[..., Any]
JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", "--concurrency", "1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GeminiServer]:
    with GeminiServer() as running:
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", running.url)
        yield running


@pytest.fixture
def imported(cli: Cli, tmp_path: Path) -> Cli:
    """Four traces of two steps, in dataset d."""
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for i in range(4):
            steps = [f"{i} + 1 = {i + 1}.", f"The answer is {i + 1}."]
            row = {"id": f"t{i}", "problem": f"What is {i} + 1?", "answer": str(i + 1)}
            file.write(json.dumps(row | {"steps": steps}) + "\n")
    assert cli("import", "traces", path, "--dataset", "d").code == 0
    return cli


def metas(tmp_path: Path, labeler: str = "judge") -> dict[str, dict[str, Any]]:
    with Store.open(f"sqlite:///{tmp_path / 'w' / 'stepgold.db'}") as store:
        return {key: dict(label.meta) for key, label in store.labels.load("d", labeler).items()}


def test_an_unreadable_reply_is_asked_anew_and_not_read_again(
    imported: Cli, server: GeminiServer, tmp_path: Path
) -> None:
    server.script[:] = ["ok", "no_json", "safety", "ok"]
    first = imported(*JUDGE, "--json")
    assert first.document["abstained"] == {"unreadable": 1, "blocked": 1}
    server.script[:] = ["wrong_schema"]
    second = imported("retry", "--json")
    assert (second.code, second.document["abstained"]) == (1, {"unreadable": 1})
    third = imported("retry", "--json")
    assert (third.code, third.document["done"], third.document["failed"]) == (0, 1, 0)
    assert third.document["labelers"][0]["labeler"] == "judge"
    assert metas(tmp_path)["t1"]["retries"] == 2
    assert "retries" not in metas(tmp_path)["t0"]
    nothing = imported("retry", "--json")
    assert (nothing.code, nothing.document["done"], nothing.document["labelers"]) == (0, 0, [])
    assert len(server.calls) == 6, "blocked is no fault that asking again helps"
    assert {failure["reason"] for failure in imported("status", "--json").document["failures"]} == {
        "blocked"
    }


def test_what_was_cut_is_asked_again_with_a_wider_limit(
    imported: Cli, server: GeminiServer, tmp_path: Path
) -> None:
    assert imported(*JUDGE, "--max-tokens", "9", "--json").document["abstained"] == {"truncated": 4}
    again = imported("retry", "--max-tokens", "2000", "--labeler", "judge", "--json")
    assert (again.code, again.document["done"]) == (0, 4)
    assert all(meta["max_tokens"] == 2000 for meta in metas(tmp_path).values())
    assert [body["generationConfig"]["maxOutputTokens"] for body in server.bodies] == [9] * 4 + [
        2000
    ] * 4
    resumed = imported(*JUDGE, "--max-tokens", "9", "--json")
    assert (resumed.code, resumed.document["unchanged"]) == (0, 4), "it is the same labeler still"


def test_a_retry_that_was_stopped_goes_on_where_it_was(imported: Cli, server: GeminiServer) -> None:
    server.script[:] = ["no_json", "no_json", "ok", "ok"]
    imported(*JUDGE)
    server.script[:] = ["ok", "429_daily"]
    stopped = imported("retry", "--concurrency", "1", "--json")
    assert (stopped.code, stopped.document["done"], stopped.document["failed"]) == (1, 1, 1)
    assert "quota" in stopped.document["stopped"]
    assert imported("retry", "--json").document["done"] == 1
    assert max(server.billed.values()) == 2, "the two samples of one prompt, each bought once"
    assert sum(server.billed.values()) == 6


def test_a_refused_key_changes_nothing(imported: Cli, server: GeminiServer) -> None:
    server.script[:] = ["no_json", "ok", "ok", "ok"]
    imported(*JUDGE)
    server.key = "another"
    refused = imported("retry", "--json")
    assert refused.code == 2
    assert "GEMINI_API_KEY" in refused.document["error"]["remedy"]
    assert len(imported("status", "--json").document["failures"]) == 1


def test_a_budget_holds_for_all_labelers_together(imported: Cli, server: GeminiServer) -> None:
    server.script[:] = ["no_json"] * 8
    imported(*JUDGE)
    imported(*JUDGE, "--name", "other", "--evidence-tokens", "10")
    stopped = imported("retry", "--budget", "0.000001", "--json")
    assert (stopped.code, stopped.document["done"], stopped.document["failed"]) == (1, 0, 8)
    assert len(server.calls) == 8 - 4, "the second labeler read the replies of the first"


def test_a_prompt_of_ones_own_is_used_again(
    imported: Cli, server: GeminiServer, tmp_path: Path
) -> None:
    from importlib.resources import files

    prompt = tmp_path / "own.txt"
    text = files("judge").joinpath("prompt.txt").read_text(encoding="utf-8")
    prompt.write_text(text.replace("--- user ---\n", "--- user ---\nMark well.\n"))
    server.script[:] = ["no_json", "ok", "ok", "ok"]
    imported(*JUDGE, "--prompt", prompt)
    prompt.unlink()
    assert imported("retry", "--json").code == 0
    assert "Mark well." in json.dumps(server.bodies[-1])


def test_the_continuations_of_a_failed_trace_that_were_paid_are_used(
    imported: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenAIServer("The answer is 1.") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        refusal: tuple[int, Any, dict[str, str]]
        refusal = (400, {"error": {"message": "maximum context length is 9 tokens"}}, {})
        server.script[:] = [refusal]
        options = ("--dataset", "d", "--policy", "openai:m", "-k", "2", "--concurrency", "1")
        first = imported("continue", *options, "--json")
        assert first.document["abstained"] == {"over_length": 1}
        bought = len(server.calls)
        assert bought == 4 * 2 * 2
        as_it_is = imported("retry", "--json")
        assert (as_it_is.code, as_it_is.document["failed"]) == (1, 1)
        assert "--max-tokens" in as_it_is.err
        assert len(server.calls) == bought
        shorter = imported("retry", "--max-tokens", "64", "--json")
        assert (shorter.code, shorter.document["done"]) == (0, 1)
        assert {body["max_tokens"] for _, body, _ in server.calls[bought:]} == {64}
        assert imported("continue", *options, "--json").document["unchanged"] == 4


@pytest.mark.slow
def test_a_consensus_takes_the_new_word(
    imported: Cli, server: GeminiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script[:] = ["no_json", "ok", "ok", "ok"]
    imported(*JUDGE)
    with OpenAIServer("The answer is 1.") as policy:
        monkeypatch.setenv("OPENAI_BASE_URL", policy.url)
        imported("continue", "--dataset", "d", "--policy", "openai:m", "-k", "1")
    agree = ("consensus", "--dataset", "d", "--judge", "judge", "--mc", "mc", "--json")
    assert imported(*agree).document["unchanged"] == 0
    imported("retry")
    after = imported(*agree).document
    assert after["unchanged"] == 3
    assert after["done"] + sum(after["abstained"].values()) == 1


@pytest.mark.parametrize(
    "argv",
    [
        ("--dataset", "nope"),
        ("--dataset", "d", "--labeler", "nope"),
        ("--labeler", "nope"),
    ],
)
def test_what_is_not_there_is_said(imported: Cli, argv: tuple[str, ...]) -> None:
    called = imported("retry", *argv, "--json")
    assert called.code == 2
    assert "nope" in called.document["error"]["what"]


def test_what_was_held_back_is_asked_once_it_may_be(
    cli: Cli, server: GeminiServer, tmp_path: Path
) -> None:
    """The reason of such a trace names --allow-phi: there has to be a command that takes it."""
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"id": "a", "problem": "q", "steps": ["s"], "meta": {"phi_removed": false}}\n'
        '{"id": "b", "problem": "q", "steps": ["t"]}\n'
    )
    cli("import", "traces", path, "--dataset", "d")
    assert cli(*JUDGE, "--json").document["abstained"] == {"filtered": 1}
    assert cli("retry", "--json").document["labelers"] == []
    assert len(server.calls) == 1
    assert cli("retry", "--allow-phi", "--json").document["done"] == 1
    assert len(server.calls) == 2
    assert cli("retry", "--allow-phi", "--json").document["labelers"] == []
