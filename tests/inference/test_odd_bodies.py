"""Bodies of any shape: each costs its own request, and none ends a run as a defect."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from inference.gemini.model import GeminiModel
from inference.openai.json_client import JsonClient
from inference.openai.model import OpenAIModel
from inference.protocol import GenerationRequest, Message
from inference.retries import HttpFault, RetryPolicy, Subject, exception_for
from tests.loopback.recording_server import RecordingServer
from traces import ModelRefused, ModelUnavailable, QuotaExhausted, watch_defects

ENVIRON = {"GEMINI_API_KEY": "k-0123456789", "OPENAI_API_KEY": "k-0123456789"}
ASK = GenerationRequest((Message("user", "1 + 1?"),), 8)
ONCE = RetryPolicy(attempts=1)
BODIES = {
    "not UTF-8": b'{"candidates": "\xed\xa0\x80\xff"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "deep": b'{"a":' * 20_000,
    "digits": b'{"usage": ' + b"9" * 5000 + b"}",
    "a list": b"[]",
    "nothing": b"",
    "messages that are lists": b'{"error": {"message": ["a"], "code": "x", "details": [7]}}',
    "violations that are none": b'{"error": {"details": [{"@type": "x.QuotaFailure",'
    b' "violations": 7}], "message": "no", "code": 429}}',
}


async def no_sleep(_: float) -> None:
    """Waits are not what is tested."""


def generate(kind: Any, url: str) -> None:
    model = kind("m", base_url=url, environ=ENVIRON, retry=ONCE, sleep=no_sleep)

    async def once() -> None:
        try:
            await model.generate(ASK)
        finally:
            await model.aclose()

    asyncio.run(once())


def get(_: Any, url: str) -> None:
    with JsonClient("m", base_url=url, environ=ENVIRON, retry=ONCE, sleep=no_sleep) as client:
        client.get("/v1/models")


@pytest.mark.parametrize("status", [200, 400, 429, 503])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    ("ask", "kind"), [(generate, GeminiModel), (generate, OpenAIModel), (get, JsonClient)]
)
def test_no_body_ends_a_run_as_a_defect(ask: Any, kind: Any, body: str, status: int) -> None:
    usual = contextlib.suppress(ModelUnavailable, ModelRefused, QuotaExhausted)
    with RecordingServer(status, BODIES[body]) as server, watch_defects() as met, usual:
        ask(kind, server.url)
    assert not met


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (GeminiModel, "inference.gemini.client.read_body"),
        (OpenAIModel, "inference.openai.model.read_body"),
    ],
)
def test_a_reply_read_wrongly_costs_one_request_and_is_not_paid_again(
    kind: Any, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(body: str) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(part, failing)
    with RecordingServer(200, {"choices": [], "candidates": []}) as server:
        model = kind("m", base_url=server.url, environ=ENVIRON)

        async def once() -> None:
            try:
                await model.generate(ASK)
            finally:
                await model.aclose()

        with watch_defects() as met, pytest.raises(ModelUnavailable, match="boom"):
            asyncio.run(once())
        assert len(server.received) == 1
    assert len(met) == 1


def test_a_date_of_another_age_names_no_time_to_wait() -> None:
    headers = {"retry-after": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}
    exception_for(HttpFault(503, "no", headers, None), Subject("m", "KEY", "k"))
