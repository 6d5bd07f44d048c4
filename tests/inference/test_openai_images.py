"""Images on their way to OpenAI-compatible servers: data URIs, and what happens where they are refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import pytest

from inference.openai.model import OpenAIModel
from inference.protocol import GenerationRequest, Message
from tests.inference.pictures import encoded, showing
from tests.loopback.openai_server import OpenAIServer
from traces.errors import ModelRefused, ModelUnavailable


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def ask(one: OpenAIModel, request: GenerationRequest) -> None:
    async def once() -> None:
        try:
            await one.generate(request)
        finally:
            await one.aclose()

    asyncio.run(once())


def test_images_are_data_uris_in_front_of_the_text(server: OpenAIServer) -> None:
    one, two = encoded(1), encoded(2)
    ask(OpenAIModel("m", base_url=server.url, environ={}), showing(one, two))
    [(path, body, _)] = server.calls
    assert path == "/v1/chat/completions"
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Judge."}
    assert [part.get("text") for part in user["content"]] == [
        "Image 1:",
        None,
        "Image 2:",
        None,
        "Step 1: a",
    ]
    for part, image in zip(user["content"][1::2], (one, two), strict=False):
        assert part["type"] == "image_url"
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data, validate=True) == image.data


def test_a_prefix_is_continued_below_its_images(server: OpenAIServer) -> None:
    shown = encoded()
    user = showing(shown).messages[1]
    request = GenerationRequest((user, Message("assistant", "step one\n")), 20)
    ask(OpenAIModel("m", base_url=server.url, environ={}), request)
    [(_, body, _)] = server.calls
    assert body["continue_final_message"] is True
    assert [part["type"] for part in body["messages"][0]["content"]] == [
        "text",
        "image_url",
        "text",
    ]
    assert body["messages"][1] == {"role": "assistant", "content": "step one\n"}


def test_completions_take_no_images(server: OpenAIServer) -> None:
    one = OpenAIModel("m", base_url=server.url, template=lambda _: "prompt", environ={})
    request = GenerationRequest((*showing(encoded()).messages, Message("assistant", "a")), 20)
    with pytest.raises(ModelRefused, match="takes no images") as refused:
        ask(one, request)
    assert refused.value.remedy == "leave --template out"
    assert not server.calls


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (
            "You uploaded an unsupported image. Please make sure your image is valid.",
            ModelUnavailable,
        ),
        ("Failed to load image: cannot identify image file", ModelUnavailable),
        ("This model does not support image inputs.", ModelRefused),
        ("m is not a multimodal model", ModelRefused),
    ],
)
def test_a_bad_image_concerns_its_problem_and_a_blind_model_the_run(
    server: OpenAIServer, said: str, error: type[Exception]
) -> None:
    server.script = [(400, {"error": {"message": said}}, {})]
    with pytest.raises(error, match="400"):
        ask(OpenAIModel("m", base_url=server.url, environ={}), showing(encoded()))
    assert len(server.calls) == 1


def test_the_same_words_about_a_request_without_images_end_the_run(server: OpenAIServer) -> None:
    server.script = [(400, {"error": {"message": "invalid image"}}, {})]
    with pytest.raises(ModelRefused):
        ask(OpenAIModel("m", base_url=server.url, environ={}), showing())
