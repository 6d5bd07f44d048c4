"""One engine for everything that asks a model several times about a trace: votes, steps, turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from inference import GenerationRequest, Runner
from traces import ModelError, ModelReply


class Task(Protocol):
    """What is asked about one trace. Its requests carry the meta `trace_id`."""

    @property
    def trace_id(self) -> str:
        """The trace; at most one task is open for it."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to ask or to wait for."""

    def start(self) -> Sequence[GenerationRequest]:
        """The first requests; none if the task is done without any."""

    def receive(
        self, request: GenerationRequest, outcome: ModelReply | ModelError
    ) -> Sequence[GenerationRequest]:
        """Take a reply; return what to send next."""


AnyTask = TypeVar("AnyTask", bound=Task)


def run_tasks(runner: Runner, tasks: Iterable[AnyTask]) -> Iterator[AnyTask]:
    """Yield every task once it is done, in any order.

    Open tasks are served before new ones are started, as the runner has room. The requests of a
    round end when there is nothing to send now; the next round takes what the replies still in
    flight ask for.
    """
    return _TaskRun(runner, iter(tasks)).run()


class _TaskRun(Generic[AnyTask]):
    def __init__(self, runner: Runner, source: Iterator[AnyTask]) -> None:
        self._runner, self._source = runner, source
        self._open: dict[str, AnyTask] = {}
        self._queue: deque[GenerationRequest] = deque()
        self._done: deque[AnyTask] = deque()

    def run(self) -> Iterator[AnyTask]:
        while True:
            for request, outcome in self._runner.run(self._requests()):
                task = self._open[request.meta["trace_id"]]
                self._queue.extend(task.receive(request, outcome))
                self._settle(task)
                yield from self._finished()
            yield from self._finished()
            if not self._queue:  # no trace is left, and the last replies asked for nothing more
                break
        if self._open:  # never lose a trace silently
            raise RuntimeError(f"the runner left {len(self._open)} traces without their replies")

    def _requests(self) -> Iterator[GenerationRequest]:
        while True:
            while self._queue:
                yield self._queue.popleft()
            task = next(self._source, None)
            if task is None:
                return
            self._open[task.trace_id] = task
            self._queue.extend(task.start())
            self._settle(task)

    def _settle(self, task: AnyTask) -> None:
        if task.is_done:
            del self._open[task.trace_id]
            self._done.append(task)

    def _finished(self) -> Iterator[AnyTask]:
        while self._done:
            yield self._done.popleft()
