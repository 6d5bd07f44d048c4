"""The plain openai client against a loopback server: what is sent, what is read, what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from inference.dispatch import Dispatcher
from inference.openai.model import OpenAIModel, Template
from inference.openai.wire import cut_at_stop, read_body
from inference.protocol import GenerationRequest, Message
from inference.retries import RetryPolicy
from tests.inference.scripted import MemoryResponses
from tests.loopback.gemini_failures import HTML
from tests.loopback.openai_server import OpenAIServer
from traces.errors import InputError, ModelRefused, ModelUnavailable, QuotaExhausted
from traces.records import ModelReply, Usage

ASK = GenerationRequest((Message("system", "s"), Message("user", "q")), 50)
PREFIX = replace(ASK, messages=(Message("user", "q"), Message("assistant", "step one\n")))
SCHEMA = {"type": "object", "properties": {"steps": {"type": "array"}}}
WAITED: list[float] = []


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def model(server: OpenAIServer, **options: Any) -> OpenAIModel:
    async def no_wait(seconds: float) -> None:
        WAITED.append(seconds)

    WAITED.clear()
    options.setdefault("environ", {})
    options.setdefault("base_url", server.url)
    return OpenAIModel("m", sleep=no_wait, **options)


def ask(client: OpenAIModel, *requests: GenerationRequest) -> list[ModelReply]:
    async def all_of_them() -> list[ModelReply]:
        try:
            return [await client.generate(request) for request in requests or (ASK,)]
        finally:
            await client.aclose()

    return asyncio.run(all_of_them())


def test_a_chat_request_and_its_reply(server: OpenAIServer) -> None:
    request = replace(ASK, temperature=0.0, top_p=0.9, seed=7)
    (reply,) = ask(model(server), request)
    ((path, body, _),) = server.calls
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        "max_tokens": 50,
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": 7,
    }
    assert (reply.text, reply.finish_reason) == ("one.\ntwo.", "stop")
    assert (reply.model, reply.resolved_model) == ("openai:m", "stub-2026")
    assert reply.usage == Usage(9, 4, output_tokens=3, thinking_tokens=2)
    assert (reply.usd, reply.prices_as_of) == (0.0, None)
    assert '"stub-2026"' in reply.raw


def test_n_is_never_asked_for(server: OpenAIServer) -> None:
    """transformers serve ignores it without a word: eight samples would become one."""
    ask(model(server), ASK, replace(ASK, sample_index=1))
    assert len(server.calls) == 2
    assert all("n" not in body for _, body, _ in server.calls)


def test_a_prefix_goes_to_completions_rendered_by_the_template(server: OpenAIServer) -> None:
    def template(messages: Sequence[Message]) -> str:
        return "".join(f"<{message.role}>{message.text}" for message in messages)

    (reply,) = ask(model(server, template=template), PREFIX)
    ((path, body, _),) = server.calls
    assert path == "/v1/completions"
    assert body["prompt"] == "<user>q<assistant>step one\n"
    assert "messages" not in body
    assert reply.text == "one.\ntwo."


def test_without_a_template_the_last_turn_is_kept_open(server: OpenAIServer) -> None:
    ask(model(server), PREFIX)
    ((path, body, _),) = server.calls
    assert path == "/v1/chat/completions"
    assert body["messages"][-1] == {"role": "assistant", "content": "step one\n"}
    assert (body["add_generation_prompt"], body["continue_final_message"]) == (False, True)


def test_a_template_makes_another_question_of_a_prefix(server: OpenAIServer) -> None:
    """Who adds one because the chat endpoint began anew does not want the old replies again."""

    def plain(messages: Sequence[Message]) -> str:
        return "".join(message.text for message in messages)

    responses = MemoryResponses()

    def asked(template: Template | None, request: GenerationRequest) -> int:
        with Dispatcher(model(server, template=template), responses) as dispatcher:
            list(dispatcher.run([request]))
            return dispatcher.counters.sent

    templates = (None, None, plain, plain, lambda messages: "> " + plain(messages))
    assert [asked(each, PREFIX) for each in templates] == [1, 0, 1, 0, 1]
    assert [asked(each, ASK) for each in templates] == [1, 0, 0, 0, 0], "what is no prefix is chat"


def test_a_prefix_that_the_server_gives_back_is_taken_off(server: OpenAIServer) -> None:
    """llama.cpp does so in chat."""
    server.text = "step one\nstep two"
    (reply,) = ask(model(server), replace(PREFIX, stop=("\n",)))
    assert (reply.text, reply.finish_reason) == ("step two", "stop")


def test_text_that_only_looks_like_the_prefix_is_left_alone(server: OpenAIServer) -> None:
    """A server that once gave no prefix back never does."""
    client = model(server)
    repeats = replace(PREFIX, messages=(Message("user", "q"), Message("assistant", "one.\n")))
    replies = ask(client, PREFIX, repeats)
    assert [reply.text for reply in replies] == ["one.\ntwo."] * 2
    (templated,) = ask(model(server, template=lambda _: "p"), repeats)
    assert templated.text == "one.\ntwo."


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_does_not_continue_a_turn_is_told_apart(
    server: OpenAIServer, status: int
) -> None:
    """transformers serve refuses the flags; without them it would begin a new turn in silence."""
    server.script[:] = [(status, {"detail": "Unexpected fields"}, {})]
    with pytest.raises(ModelRefused, match="tokenizer") as refusal:
        ask(model(server), PREFIX)
    assert "Unexpected fields" in str(refusal.value)
    assert len(server.calls) == 1


def test_a_kept_stop_string_is_cut_and_the_reply_counts_as_stopped(server: OpenAIServer) -> None:
    server.finish_reason = "length"
    (reply,) = ask(model(server), replace(ASK, stop=("\n",)))
    assert server.calls[0][1]["stop"] == ["\n"]
    assert (reply.text, reply.finish_reason) == ("one.", "stop")


@pytest.mark.parametrize(
    ("text", "stop", "cut"),
    [
        ("ab", ("b",), ("a", True)),
        ("abc", ("c", "b"), ("a", True)),
        ("abc", ("x", ""), ("abc", False)),
        ("", ("x",), ("", False)),
        (None, ("x",), (None, False)),
    ],
)
def test_the_first_stop_string_cuts(
    text: str | None, stop: tuple[str, ...], cut: tuple[str | None, bool]
) -> None:
    assert cut_at_stop(text, stop) == cut


def test_a_schema_is_sent_in_its_order(server: OpenAIServer) -> None:
    ask(model(server), replace(ASK, response_json_schema=SCHEMA))
    sent = server.calls[0][1]["response_format"]
    assert sent["type"] == "json_schema"
    assert list(sent["json_schema"]["schema"]) == list(SCHEMA)


def test_a_server_without_schemas_is_asked_once_more_and_then_spared(server: OpenAIServer) -> None:
    server.refuses_response_format = True
    asked = replace(ASK, response_json_schema=SCHEMA)
    replies = ask(model(server), asked, asked)
    assert [reply.text for reply in replies] == ["one.\ntwo."] * 2
    assert ["response_format" in body for _, body, _ in server.calls] == [True, False, False]


def test_a_refusal_that_is_not_about_the_schema_stays_one(server: OpenAIServer) -> None:
    server.script[:] = [(400, {"error": {"message": "bad"}}, {})] * 2
    with pytest.raises(ModelRefused, match="400"):
        ask(model(server), replace(ASK, response_json_schema=SCHEMA))
    server.script[:] = [(401, {"error": {"message": "key"}}, {})]
    with pytest.raises(ModelRefused, match="401"):
        ask(model(server), replace(ASK, response_json_schema=SCHEMA))
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    "fault",
    [
        (500, {"error": {"message": "x"}}, {}),
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}),
        (200, HTML, {"Content-Type": "text/html"}),
        (200, b"", {}),
        (200, b'{"choices": [', {}),
        (200, {}, {}),
        (200, [1], {}),
    ],
)
def test_what_passes_is_absorbed(
    server: OpenAIServer, fault: tuple[int, Any, dict[str, str]]
) -> None:
    server.script[:] = [fault]
    client = model(server)
    (reply,) = ask(client)
    assert reply.text == "one.\ntwo."
    assert (client.retries, len(server.calls)) == (1, 2)


def test_it_waits_as_long_as_the_server_asks(server: OpenAIServer) -> None:
    server.script[:] = [(429, {"error": {"message": "x"}}, {"Retry-After": "30"})]
    ask(model(server))
    assert 30.0 <= WAITED[0] <= 31.0


def test_an_empty_account_stops_at_once(server: OpenAIServer) -> None:
    server.script[:] = [(429, {"error": {"message": "x", "code": "insufficient_quota"}}, {})]
    with pytest.raises(QuotaExhausted):
        ask(model(server))
    assert len(server.calls) == 1


def test_a_full_context_is_recorded_as_such(server: OpenAIServer) -> None:
    fault = {"message": "This model's maximum context length is 9", "code": "x"}
    server.script[:] = [(400, {"error": fault}, {})]
    (reply,) = ask(model(server))
    assert (reply.text, reply.finish_reason) == (None, "over_length")


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with OpenAIServer() as server:
        pass
    with pytest.raises(ModelUnavailable, match="connection failed"):
        ask(model(server, retry=RetryPolicy(attempts=2)))


def test_the_key_is_sent_and_not_repeated(server: OpenAIServer) -> None:
    server.script[:] = [
        (401, {"error": {"message": "Incorrect API key provided: k3y-and-more"}}, {})
    ]
    with pytest.raises(ModelRefused) as refusal:
        ask(model(server, environ={"OPENAI_API_KEY": "k3y-and-more"}))
    assert server.calls[0][2] == "Bearer k3y-and-more"
    assert "k3y-and-more" not in str(refusal.value)
    assert "check the key in OPENAI_API_KEY" in str(refusal.value)


def test_only_a_named_server_may_go_without_a_key(server: OpenAIServer) -> None:
    with pytest.raises(InputError, match="No OpenAI key"):
        OpenAIModel("m", environ={})
    named = OpenAIModel("m", environ={"OPENAI_BASE_URL": server.url})
    assert ask(named)[0].finish_reason == "stop"


def test_credentials_in_the_base_url_are_refused() -> None:
    with pytest.raises(InputError, match="--base-url"):
        OpenAIModel("m", base_url="http://u:p@127.0.0.1/v1", environ={})


def test_only_a_server_on_this_machine_is_not_hosted(server: OpenAIServer) -> None:
    assert not model(server).hosted
    assert model(server, base_url="http://192.0.2.7/v1").hosted
    assert OpenAIModel("m", environ={"OPENAI_API_KEY": "k"}).hosted


@pytest.mark.parametrize(
    ("choice", "text", "finish_reason"),
    [
        ({"message": {"content": "a"}, "finish_reason": "content_filter"}, "a", "blocked"),
        ({"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}, None, "blocked"),
        ({"text": "", "finish_reason": "length"}, "", "length"),
        ({"text": "a", "finish_reason": None}, "a", "unknown"),
        ({"text": "a", "finish_reason": "Repetition"}, "a", "repetition"),
    ],
)
def test_finish_reasons(choice: dict[str, Any], text: str | None, finish_reason: str) -> None:
    reply = read_body(json.dumps({"choices": [choice]}))
    assert (reply.text, reply.finish_reason) == (text, finish_reason)
    assert (reply.resolved_model, reply.usage) == (None, Usage())
