"""JSON to JSON over a real socket: what is asked again, what ends the run, what is never sent twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from inference.openai.json_client import JsonClient
from inference.retries import RequestTooLong, RetryPolicy
from tests.loopback.openai_server import OpenAIServer
from traces.errors import InputError, ModelRefused, ModelUnavailable

Waits = list[float]


@contextmanager
def client(url: str, *, attempts: int = 3, concurrency: int = 1, **environ: str) -> Iterator[Any]:
    """A client that waits for nothing, and what it would have waited."""
    waits: Waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    policy = RetryPolicy(attempts=attempts)
    with JsonClient(
        "m", base_url=url, concurrency=concurrency, retry=policy, sleep=sleep, environ=environ
    ) as server:
        yield server, waits


def calls(count: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for number in range(count):
        yield number, "/score", {"number": number}


def test_every_call_is_answered_once_whatever_is_in_between() -> None:
    with OpenAIServer() as stub:
        stub.script = [
            (429, {"error": {"message": "slow down"}}, {"Retry-After": "700"}),
            (500, {"detail": "oops"}, {}),
            (200, b"<html>gateway</html>", {"Content-Type": "text/html"}),
            (200, [1, 2], {}),
        ]
        with client(stub.url, attempts=6) as (server, waits):
            answered = list(server.run(calls(3)))
        assert [number for number, _ in answered] == [0, 1, 2]
        assert all(reply["model"] == "stub-2026" for _, reply in answered)
        # One wait is the service's own: the gate closes for that long.
        assert 600 < max(waits) < 701
        assert server.retries == 4
        assert [body["number"] for _, body, _ in stub.calls] == [0] * 5 + [1, 2]
        assert {path for path, _, _ in stub.calls} == {"/score"}


def test_what_is_no_json_is_named_when_all_attempts_are_used_up() -> None:
    with OpenAIServer() as stub, client(stub.url, attempts=2) as (server, _):
        stub.script = [(200, b"<html><body>Please log in", {})] * 2
        first, second = server.run(calls(2))
        assert isinstance(first[1], ModelUnavailable)
        assert (
            'the reply to /score is not a JSON object ("<html><body>Please log in")'
            in first[1].what
        )
        assert second[1]["model"] == "stub-2026"


def test_too_long_is_a_fact_about_one_call() -> None:
    with OpenAIServer() as stub, client(stub.url) as (server, _):
        stub.script = [(400, {"error": {"message": "maximum context length is 8"}}, {})]
        first, second = server.run(calls(2))
        assert isinstance(first[1], RequestTooLong)
        assert second[1]["model"] == "stub-2026"


def test_a_refusal_ends_the_run_after_what_was_on_the_wire() -> None:
    with OpenAIServer() as stub, client(stub.url, concurrency=2) as (server, _):
        stub.script = [(404, {"detail": "Not Found"}, {})]
        drawn: list[int] = []
        yielded: list[int] = []

        def asked() -> Iterator[tuple[int, str, dict[str, Any]]]:
            for call in calls(100):
                drawn.append(call[0])
                yield call

        with pytest.raises(ModelRefused, match="404 for /score: Not Found"):
            yielded.extend(number for number, _ in server.run(asked()))
        # All but the refused one of what was sent came back; of the rest nothing was sent.
        assert len(yielded) == len(drawn) - 1
        assert len(drawn) == len(stub.calls) < 20


def test_calls_are_drawn_as_places_become_free() -> None:
    with OpenAIServer() as stub, client(stub.url, concurrency=2) as (server, _):
        drawn = []

        def asked() -> Iterator[tuple[int, str, dict[str, Any]]]:
            for call in calls(20):
                drawn.append(call[0])
                yield call

        answers = server.run(asked())
        for taken in range(1, 21):
            next(answers)
            assert len(drawn) <= taken - 1 + 4
        assert next(answers, None) is None


def test_a_server_that_is_gone_ends_the_run_a_fault_now_and_then_does_not() -> None:
    down: tuple[int, Any, dict[str, str]] = (500, {"error": "out of memory"}, {})
    with OpenAIServer() as stub, client(stub.url, attempts=1) as (server, _):
        stub.script = [down, (200, {"model": "m"}, {})] * 5
        answered = [reply for _, reply in server.run(calls(10))]
        assert [isinstance(reply, ModelUnavailable) for reply in answered] == [True, False] * 5
        stub.script = [down] * 50
        lost: list[Any] = []
        with pytest.raises(ModelUnavailable, match="500 for /score: out of memory"):
            lost.extend(reply for _, reply in server.run(calls(50)))
        assert len(lost) == 1
        assert len(stub.calls) < 20


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with client(url, attempts=2) as (server, waits):
        with pytest.raises(ModelUnavailable, match="no reply in 2 attempts: connection failed"):
            server.get("/v1/models")
        assert len(waits) == 1


def test_the_key_goes_into_the_header_and_nowhere_else() -> None:
    with OpenAIServer() as stub, client(stub.url, OPENAI_API_KEY="s3cret-key") as (server, _):
        stub.script = [(401, {"error": {"message": "no such key: s3cret-key"}}, {})]
        with pytest.raises(ModelRefused) as refused:
            list(server.run(calls(1)))
        assert stub.calls[0][2] == "Bearer s3cret-key"
        assert "s3cret-key" not in str(refused.value)
        assert "OPENAI_API_KEY" in str(refused.value)
    with OpenAIServer() as stub, client(stub.url) as (server, _):
        list(server.run(calls(1)))
        assert stub.calls[0][2] == ""


@pytest.mark.parametrize(
    ("url", "words"),
    [(None, "no server"), ("http://u:p@h/v1", "user:password"), ("h:1", "not an http")],
)
def test_an_address_is_needed_and_looked_at(url: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        JsonClient("m", base_url=url, environ={})


def test_the_root_lies_above_v1() -> None:
    for url, root in (("http://h:1/v1/", "http://h:1"), ("https://h/prm", "https://h/prm")):
        with JsonClient("m", base_url=url, environ={}) as server:
            assert server.root == root
            assert server.hosted
    with JsonClient("m", environ={"OPENAI_BASE_URL": "http://127.0.0.1:8/v1"}) as server:
        assert (server.root, server.hosted) == ("http://127.0.0.1:8", False)
