"""One small connection pool for each call at once, in place of a large one.

For every request a pool of httpx asks each of its idle connections whether the server has hung up: a
handful of system calls a connection. With 64 connections that was a fifth of the client's work. Here a
request takes a pool that nobody uses, with the one connection that it keeps.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import httpx2

_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=1)


class SpreadTransport(httpx2.AsyncBaseTransport):
    """Gives each request a pool of its own; the caller bounds how many are on the wire."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        """No connection is opened yet; `verify` says how servers are verified."""
        self._verify = verify
        self._pools: list[httpx2.AsyncHTTPTransport] = []
        self._free: list[httpx2.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send through the pool that was used last: its connection is the least likely to be stale."""
        pool = self._free.pop() if self._free else self._opened()
        try:
            response = await pool.handle_async_request(request)
        except BaseException:
            self._free.append(pool)
            raise
        if not isinstance(response.stream, httpx2.AsyncByteStream):
            raise TypeError("an asynchronous transport answers with an asynchronous stream")
        response.stream = _LentStream(response.stream, pool, self._free)
        return response

    async def aclose(self) -> None:
        """Close all pools."""
        await asyncio.gather(*(pool.aclose() for pool in self._pools))

    def _opened(self) -> httpx2.AsyncHTTPTransport:
        pool = httpx2.AsyncHTTPTransport(verify=self._verify, limits=_LIMITS)
        self._pools.append(pool)
        return pool


class _LentStream(httpx2.AsyncByteStream):
    """A body whose pool is free again when it is closed."""

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        pool: httpx2.AsyncHTTPTransport,
        free: list[httpx2.AsyncHTTPTransport],
    ) -> None:
        self._stream = stream
        self._pool: httpx2.AsyncHTTPTransport | None = pool
        self._free = free

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        try:
            await self._stream.aclose()
        finally:
            if pool is not None:
                self._free.append(pool)
