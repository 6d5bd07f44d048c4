"""Several small connection pools in place of one large one.

For every request a pool of httpx asks each of its idle connections whether the server has hung up: two
system calls a connection. With 64 connections that was a fifth of the client's work.
"""

from __future__ import annotations

import asyncio
import ssl
from itertools import cycle

import httpx2

CONNECTIONS_A_POOL = 8
"""Idle connections that a pool keeps."""


class SpreadTransport(httpx2.AsyncBaseTransport):
    """Spreads requests evenly over small pools; the caller bounds how many are on the wire."""

    def __init__(self, connections: int, verify: ssl.SSLContext) -> None:
        """No connection is opened yet.

        Args:
            connections: requests at once, at least 1.
            verify: how servers are verified.
        """
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS_A_POOL)
        count = -(-connections // CONNECTIONS_A_POOL)
        self._pools = [
            httpx2.AsyncHTTPTransport(verify=verify, limits=limits) for _ in range(count)
        ]
        self._next = cycle(self._pools)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send through the next pool."""
        return await next(self._next).handle_async_request(request)

    async def aclose(self) -> None:
        """Close all pools."""
        await asyncio.gather(*(pool.aclose() for pool in self._pools))
