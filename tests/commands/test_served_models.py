"""Options of OpenAI-compatible servers on the command line: fields, reasoning, several servers."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Cli
from tests.commands.test_continue_strategies import imported, serving
from tests.inference.test_openai_dialects import Azure
from tests.loopback.openai_server import OpenAIServer

STEPS = [
    {"step": n, "document": None, "quote": None, "reasoning": "r", "verdict": "correct"}
    for n in (1, 2)
]
JUDGED = json.dumps({"steps": STEPS})
TEMPLATE = 'chat_template_kwargs={"enable_thinking": false}'


class Reasoning(OpenAIServer):
    """A server with a reasoning parser: with `thinks`, everything it writes is reasoning."""

    thinks = True

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """A reply whose content is empty while it thinks."""
        status, made, headers = super().answer(path, body)
        if self.thinks:
            message = {"role": "assistant", "content": None, "reasoning_content": "Let me see."}
            made["choices"] = [{"index": 0, "finish_reason": "length", "message": message}]
            del made["usage"]["completion_tokens_details"]
        return status, made, headers


@pytest.fixture
def judged(cli: Cli, tmp_path: Path) -> Cli:
    rows = [
        {"id": name, "problem": f"What is {name}?", "steps": ["One.", "Two."]} for name in "abc"
    ]
    file = tmp_path / "two_steps.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert cli("import", "traces", file, "--dataset", "d").code == 0
    return cli


def database(tmp_path: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(tmp_path / "w" / "stepgold.db") as connection:
        return list(connection.execute(query))


def test_a_server_that_refuses_fields_labels_every_trace(judged: Cli) -> None:
    with Azure(JUDGED) as server:
        called = judged(
            *("judge", "--dataset", "d", "--judge", "openai:m", "--base-url", server.url),
            *("--concurrency", "1", "--json"),
        )
    assert (called.code, called.document["done"]) == (0, 3)
    assert called.err.count("max_completion_tokens") == 1
    assert "does not take temperature=0.0" in called.err


def test_reasoning_without_an_answer_says_what_to_do(judged: Cli, tmp_path: Path) -> None:
    argv = ("judge", "--dataset", "d", "--judge", "openai:m", "--json", "--base-url")
    with Reasoning(JUDGED) as server:
        called = judged(*argv, server.url)
        assert called.code == 1
        assert called.document["abstained"] == {"truncated": 3}
        server.thinks = False
        assert judged("retry", "--base-url", server.url, "--max-tokens", "9000").code == 0
    details = database(tmp_path, "SELECT DISTINCT thinking_tokens FROM model_calls")
    assert (5,) in details, "reasoning is counted in the ledger"


def test_fields_are_stored_with_the_labeler_and_used_again(judged: Cli, tmp_path: Path) -> None:
    argv = ("judge", "--dataset", "d", "--judge", "openai:m", "--json")
    more = ("--reasoning-effort", "low", "--request-option", TEMPLATE)
    with OpenAIServer("no JSON") as server:
        assert judged(*argv, "--base-url", server.url, *more).code == 1
        assert all(body["reasoning_effort"] == "low" for _, body, _ in server.calls)
        assert all(
            body["chat_template_kwargs"] == {"enable_thinking": False}
            for _, body, _ in server.calls
        )
        other = judged(*argv, "--base-url", server.url)
        assert other.code == 2, "the same name with other fields"
        server.calls.clear()
        server.text = JUDGED
        assert judged("retry", "--base-url", server.url).code == 0
        assert {body["reasoning_effort"] for _, body, _ in server.calls} == {"low"}
    ((config,),) = database(tmp_path, "SELECT config FROM labelers WHERE name = 'judge'")
    assert json.loads(config)["request_options"] == {
        "chat_template_kwargs": {"enable_thinking": False},
        "reasoning_effort": "low",
    }


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("--judge", "openai:m", "--request-option", "top_k"), "is not KEY=JSON"),
        (("--judge", "openai:m", "--request-option", "top_k=many"), "is not KEY=JSON"),
        (("--judge", "openai:m", "--request-option", 'model="x"'), "is written by StepGold"),
        (("--judge", "openai:m", "--request-option", "max_tokens=9"), "is written by StepGold"),
        (("--judge", "openai:m", "--request-option", "top_k=NaN"), "is not JSON"),
        (("--judge", "gemini:g", "--reasoning-effort", "low"), "--judge openai:MODEL"),
        (("--judge", "openai:m", "--reasoning-effort", "much"), "much"),
    ],
)
def test_fields_that_cannot_be_added(judged: Cli, more: tuple[str, ...], what: str) -> None:
    called = judged("judge", "--dataset", "d", *more)
    assert called.code == 2
    assert what in called.err


def test_the_project_file_may_name_one_field(
    judged: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "w" / "stepgold.toml").write_text('[judge]\nrequest_option = "top_k=3"\n')
    assert judged("trust").code == 0
    with OpenAIServer(JUDGED) as server:
        argv = ("judge", "--dataset", "d", "--judge", "openai:m", "--base-url", server.url)
        assert judged(*argv).code == 0
        assert {body["top_k"] for _, body, _ in server.calls} == {3}


def test_one_model_of_gemini_has_one_server(judged: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "made-up-key")
    urls = ("--base-url", "http://127.0.0.1:9", "--base-url", "http://127.0.0.1:10")
    called = judged("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", *urls)
    assert called.code == 2
    assert "has one server, but 2 were given" in called.err


class Dying(OpenAIServer):
    """A server that ends with its tenth request, without an answer to those in flight."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._first = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """A reply to one of the first nine requests."""
        if len(self.calls) >= 10 and self._first.acquire(blocking=False):
            self.die()
        return super().answer(path, body)


def test_only_calls_in_flight_at_a_dead_server_are_sent_twice(cli: Cli, tmp_path: Path) -> None:
    """By the servers' own counts of requests."""
    n, in_flight = 40, 4
    rows = [{"id": f"t{at}", "problem": f"{at}?", "steps": ["One.", "Two."]} for at in range(n)]
    file = tmp_path / "t.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert cli("import", "traces", file, "--dataset", "d").code == 0
    with OpenAIServer(JUDGED) as living, Dying(JUDGED) as dying:
        called = cli(
            *("judge", "--dataset", "d", "--judge", "openai:m", "--concurrency", in_flight),
            *("--base-url", living.url, "--base-url", dying.url, "--json"),
        )
        sent = [
            Counter(json.dumps(body, sort_keys=True) for _, body, _ in server.calls)
            for server in (living, dying)
        ]
    assert (called.code, called.document["done"]) == (0, n)
    everywhere = sent[0] + sent[1]
    assert len(everywhere) == n, "every request was seen"
    repeated = {body for body, count in everywhere.items() if count > 1}
    assert 1 <= len(repeated) <= in_flight
    assert max(sent[0].values()) == max(sent[1].values()) == 1, "none twice at one server"


@pytest.mark.slow
def test_two_servers_one_killed_in_the_middle(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every trace is labeled, and what was answered is not asked for again."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    imported(cli, tmp_path / "w", tmp_path)
    with serving() as (_, one), serving(0, "--die-after", "60") as (dying, two):
        urls = [f"http://127.0.0.1:{port}/v1" for port in (one, two)]
        called = cli(
            *("continue", "--dataset", "d", "--policy", "openai:m", "--stop", "\\n\\n", "-k", "8"),
            *("--base-url", urls[0], "--base-url", urls[1], "--concurrency", "4", "--json"),
        )
        assert dying.wait(timeout=60) == 9
    assert (called.code, called.document["done"]) == (0, 12)
    rows = database(tmp_path, "SELECT meta FROM model_calls")
    calls = [json.loads(meta) for (meta,) in rows]
    servers = Counter(call["server"] for call in calls)
    assert set(servers) == {f"127.0.0.1:{one}", f"127.0.0.1:{two}"}
    of_trace = Counter((call["trace_id"], call["server"]) for call in calls)
    moved = Counter(trace for trace, _ in of_trace)
    assert sum(count == 2 for count in moved.values()) <= 4, "only traces of the dead one moved"
    assert "Requests of openai:m by server" in called.err
    print(called.err)
