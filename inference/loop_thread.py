"""An asyncio loop in a thread of its own, so that network calls go on while the caller works."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines in the background until it is closed.

    The thread is a daemon: a program that forgets to close it, or dies of an exception, still
    ends.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="stepgold-calls", daemon=True
        )
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; its future can be waited for, or cancelled, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a function on the loop, soon."""
        self._loop.call_soon_threadsafe(callback)

    def drain(self, seconds: float) -> None:
        """Wait at most `seconds` for what runs now."""
        self.submit(self._settled(seconds)).result()

    def close(self) -> None:
        """Cancel what still runs, wait for its end, and stop the thread."""
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
        # a store write that a cancelled call had begun in a worker thread still completes here
        await self._loop.shutdown_default_executor()
