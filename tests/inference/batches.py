"""A batch runner on a real store, a real google-genai client and a clock that tests turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from inference.batch.jobs import BatchLimits
from inference.batch.runner import BatchClock, BatchRunner
from inference.dispatch import Outcome
from inference.gemini.batch import GeminiBatches
from inference.gemini.model import GeminiModel
from inference.protocol import GenerationRequest, Message
from storage import Store
from tests.loopback.gemini_batch_server import GeminiBatchServer

NAME = "gemini-3.5-flash-lite"
SPEC = f"gemini:{NAME}"
TODAY = date(2026, 11, 22)


def requests(number: int) -> list[GenerationRequest]:
    """So many different requests."""
    return [
        GenerationRequest(
            (Message("system", "Judge."), Message("user", f"Step 1: number {n}.")),
            200,
            temperature=0.0,
            response_json_schema={"type": "object", "properties": {}},
            meta={"n": n},
        )
        for n in range(number)
    ]


@dataclass
class Clock:
    """Unix seconds that go on when somebody sleeps, and what was slept."""

    now: float = 1_800_000_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.slept.append(seconds)
        if len(self.slept) > 10_000:
            raise AssertionError("it waits for ever")
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        """As `sleep`, for coroutines."""
        self.sleep(seconds)


def interrupted_at(number: int) -> Callable[[float], None]:
    """A sleep in which Ctrl-C is pressed the `number`-th time."""
    slept = count(1)

    def sleep(_: float) -> None:
        if next(slept) == number:
            raise KeyboardInterrupt

    return sleep


@contextmanager
def running(
    server: GeminiBatchServer,
    database: Path,
    *,
    limits: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    said: list[str] | None = None,
    sleep: Callable[[float], None] | None = None,
    **options: Any,
) -> Iterator[tuple[BatchRunner, Store]]:
    """A runner and its store in a file."""
    clock = clock or Clock()
    environ = {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
    model = GeminiModel(NAME, sleep=clock.asleep, environ=environ)
    model.today = lambda: TODAY
    bounds = BatchLimits(**{"enqueued_tokens": 1_000_000, **(limits or {})})
    with (
        Store.open(f"sqlite:///{database}") as store,
        BatchRunner(
            GeminiBatches(model, sleep=clock.asleep),
            store.replies.batch_jobs,
            store.replies,
            bounds,
            report=said.append if said is not None else lambda _: None,
            clock=BatchClock(clock, sleep or clock.sleep, lambda: TODAY),
            **options,
        ) as runner,
    ):
        yield runner, store


def answered(runner: BatchRunner, asked: Iterable[GenerationRequest]) -> dict[int, Outcome]:
    """The outcome of every request by its number; each must come exactly once."""
    outcomes: dict[int, Outcome] = {}
    for request, outcome in runner.run(asked):
        assert request.meta["n"] not in outcomes
        outcomes[request.meta["n"]] = outcome
    return outcomes
