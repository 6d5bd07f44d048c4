"""What we say a call costs against what the server bills, on every shape of usage that it counts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest

from inference.gemini.model import GeminiModel
from inference.prices import Service, cost
from inference.protocol import GenerationRequest, Message
from tests.loopback.gemini_billing import PRICES, bill
from tests.loopback.gemini_server import GeminiServer
from traces.records import ModelReply, Usage

DAY = date(2026, 11, 15)
IMAGE = {
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 900},
        {"modality": "IMAGE", "tokenCount": 2580},
    ]
}


@dataclass(frozen=True)
class Shape:
    """One way in which a service counts."""

    usage: dict[str, Any]
    model: str = "gemini-3.5-flash-lite"
    service: Service = "standard"
    script: list[str] = field(default_factory=list)


def counts(
    prompt: int, cached: int = 0, output: int | None = None, thinking: int | None = None
) -> dict[str, Any]:
    """A usageMetadata; a count that is None is absent, as on the wire."""
    named = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached or None,
        "candidatesTokenCount": output,
        "thoughtsTokenCount": thinking,
    }
    present = {name: count for name, count in named.items() if count is not None}
    return present | {"totalTokenCount": prompt + (output or 0) + (thinking or 0)}


SHAPES = {
    "plain": Shape(counts(5003, output=397)),
    "cached": Shape(counts(5003, cached=4096, output=397)),
    "all cached": Shape(counts(4096, cached=4096, output=1)),
    "thinking": Shape(counts(5003, output=397, thinking=1501), "gemini-3.8-flash"),
    "cached and thinking": Shape(counts(9001, 8192, 211, 1777), "gemini-3.8-flash"),
    "thinking alone": Shape(counts(5003, thinking=8192), script=["max_tokens_no_text"]),
    "cut": Shape(counts(5003, output=500), script=["max_tokens"]),
    "blocked": Shape(counts(5003), script=["safety"]),
    "flex": Shape(counts(5003, output=397), service="flex"),
    "flex, cached and thinking": Shape(counts(5003, 4096, 397, 88), "gemini-3.8-flash", "flex"),
    "image": Shape(counts(3480, output=397) | IMAGE),
    "image, cached": Shape(counts(3480, 2048, 397, 12) | IMAGE, "gemini-4-argon"),
    "nothing but a candidate": Shape(counts(1), "gemini-2.5-flash-lite"),
}


def ask(shape: Shape) -> tuple[ModelReply, GeminiServer]:
    with GeminiServer(usage=shape.usage, script=shape.script) as server:
        model = GeminiModel(
            shape.model,
            base_url=server.url,
            service=shape.service,
            environ={"GEMINI_API_KEY": "k"},
        )
        model.today = lambda: DAY

        async def once() -> ModelReply:
            try:
                return await model.generate(GenerationRequest((Message("user", "Is it?"),), 500))
            finally:
                await model.aclose()

        return asyncio.run(once()), server


@pytest.mark.parametrize("name", SHAPES)
def test_a_call_costs_what_the_server_bills(name: str) -> None:
    reply, server = ask(SHAPES[name])
    assert reply.usd is not None
    assert abs(reply.usd - float(server.billed_usd)) < 1e-9
    assert server.billed_usd > 0


@pytest.mark.parametrize("model", PRICES)
@pytest.mark.parametrize("service", ["standard", "flex", "batch"])
def test_every_model_and_service_costs_what_the_server_bills(model: str, service: Service) -> None:
    """Batch replies come from files: their shape of usage is the same, their service is not."""
    for usage in (counts(5003, output=397), counts(5003, 4096, 397, 1501)):
        ours = cost(
            Usage(
                usage["promptTokenCount"],
                usage.get("cachedContentTokenCount", 0),
                usage["candidatesTokenCount"],
                usage.get("thoughtsTokenCount", 0),
            ),
            model,
            service,
            on=DAY,
        )
        theirs = bill(model, usage, service)
        assert ours is not None
        assert theirs is not None
        assert abs(ours - float(theirs)) < 1e-9
