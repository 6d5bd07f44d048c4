"""An event loop in a thread of its own: calls go on while the caller works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future
from typing import Any, TypeVar

from traces import interrupt_noted, uninterrupted

T = TypeVar("T")
LOOK_EVERY_S = 0.1
"""How often a wait looks whether there was an interrupt."""


class LoopThread:
    """Runs coroutines in the background until it is closed.

    The thread is a daemon, so that a program that fails to close it still ends.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="stepgold-calls", daemon=True
        )
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; its future can be awaited or canceled from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def result(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine; an interrupt ends the wait, not the coroutine."""
        future = self.submit(coroutine)
        with uninterrupted():
            while not futures.wait([future], timeout=LOOK_EVERY_S).done:
                if interrupt_noted():
                    raise KeyboardInterrupt
            return future.result()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Schedule a function on the loop."""
        self._loop.call_soon_threadsafe(callback)

    def drain(self, seconds: float) -> None:
        """Wait at most `seconds` for the running coroutines."""
        self.submit(self._settled(seconds)).result()

    def close(self) -> None:
        """Cancel the running coroutines, wait for them to end, and stop the thread."""
        self.submit(self._wind_down()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _settled(self, seconds: float) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=seconds)

    async def _wind_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        # A store write that a canceled call started in a worker thread completes here.
        await self._loop.shutdown_default_executor()
