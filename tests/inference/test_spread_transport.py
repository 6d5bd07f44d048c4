"""A connection for each call at once, and none more, whatever becomes of the calls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from inference.gemini.client import SpreadTransport

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Server:
    """Counts connections; what a path asks for happens to its call."""

    def __init__(self) -> None:
        self.connections = 0
        self.begun = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split()[1]
                if path == b"/reset":
                    writer.transport.abort()
                    return
                writer.write(ANSWER if path == b"/" else ANSWER[:-1])
                await writer.drain()
                if path == b"/half":
                    self.begun.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def served(test: Callable[[Server, httpx2.AsyncClient, str], Awaitable[None]]) -> None:
    """Run a test against the server."""

    async def run() -> None:
        counting = Server()
        server = await asyncio.start_server(counting.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with httpx2.AsyncClient(transport=SpreadTransport(TLS)) as client:
            await test(counting, client, url)
        server.close()

    asyncio.run(run())


def test_connections_are_as_many_as_calls_at_once() -> None:
    async def test(server: Server, client: httpx2.AsyncClient, url: str) -> None:
        for at_once in (3, 1, 8, 8, 5):
            replies = await asyncio.gather(*(client.get(url) for _ in range(at_once)))
            assert {reply.text for reply in replies} == {"ok"}
        assert server.connections == 8

    served(test)


def test_a_call_that_fails_gives_its_place_back() -> None:
    async def test(server: Server, client: httpx2.AsyncClient, url: str) -> None:
        await client.get(url)
        for _ in range(3):
            with pytest.raises(httpx2.HTTPError):
                await client.get(url + "/reset")
        for _ in range(3):
            assert (await client.get(url)).text == "ok"
        assert server.connections == 4, "one, one for each later reset, and one behind them"

    served(test)


def test_a_call_that_is_cancelled_in_its_body_gives_its_place_back() -> None:
    async def test(server: Server, client: httpx2.AsyncClient, url: str) -> None:
        call = asyncio.create_task(client.get(url + "/half"))
        await server.begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        for _ in range(3):
            assert (await client.get(url)).text == "ok"
        assert server.connections == 2

    served(test)
