"""Keys and prompts reach the server that was named, and no other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from inference import destinations
from inference.destinations import Destination, Redirected, is_loopback, without_key, without_keys
from inference.gemini.batch import GeminiBatches
from inference.gemini.images import ImageUploads
from inference.gemini.model import GeminiModel
from inference.openai.json_client import JsonClient
from inference.openai.model import OpenAIModel
from inference.protocol import GenerationRequest, Message
from tests.inference.pictures import encoded, showing
from tests.loopback.gemini_failures import Answer
from tests.loopback.gemini_file_server import GeminiFileServer
from tests.loopback.recording_server import RecordingServer
from traces.errors import InputError, ModelRefused
from traces.records import ModelReply

KEY = "sk-0123456789abcdef"
ENVIRON = {"GEMINI_API_KEY": KEY, "OPENAI_API_KEY": KEY}
ASK = GenerationRequest((Message("user", "the patient's text"),), 50)
AWAY = "http://judge.example.org:8000/v1"

Ask = Callable[[str, Path], None]


def gemini(url: str, **options: Any) -> GeminiModel:
    return GeminiModel("gemini-3.5-flash-lite", base_url=url, environ=ENVIRON, **options)


def run(model: GeminiModel | OpenAIModel, call: Callable[[], Awaitable[object]]) -> None:
    async def once() -> None:
        try:
            await call()
        finally:
            await model.aclose()

    asyncio.run(once())


def ask_openai(url: str, _: Path) -> None:
    model = OpenAIModel("m", base_url=url, environ=ENVIRON)
    run(model, lambda: model.generate(ASK))


def ask_gemini(url: str, _: Path) -> None:
    model = gemini(url)
    run(model, lambda: model.generate(ASK))


def ask_gemini_with_a_file(url: str, _: Path) -> None:
    model = gemini(url)
    model.uploads = ImageUploads(model.client, inline_bytes=0)
    run(model, lambda: model.generate(showing(encoded())))


def ask_gemini_by_batch(url: str, folder: Path) -> None:
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"key": "a", "request": {"text": "the patient's text"}}))
    model = gemini(url)
    run(model, lambda: GeminiBatches(model).submit("job", rows))


def ask_json(url: str, _: Path) -> None:
    with JsonClient("m", base_url=url, environ=ENVIRON) as client:
        list(client.run([(0, "/score", {"text": "the patient's text"})]))


def list_json(url: str, _: Path) -> None:
    with JsonClient("m", base_url=url, environ=ENVIRON) as client:
        client.get("/v1/models")


ASKS = [ask_openai, ask_gemini, ask_gemini_with_a_file, ask_gemini_by_batch, ask_json, list_json]


@pytest.fixture
def other() -> Iterator[RecordingServer]:
    """The server that nothing may reach."""
    with RecordingServer() as server:
        yield server


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("ask", ASKS)
def test_no_redirect_is_followed(
    ask: Ask, status: int, other: RecordingServer, tmp_path: Path
) -> None:
    with RecordingServer(status, redirect_to=other.url) as server:
        with pytest.raises(Redirected) as refused:
            ask(server.url, tmp_path)
        assert len(server.received) == 1, "a redirect is not tried again"
    assert server.host in refused.value.what
    assert other.host in refused.value.what
    assert str(status) in refused.value.what
    assert "--base-url" in str(refused.value.remedy)
    assert other.received == []


class Straying(GeminiFileServer):
    """A Gemini that sends the client elsewhere at one moment."""

    def __init__(self, moment: str, other: RecordingServer) -> None:
        super().__init__()
        self.moment, self.other = moment, other

    def serve(self, method: str, target: str, headers: Any, raw: bytes) -> Answer | None:
        if headers.get("X-Goog-Upload-Command") == "start" and self.moment == "upload url":
            made = super().serve(method, target, headers, raw)
            if made is not None and "X-Goog-Upload-URL" in made.headers:
                away = made.headers["X-Goog-Upload-URL"].replace(self.url, self.other.url)
                made.headers["X-Goog-Upload-URL"] = away
            return made
        command = str(headers.get("X-Goog-Upload-Command"))
        if self.moment in (target, f"{method} {target.partition('?')[0]}", command):
            return Answer(307, b"", {"Location": self.other.url + target})
        return super().serve(method, target, headers, raw)

    def __enter__(self) -> Straying:
        super().__enter__()
        return self


async def _submit(service: GeminiBatches, folder: Path) -> object:
    (folder / "rows.jsonl").write_text("the patient's text")
    return await service.submit("job", folder / "rows.jsonl")


MOMENTS: dict[str, Callable[[GeminiBatches, Path], Awaitable[object]]] = {
    "upload, finalize": _submit,
    "POST /v1beta/models/gemini-3.5-flash-lite:batchGenerateContent": _submit,
    "GET /v1beta/batches": lambda service, _: service.find({"job"}),
    "GET /v1beta/batches/b0": lambda service, _: service.job("batches/b0"),
    "POST /v1beta/batches/b0:cancel": lambda service, _: service.cancel("batches/b0"),
    "GET /v1beta/files/out0:download": lambda service, folder: service.fetch(
        "files/out0", folder / "replies.jsonl"
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_no_call_of_a_batch_follows_one(
    moment: str, other: RecordingServer, tmp_path: Path
) -> None:
    with Straying(moment, other) as server:
        model = gemini(server.url)
        service = GeminiBatches(model)
        with pytest.raises(Redirected, match=other.host):
            run(model, lambda: MOMENTS[moment](service, tmp_path))
    assert other.received == []


def test_an_upload_address_elsewhere_receives_nothing(
    other: RecordingServer, tmp_path: Path
) -> None:
    """The SDK would have sent the prompts of the job there."""
    with Straying("upload url", other) as server, pytest.raises(Redirected, match=other.host):
        ask_gemini_by_batch(server.url, tmp_path)
    assert other.received == []


def test_a_request_to_another_origin_is_not_sent(other: RecordingServer) -> None:
    model = gemini("http://127.0.0.1:9")
    with pytest.raises(Redirected, match=other.host):
        run(model, lambda: model.client.http.get(f"{other.url}/v1beta/models"))
    assert other.received == []


@pytest.mark.parametrize(
    "location", ["", "//[", "https://127.0.0.1:bad/", f"http://h.example/{KEY}"]
)
def test_a_strange_location_is_still_a_refusal(location: str) -> None:
    server = Destination("http://127.0.0.1:9", is_default=False)
    [refuse] = server.hooks("openai:m")["response"]
    request = httpx2.Request("POST", "http://127.0.0.1:9/v1")
    response = httpx2.Response(307, headers={"Location": location}, request=request)
    with pytest.raises(Redirected) as refused:
        asyncio.run(refuse(response))  # type: ignore[arg-type]  # a hook is a coroutine function
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("ask", ASKS)
def test_a_key_is_not_sent_over_plain_http_to_another_machine(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"judge\.example\.org:8000 would not be encrypted") as no:
        ask(AWAY, tmp_path)
    assert "--insecure-http" in str(no.value.remedy)


def test_plain_http_can_be_allowed_and_needs_no_permission_without_a_key() -> None:
    assert gemini(AWAY, insecure_http=True).client.server.url == AWAY
    assert OpenAIModel("m", base_url=AWAY, insecure_http=True, environ=ENVIRON).hosted
    assert OpenAIModel("m", base_url=AWAY, environ={}).hosted
    assert JsonClient("m", base_url=AWAY, insecure_http=True, environ=ENVIRON).hosted
    assert OpenAIModel("m", base_url=AWAY.replace("http:", "https:"), environ=ENVIRON).hosted
    assert not OpenAIModel("m", base_url="http://127.0.0.1:9/v1", environ=ENVIRON).hosted


@pytest.mark.parametrize(
    ("addresses", "local"),
    [
        (["127.0.0.1"], True),
        (["127.0.1.1", "::1"], True),
        (["::ffff:127.0.0.1"], True),
        (["127.0.0.1", "192.0.2.7"], False),
        (["192.0.2.7"], False),
        (["fe80::1%eth0"], False),
    ],
)
def test_a_name_is_this_machine_if_all_its_addresses_are(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], local: bool
) -> None:
    """`localhost` of a container may be another machine, which would receive patient texts."""

    def found(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in addresses]

    destinations._is_this_machine.cache_clear()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    try:
        assert is_loopback("http://localhost:8000/v1") is local
        assert OpenAIModel("m", base_url="http://localhost:8/v1", environ={}).hosted is not local
    finally:
        destinations._is_this_machine.cache_clear()


def test_a_name_that_cannot_be_found_is_another_machine() -> None:
    assert not is_loopback("http://no-such-host.invalid/v1")
    assert not is_loopback(f"http://{'a' * 64}.example/v1")
    assert is_loopback("http://127.1/v1")


@pytest.mark.parametrize("ask", [ask_openai, ask_gemini, ask_json])
def test_a_proxy_receives_nothing_that_is_for_this_machine(
    ask: Ask, other: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy is another machine, and the privacy check would have passed."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with RecordingServer(400, {"error": {"message": "no"}}) as server:
        with pytest.raises(ModelRefused, match="400"):
            ask(server.url, tmp_path)
        assert len(server.received) == 1
    assert other.received == []


ECHOES = [KEY, "".join(f"\\u{ord(sign):04x}" for sign in KEY), f"Bearer {KEY}"]


@pytest.mark.parametrize("echo", ECHOES)
def test_a_key_that_a_server_repeats_is_removed(echo: str) -> None:
    body = f'{{"text": "your key is {echo}", "steps": ["a\\u00e9"]}}'
    clean = without_key(body, KEY)
    assert KEY not in json.dumps(json.loads(clean))
    assert json.loads(clean)["steps"] == ["aé"]
    assert "[key]" in clean
    assert without_key(clean, KEY) == clean


@pytest.mark.parametrize("placeholder", ["", "none", "EMPTY", "anything"])
def test_a_placeholder_for_a_key_is_an_ordinary_word(placeholder: str) -> None:
    text = f"none of this is EMPTY or {placeholder} anything"
    assert without_key(text, placeholder) == text


def test_a_key_in_a_reply_is_not_kept() -> None:
    choice = {"message": {"content": f"I saw {KEY}"}, "finish_reason": "stop"}
    candidate = {"content": {"parts": [{"text": f"I saw {KEY}"}]}, "finishReason": "STOP"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    document = {
        "choices": [choice], "usage": usage, "model": KEY,
        "candidates": [candidate], "usageMetadata": {"promptTokenCount": 1}, "modelVersion": KEY,
    }  # fmt: skip
    with RecordingServer(200, document) as server:
        for model in (
            OpenAIModel("m", base_url=server.url, environ=ENVIRON),
            gemini(server.url),
        ):
            replies: list[ModelReply] = []

            async def ask(model: Any = model, replies: list[ModelReply] = replies) -> None:
                replies.append(await model.generate(ASK))

            run(model, ask)
            assert replies[0].text == "I saw [key]"
            assert KEY not in repr(replies[0])
        with JsonClient("m", base_url=server.url, environ=ENVIRON) as client:
            assert KEY not in repr(client.get("/v1/models"))
    assert KEY in server.received[0]


def test_the_keys_of_the_environment_are_removed_from_a_traceback() -> None:
    said = f"openai.AuthenticationError: {{'message': 'wrong: {KEY}'}}"
    assert without_keys(said, ENVIRON) == said.replace(KEY, "[key]")


HUB_TOKEN = "hf_0123456789abcdef"
HUB_HEADERS = {"X-Repo-Commit": "a" * 40, "ETag": '"e"', "X-Linked-ETag": '"e"'}


@pytest.mark.slow
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_hub_token_stays_with_the_hub(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`huggingface_hub` follows the Hub's redirects to storage, but without the token."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with (
        RecordingServer(200, b"{}", headers=HUB_HEADERS) as storage,
        RecordingServer(status, redirect_to=storage.url, headers=HUB_HEADERS) as hub,
    ):
        where: dict[str, Any] = {"endpoint": hub.url, "cache_dir": tmp_path}
        calls: list[Callable[[], object]] = [
            lambda: hf_hub_download("a/b", "config.json", **where),
            lambda: snapshot_download("a/b", **where),
            lambda: HfApi(endpoint=hub.url).model_info("a/b"),
        ]
        for call in calls:
            with contextlib.suppress(Exception):  # the answers are no model
                call()
        assert any(HUB_TOKEN in each for each in hub.received), "the Hub itself gets the token"
        assert storage.received, "a file is fetched from where the Hub keeps it"
        assert not any(HUB_TOKEN in each for each in storage.received)
