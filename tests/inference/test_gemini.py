"""The real google-genai client against the loopback server: every behaviour we rely on."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from inference.gemini.model import GeminiModel
from inference.prices import Service
from inference.protocol import GenerationRequest, Message
from inference.retries import RetryPolicy
from tests.loopback.gemini_failures import PASSING
from tests.loopback.gemini_server import GeminiServer
from traces.errors import InputError, ModelRefused, ModelUnavailable, QuotaExhausted
from traces.records import ModelReply

NOVEMBER = date(2026, 11, 15)
SCHEMA = {
    "type": "object",
    "properties": {
        "steps": {"type": "array", "items": {"required": ["step", "reasoning", "verdict"]}}
    },
}
ASK = GenerationRequest((Message("system", "Judge."), Message("user", "Step 1: a\nStep 2: b")), 500)
JUDGE = replace(ASK, response_json_schema=SCHEMA)


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    with GeminiServer() as running:
        yield running


def model(server: GeminiServer, name: str = "gemini-3.5-flash-lite", **options: Any) -> GeminiModel:
    """A model that does not really wait between attempts."""

    async def no_wait(seconds: float) -> None:
        WAITED.append(seconds)

    WAITED.clear()
    options.setdefault("environ", {"GEMINI_API_KEY": "k3y"})
    made = GeminiModel(name, base_url=server.url, sleep=no_wait, **options)
    made.today = lambda: NOVEMBER
    return made


WAITED: list[float] = []


def ask(client: GeminiModel, request: GenerationRequest = ASK) -> ModelReply:
    async def once() -> ModelReply:
        try:
            return await client.generate(request)
        finally:
            await client.aclose()

    return asyncio.run(once())


def test_a_reply_carries_text_tokens_cost_version_and_the_raw_body(server: GeminiServer) -> None:
    reply = ask(model(server), JUDGE)
    assert reply.text is not None
    assert [step["step"] for step in json.loads(reply.text)["steps"]] == [1, 2]
    assert reply.finish_reason == "stop"
    assert (reply.model, reply.resolved_model) == (
        "gemini:gemini-3.5-flash-lite",
        "gemini-3.5-flash-lite",
    )
    counted = json.loads(reply.raw)["usageMetadata"]
    assert reply.usage.input_tokens == counted["promptTokenCount"] > 0
    assert reply.usage.output_tokens == counted["candidatesTokenCount"] > 0
    expected = reply.usage.input_tokens * 0.30e-6 + reply.usage.output_tokens * 2.50e-6
    assert reply.usd == pytest.approx(expected)
    assert reply.prices_as_of == "2026-10-07"


def test_what_is_sent(server: GeminiServer) -> None:
    ask(model(server), replace(JUDGE, seed=3, stop=("END",), temperature=0.5, top_p=0.9))
    (call,), (body,) = server.calls, server.bodies
    assert call["path"] == "/v1beta/models/gemini-3.5-flash-lite:generateContent"
    assert body["contents"] == [{"parts": [{"text": "Step 1: a\nStep 2: b"}], "role": "user"}]
    assert body["systemInstruction"]["parts"] == [{"text": "Judge."}]
    config = body["generationConfig"]
    assert config["responseJsonSchema"] == SCHEMA
    assert list(config["responseJsonSchema"]) == list(SCHEMA)
    assert config["responseMimeType"] == "application/json"
    assert (config["maxOutputTokens"], config["seed"], config["stopSequences"]) == (500, 3, ["END"])
    assert {each["threshold"] for each in body["safetySettings"]} == {"OFF"}
    assert len(body["safetySettings"]) == 4
    assert "temperature" not in config, "Gemini 3 ignores or rejects it"
    assert "topP" not in config


@pytest.mark.parametrize("service", ["standard", "flex"])
def test_a_call_asks_for_what_the_row_of_a_batch_file_asks_for(
    server: GeminiServer, service: Service
) -> None:
    turns = (*JUDGE.messages, Message("assistant", "{"), Message("user", "go on"))
    asked = replace(JUDGE, messages=turns, seed=3, stop=("END",), temperature=0.5)
    client = model(server, service=service)
    ask(client, asked)
    (body,) = server.bodies
    assert body.pop("serviceTier", "standard") == service
    assert body == client.rest_body(asked, {})


def test_gemini_2_still_takes_its_knobs(server: GeminiServer) -> None:
    ask(model(server, "gemini-2.5-flash-lite"), replace(ASK, temperature=0.0, top_p=0.5))
    config = server.bodies[0]["generationConfig"]
    assert (config["temperature"], config["topP"]) == (0.0, 0.5)


def test_flex_is_asked_for_and_costs_half(server: GeminiServer) -> None:
    standard, flex = ask(model(server)), ask(model(server, service="flex"))
    assert "serviceTier" not in server.bodies[0]
    assert server.bodies[1]["serviceTier"] == "flex"
    assert standard.usd is not None
    assert flex.usd == pytest.approx(standard.usd / 2)


def test_batch_is_refused_before_anything_is_sent(server: GeminiServer) -> None:
    with pytest.raises(InputError, match='"batch" is not available'):
        model(server, service="batch")


def test_stray_sdk_settings_do_not_change_the_request(
    server: GeminiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GOOGLE_GENAI_USE_VERTEXAI=true left in a shell would switch paths and credentials."""
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", "v9")
    monkeypatch.setenv("GOOGLE_API_KEY", "other")
    assert ask(model(server)).finish_reason == "stop"
    assert server.calls[0]["path"].startswith("/v1beta/models/")


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_absorbed_and_bought_once(server: GeminiServer, fault: str) -> None:
    server.script[:] = [fault, fault]
    client = model(server)
    assert ask(client).finish_reason == "stop"
    assert [call["outcome"] for call in server.calls] == [fault, fault, "ok"]
    assert client.retries == 2
    assert sum(server.billed.values()) == 1


def test_an_empty_body_is_tried_again(server: GeminiServer) -> None:
    server.script[:] = ["empty_body"]
    assert ask(model(server)).text is not None


@pytest.mark.parametrize("fault", ["429_retry_after", "429_retry_info"])
def test_it_waits_as_long_as_the_server_asks(server: GeminiServer, fault: str) -> None:
    """The SDK would not: its own retry layer knows neither header nor RetryInfo."""
    server.wait_s = 40.0
    server.script[:] = [fault]
    ask(model(server))
    (waited,) = WAITED
    assert 40.0 <= waited <= 41.0


def test_retries_are_bounded(server: GeminiServer) -> None:
    server.script[:] = ["503"] * 9
    with pytest.raises(ModelUnavailable, match="no reply in 3 attempts: 503 The model is over"):
        ask(model(server, retry=RetryPolicy(attempts=3)))
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("fault", "finish_reason", "has_text"),
    [
        ("safety", "blocked", False),
        ("recitation", "blocked", False),
        ("blocked_prompt", "blocked", False),
        ("max_tokens", "length", True),
        ("max_tokens_no_text", "length", False),
        ("no_candidates", "empty", False),
        ("unknown_finish", "solar_flare", True),
        ("fenced", "stop", True),
        ("wrong_schema", "stop", True),
    ],
)
def test_what_was_paid_for_is_a_reply_and_not_asked_again(
    server: GeminiServer, fault: str, finish_reason: str, has_text: bool
) -> None:
    server.script[:] = [fault]
    reply = ask(model(server), JUDGE)
    assert (reply.finish_reason, reply.text is not None) == (finish_reason, has_text)
    assert len(server.calls) == 1
    assert reply.raw
    assert reply.usd is not None


def test_a_wrong_key_is_one_clear_error_without_the_key(
    server: GeminiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.key = "another"
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelRefused) as refusal:
        ask(model(server, environ={"GOOGLE_API_KEY": "k3y"}))
    assert "check the key in GOOGLE_API_KEY" in str(refusal.value)
    assert "k3y" not in str(refusal.value) + caplog.text
    assert len(server.calls) == 1


def test_an_unknown_model_is_named(server: GeminiServer) -> None:
    with pytest.raises(ModelRefused, match='check the model name in "gemini:gemma-9"'):
        ask(model(server, "gemma-9"))
    assert len(server.calls) == 1


def test_the_days_quota_stops_at_once(server: GeminiServer) -> None:
    server.script[:] = ["429_daily"]
    with pytest.raises(QuotaExhausted, match="run the same command again"):
        ask(model(server))
    assert len(server.calls) == 1


def test_a_prompt_beyond_the_window_is_recorded_as_such(server: GeminiServer) -> None:
    server.max_input_tokens = 2
    reply = ask(model(server))
    assert (reply.text, reply.finish_reason, reply.usd) == (None, "over_length", 0.0)
    assert "exceeds the maximum number of tokens" in reply.raw


def test_an_assistant_turn_at_the_end_is_refused_before_sending(server: GeminiServer) -> None:
    with pytest.raises(ModelRefused, match="user turn"):
        ask(model(server), replace(ASK, messages=(*ASK.messages, Message("assistant", "a"))))
    assert server.calls == []


def test_a_server_that_is_not_there_is_unavailable_after_the_retries() -> None:
    with GeminiServer() as server:
        pass
    with pytest.raises(ModelUnavailable, match="connection failed"):
        ask(model(server, retry=RetryPolicy(attempts=2)))
    assert len(WAITED) == 1


def test_a_reply_that_does_not_come_is_a_time_out(server: GeminiServer) -> None:
    server.delay_ms = 400
    with pytest.raises(ModelUnavailable, match=r"time-out|no reply within"):
        ask(model(server, retry=RetryPolicy(attempts=1, attempt_s=0.1)))


def test_no_key_is_said_before_anything_is_sent() -> None:
    with pytest.raises(InputError, match="GEMINI_API_KEY"):
        GeminiModel("gemini-3.5-flash-lite", environ={"GEMINI_API_KEY": "  "})


def test_the_base_url_comes_from_the_environment(server: GeminiServer) -> None:
    environ = {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url + "/gemini/"}
    client = GeminiModel("models/gemini-3.5-flash-lite", environ=environ)
    assert ask(client).finish_reason == "stop"
    assert server.calls[0]["path"].startswith("/gemini/v1beta/models/gemini-3.5")


def test_credentials_in_the_base_url_are_refused() -> None:
    environ = {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": "http://u:pw@127.0.0.1"}
    with pytest.raises(InputError, match="GOOGLE_GEMINI_BASE_URL"):
        GeminiModel("gemini-3.5-flash-lite", environ=environ)


def test_one_client_serves_many_requests_at_once(server: GeminiServer) -> None:
    server.fault_rate = 0.3
    client = model(server, concurrency=8, retry=RetryPolicy(attempts=12))

    async def many() -> list[ModelReply]:
        asked = [
            client.generate(replace(ASK, messages=(Message("user", f"Step 1: {number}"),)))
            for number in range(40)
        ]
        try:
            return await asyncio.gather(*asked)
        finally:
            await client.aclose()

    replies = asyncio.run(many())
    assert all(reply.finish_reason == "stop" for reply in replies)
    assert client.retries > 0
    assert set(server.billed.values()) == {1}


def test_a_reply_without_counts_has_no_price() -> None:
    """0 USD would let a budget pass whatever a proxy that drops the counts brings."""
    with GeminiServer(usage={}) as server:
        reply = ask(model(server), JUDGE)
    assert reply.text is not None
    assert (reply.usd, reply.prices_as_of) == (None, None)
