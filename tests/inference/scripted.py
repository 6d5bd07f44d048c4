"""A text model whose every call a test can hold back, and a response store in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from inference.protocol import GenerationRequest, Message
from traces.records import ModelReply, StoredCall, Usage


def request(text: str, max_tokens: int = 100) -> GenerationRequest:
    """A request whose prompt is `text`."""
    return GenerationRequest((Message("user", text),), max_tokens, meta={"text": text})


def reply_to(asked: GenerationRequest, usd: float | None = 0.0) -> ModelReply:
    """The reply of the scripted model: the prompt in capitals."""
    text = asked.messages[-1].text.upper()
    return ModelReply(text, "stop", "gemini:gemini-3.5-flash-lite", None, Usage(9, 0, 3), usd)


@dataclass
class ScriptedModel:
    """Answers by `answer`; with `gate` closed, calls stay on the wire until it opens."""

    answer: Callable[[GenerationRequest], ModelReply] = reply_to
    spec: str = "gemini:gemini-3.5-flash-lite"
    hosted: bool = True
    concurrency: int = 4
    gate: threading.Event | None = None
    calls: list[str] = field(default_factory=list)
    flying: int = 0
    most_flying: int = 0
    closed: bool = False

    async def generate(self, request: GenerationRequest) -> ModelReply:
        """Answer one request."""
        self.calls.append(request.messages[-1].text)
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await asyncio.sleep(0)
            while self.gate is not None and not self.gate.is_set():
                await asyncio.sleep(0.001)
            return self.answer(request)
        finally:
            self.flying -= 1

    async def aclose(self) -> None:
        """Release nothing."""
        self.closed = True


class MemoryResponses:
    """A response store without a disk."""

    def __init__(self) -> None:
        self.kept: dict[str, StoredCall] = {}
        self.hits: list[str] = []

    def get(self, key: str) -> ModelReply | None:
        """The reply kept under `key`."""
        call = self.kept.get(key)
        return call.reply if call else None

    def put(self, call: StoredCall) -> None:
        """Keep a reply; the first one stays."""
        self.kept.setdefault(call.key, call)

    def count_hit(self, key: str) -> None:
        """One more use."""
        self.hits.append(key)
