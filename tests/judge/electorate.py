"""Judges that disagree on purpose: an OpenAI-compatible server whose every vote is prescribed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from inference.dispatch import Dispatcher, Outcome
from inference.openai.model import OpenAIModel
from inference.protocol import GenerationRequest, TextModel
from tests.loopback.openai_server import OpenAIServer
from traces.records import ModelReply, StoredCall

_STEP = re.compile(r'<step number="(\d+)">(.*?)</step>', re.DOTALL)
_ONLY = re.compile(r"Judge step (\d+) now")

Ballot = int | str | None
"""The first error that a vote names (0-based), None for no error, or a whole reply text."""


class Electorate(OpenAIServer):
    """Answers as `ballot(first step's text, vote)` says; the seed of a request is its vote."""

    def __init__(self, ballot: Callable[[str, int], Ballot]) -> None:
        """Bind a free port."""
        super().__init__()
        self._ballot = ballot
        self.asked: list[tuple[str, int]] = []
        """First step and vote of every request, in order of arrival."""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """The prescribed vote as a reply."""
        user = body["messages"][-1]["content"]
        steps = _STEP.findall(user)
        vote = int(body.get("seed") or 0)
        self.asked.append((steps[0][1], vote))
        said = self._ballot(steps[0][1], vote)
        self.text = said if isinstance(said, str) else reply_text(steps, said, user)
        return super().answer(path, body)

    def count(self, name: str) -> int:
        """How many requests came for a trace."""
        return sum(first == name for first, _ in self.asked)


def reply_text(steps: list[tuple[str, str]], error: int | None, user: str) -> str:
    """A reply that is right on every step but the one with the error; later ones `neutral`."""
    only = _ONLY.search(user)
    asked = steps[-1:] if only else steps
    entries = []
    for number, _ in asked:
        index = int(number) - 1
        word = "correct" if error is None or index < error else "neutral"
        entries.append(
            {
                "step": int(number),
                "document": None,
                "quote": None,
                "reasoning": f"step {number}",
                "verdict": "incorrect" if index == error else word,
            }
        )
    return json.dumps({"steps": entries})


@dataclass
class Responses:
    """A response store in memory."""

    calls: dict[str, StoredCall] = field(default_factory=dict)

    def get(self, key: str) -> ModelReply | None:
        call = self.calls.get(key)
        return call.reply if call else None

    def put(self, call: StoredCall) -> None:
        self.calls.setdefault(call.key, call)


class Watched:
    """A real dispatcher that says how often it was run, and can gather requests as a batch does."""

    model_class = OpenAIModel

    def __init__(
        self,
        server: OpenAIServer,
        responses: Responses | None = None,
        *,
        name: str = "m",
        concurrency: int = 8,
        gathers: bool = False,
    ) -> None:
        """One dispatcher on the server."""
        model = self.model_class(name, base_url=server.url, concurrency=concurrency, environ={})
        self._dispatcher = Dispatcher(model, responses)
        self._gathers = gathers
        self.rounds: list[int] = []
        """Requests of each run."""

    @property
    def model(self) -> TextModel:
        return self._dispatcher.model

    def run(
        self, requests: Iterable[GenerationRequest]
    ) -> Iterator[tuple[GenerationRequest, Outcome]]:
        self.rounds.append(0)
        drawn = self._counted(requests)
        yield from self._dispatcher.run(list(drawn) if self._gathers else drawn)

    def _counted(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationRequest]:
        for request in requests:
            self.rounds[-1] += 1
            yield request

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._dispatcher.close()
