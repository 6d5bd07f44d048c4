"""Servers that refuse fields, that reason before they answer, and several servers at once."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from inference.dispatch import Dispatcher
from inference.openai.model import DOWN_S, MOST_FAULTS, OpenAIModel, ServerDown, ServerPool
from inference.openai.wire import read_body, without_thought
from inference.protocol import GenerationRequest, Message, key_for
from inference.retries import RetryPolicy, TransientFault
from tests.inference.scripted import MemoryResponses
from tests.loopback.openai_server import OpenAIServer
from traces import ModelRefused, ModelReply, Usage

ASK = GenerationRequest((Message("user", "q"),), 50, temperature=0.0)


async def _no_wait(_: float) -> None:
    return None


def model(*servers: OpenAIServer, **options: Any) -> OpenAIModel:
    urls = [server.url for server in servers]
    return OpenAIModel("m", base_url=urls, sleep=_no_wait, environ={}, **options)


def ask(client: OpenAIModel, *requests: GenerationRequest) -> list[ModelReply]:
    async def all_of_them() -> list[ModelReply]:
        try:
            return list(await asyncio.gather(*(client.generate(each) for each in requests)))
        finally:
            await client.aclose()

    return asyncio.run(all_of_them())


class Azure(OpenAIServer):
    """Refuses `max_tokens` and any temperature, as gateways to reasoning models do."""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """A 400 that names the field, or the answer."""
        if "max_tokens" in body:
            said = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            )
            return _refusal(said, "max_tokens", "unsupported_parameter")
        if "temperature" in body:
            said = (
                "Unsupported value: 'temperature' does not support 0 with this model. Only the "
                "default (1) value is supported."
            )
            return _refusal(said, "temperature", "unsupported_value")
        return super().answer(path, body)


def _refusal(message: str, param: str, code: str) -> tuple[int, Any, dict[str, str]]:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return 400, {"error": error}, {}


def test_a_field_that_is_refused_is_changed_once_and_for_the_run() -> None:
    said: list[str] = []
    with Azure() as server:
        client = model(server)
        client.report = said.append
        schema = replace(ASK, response_json_schema={"type": "object"})

        async def one_by_one() -> list[ModelReply]:
            replies = [await client.generate(each) for each in (schema, ASK, ASK)]
            await client.aclose()
            return replies

        replies = asyncio.run(one_by_one())
    assert [reply.text for reply in replies] == ["one.\ntwo."] * 3
    assert len(server.calls) == 5, "one refusal a field, then none"
    last = server.calls[-1][1]
    assert last["max_completion_tokens"] == 50
    assert "temperature" not in last
    assert "response_format" in server.calls[2][1], "the schema was not what was refused"
    assert len(said) == 2
    assert "max_completion_tokens instead of max_tokens" in said[0]
    assert "temperature=0.0" in said[1]


def test_calls_in_flight_at_once_say_a_change_once() -> None:
    said: list[str] = []
    with Azure() as server:
        client = model(server)
        client.report = said.append
        replies = ask(client, *(replace(ASK, sample_index=number) for number in range(6)))
    assert len(replies) == 6
    assert len(said) == 2


@pytest.mark.parametrize(
    "message",
    ["temperature must be between 0 and 2", "the model is not supported", "bad request"],
)
def test_another_refusal_ends_the_run(message: str) -> None:
    with OpenAIServer() as server:
        server.script = [(400, {"error": {"message": message}}, {})]
        with pytest.raises(ModelRefused, match=message):
            ask(model(server), ASK)
        assert len(server.calls) == 1


def test_what_the_user_adds_is_sent_and_part_of_the_key() -> None:
    plain = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", environ={})
    with OpenAIServer() as server:
        client = model(server)
        client.options = {"reasoning_effort": "low", "chat_template_kwargs": {"a": False}}
        responses = MemoryResponses()
        with Dispatcher(client, responses) as dispatcher:
            list(dispatcher.run([ASK]))
        ((_, body, _),) = server.calls
    assert (body["reasoning_effort"], body["chat_template_kwargs"]) == ("low", {"a": False})
    assert list(responses.kept) == [key_for(client, ASK)]
    assert key_for(client, ASK) != key_for(plain, ASK)
    (call,) = responses.kept.values()
    assert json.loads(call.request)["options"] == dict(client.options)


def test_options_of_the_chat_template_are_not_sent_with_a_rendered_prompt() -> None:
    with OpenAIServer() as server:
        client = model(server, template=lambda _: "p")
        client.options = {"chat_template_kwargs": {}, "reasoning_effort": "low", "top_k": 3}
        ask(client, replace(ASK, messages=(*ASK.messages, Message("assistant", "one"))))
        ((path, body, _),) = server.calls
    assert path == "/v1/completions"
    assert "top_k" in body
    assert not {"chat_template_kwargs", "reasoning_effort"} & body.keys()


def chat(message: dict[str, Any], written: int = 100, **details: int) -> str:
    usage = {"prompt_tokens": 9, "completion_tokens": written}
    if details:
        usage["completion_tokens_details"] = details  # type: ignore[assignment]
    choice = {"message": message, "finish_reason": "length"}
    return json.dumps({"choices": [choice], "usage": usage})


@pytest.mark.parametrize("named", ["reasoning_content", "reasoning"])
def test_reasoning_is_thinking_and_never_the_reply(named: str) -> None:
    wire = read_body(chat({"content": None, named: "let me see"}))
    assert (wire.text, wire.usage) == (None, Usage(9, output_tokens=0, thinking_tokens=100))
    wire = read_body(chat({"content": "so: 5", named: "x" * 15}))
    assert (wire.text, wire.usage) == ("so: 5", Usage(9, output_tokens=25, thinking_tokens=75))


def test_a_count_of_the_server_is_believed() -> None:
    wire = read_body(chat({"content": "5", "reasoning": "x" * 99}, reasoning_tokens=40))
    assert wire.usage == Usage(9, output_tokens=60, thinking_tokens=40)


def test_thinking_among_the_parts_of_a_reply_is_counted() -> None:
    parts = [{"type": "thinking", "thinking": "xxx"}, {"type": "text", "text": "5"}]
    wire = read_body(chat({"content": parts}))
    assert (wire.text, wire.usage.thinking_tokens) == ("5", 75)


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("<think>a</think>\n\n5", "5", "a"),
        ("a\n</think>\n5", "5", "a"),
        ("<think>a", None, "a"),
        ("<think>\n\n</think>", None, ""),
        ("5", "5", ""),
        ("We write <think> and </think>.", "We write <think> and </think>.", ""),
        (None, None, ""),
    ],
)
def test_a_thought_that_no_server_parsed(
    text: str | None, answer: str | None, thought: str
) -> None:
    assert without_thought(text) == (answer, thought)


def test_a_reply_without_an_answer_says_what_to_do() -> None:
    reply = ModelReply(None, "length", "openai:m", None, Usage(9, thinking_tokens=512))
    assert reply.only_reasoning == (
        "wrote 512 tokens of reasoning and no answer: raise --max-tokens or lower "
        "--reasoning-effort"
    )
    assert replace(reply, text="5").only_reasoning is None
    assert replace(reply, usage=Usage(9)).only_reasoning is None


def of_trace(name: str, number: int = 0) -> GenerationRequest:
    return replace(ASK, sample_index=number, meta={"trace_id": name})


def test_requests_of_a_trace_go_to_one_server_and_traces_are_spread() -> None:
    with OpenAIServer() as one, OpenAIServer() as two:
        client = model(one, two)
        asked = [of_trace(name, number) for number in range(3) for name in "abcd"]
        replies = ask(client, *asked)
    assert (len(one.calls), len(two.calls)) == (6, 6)
    served: dict[str, set[str | None]] = {}
    for request, reply in zip(asked, replies, strict=True):
        served.setdefault(request.meta["trace_id"], set()).add(reply.server)
    assert all(len(hosts) == 1 for hosts in served.values())
    assert [len(each.traces) for each in client.servers] == [2, 2]
    assert [each.requests for each in client.servers] == [6, 6]


def test_one_server_is_not_named_in_replies() -> None:
    with OpenAIServer() as server:
        (reply,) = ask(model(server), ASK)
    assert reply.server is None


def test_the_share_of_a_dead_server_moves_on() -> None:
    with ExitStack() as running:
        one = running.enter_context(OpenAIServer())
        two = running.enter_context(OpenAIServer())
        client = model(one, two)

        async def killed_in_the_middle() -> list[ModelReply]:
            first = [await client.generate(of_trace(name)) for name in "abcd"]
            two.die()
            second = [await client.generate(of_trace(name, 1)) for name in "abcdef"]
            await client.aclose()
            return [*first, *second]

        replies = asyncio.run(killed_in_the_middle())
    assert [reply.text for reply in replies] == ["one.\ntwo."] * 10
    assert (len(one.calls), len(two.calls)) == (8, 2)


def test_the_share_of_a_server_that_hangs_moves_on() -> None:
    with OpenAIServer() as good, socket.create_server(("127.0.0.1", 0)) as hangs:
        url = f"http://127.0.0.1:{hangs.getsockname()[1]}/v1"
        policy = RetryPolicy(attempts=2 * MOST_FAULTS, attempt_s=0.1)
        client = OpenAIModel(
            "m", base_url=[url, good.url], sleep=_no_wait, environ={}, retry=policy
        )
        (reply,) = ask(client, of_trace("a"))
    assert reply.text == "one.\ntwo."
    assert len(good.calls) == 1


def test_the_servers_of_a_call_are_in_the_ledger() -> None:
    responses = MemoryResponses()
    with OpenAIServer() as one, OpenAIServer() as two:
        with Dispatcher(model(one, two), responses) as dispatcher:
            list(dispatcher.run([of_trace("a"), of_trace("b", 1)]))
        hosts = {server.url.removeprefix("http://").removesuffix("/v1") for server in (one, two)}
    assert {call.meta["server"] for call in responses.kept.values()} == hosts


class TestServerPool:
    """Which server gets a request."""

    def pool(self, clock: Callable[[], float] = lambda: 0.0) -> ServerPool:
        urls = [f"http://127.0.0.1:{port}/v1" for port in (1, 2, 3)]
        servers = OpenAIModel("m", base_url=urls, environ={}).servers
        return ServerPool(servers, clock)

    def test_a_server_that_comes_back_gets_new_traces_again(self) -> None:
        now = [0.0]
        pool = self.pool(lambda: now[0])
        first = pool.choose("a")
        pool.failed(first, ServerDown("gone"))
        assert pool.choose("a") is not first
        assert {id(pool.choose(name)) for name in "bcdef"} == {
            id(each) for each in pool.servers if each is not first
        }
        now[0] = DOWN_S
        assert any(pool.choose(name) is first for name in "ghi")

    def test_a_server_that_only_fails_counts_as_down_and_a_throttled_one_does_not(self) -> None:
        pool = self.pool()
        server = pool.choose("a")
        for _ in range(5):
            pool.failed(server, TransientFault("429", throttled=True))
        assert pool.choose("a") is server
        moved = [pool.failed(server, TransientFault("500")) for _ in range(3)]
        assert [fault.delay_s for fault in moved] == [None, None, 0.0]
        assert pool.choose("a") is not server

    def test_with_all_down_the_wait_is_the_usual_one(self) -> None:
        pool = self.pool()
        faults = [pool.failed(each, ServerDown("gone")) for each in pool.servers]
        assert [fault.delay_s for fault in faults] == [0.0, 0.0, None]
        assert pool.choose("a") in pool.servers
