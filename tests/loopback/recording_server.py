"""A server that records whatever reaches it, and answers everything in the same way."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class RecordingServer:
    """A context manager; `received` holds the raw text of every request."""

    def __init__(
        self,
        status: int = 200,
        document: Any = None,
        *,
        redirect_to: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Bind a free port.

        Args:
            status: the status of every answer.
            document: its JSON body, or its bytes.
            headers: further headers of every answer.
            redirect_to: base URL that every answer redirects to, with the path that was asked for.
        """
        self.status, self.document, self.redirect_to = status, document, redirect_to
        self.headers = dict(headers or {})
        self.received: list[str] = []
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{self.host}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    owner: RecordingServer


class _Handler(BaseHTTPRequestHandler):
    wbufsize = -1
    server: _Http

    def _record(self) -> None:
        owner = self.server.owner
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        owner.received.append(f"{self.requestline}\n{self.headers}\n{body.decode()}")
        document = owner.document
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response_only(owner.status)
        if owner.redirect_to is not None:
            self.send_header("Location", owner.redirect_to + self.path)
        for name, value in owner.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    do_GET = do_HEAD = do_POST = do_CONNECT = do_PUT = _record

    def log_message(self, *_: object) -> None:
        """The record is enough."""
