"""A small OpenAI-compatible server with the quirks of real ones, for error paths that real ones
do not produce on demand. The real servers are in `test_real_servers.py`."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class OpenAIServer:
    """Answers every completion with `text`; the first requests get what `script` says."""

    def __init__(self, text: str = "one.\ntwo.") -> None:
        """Bind a free port."""
        self.text = text
        self.finish_reason: str | None = "stop"
        self.refuses_response_format = False
        self.script: list[tuple[int, Any, dict[str, str]]] = []
        """(status, JSON body or bytes, headers) of the first answers."""
        self.calls: list[tuple[str, dict[str, Any], str]] = []
        """(path, body, authorization header) of every request."""
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._http.connections = []
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

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

    def die(self) -> None:
        """Stop listening and end connections that are kept alive, as a killed process does."""
        self._http.shutdown()
        self._http.server_close()
        for connection in self._http.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def serve(
        self, method: str, path: str, raw: bytes, headers: Any
    ) -> tuple[int, Any, dict[str, str]] | None:
        """The answer to a request that is no POST of JSON; None for one."""
        if method == "POST" and not path.startswith(("/v1/files", "/v1/batches")):
            return None
        return 404, {"error": {"message": f"no such path: {method} {path}"}}, {}

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers of the next answer."""
        if self.script:
            return self.script.pop(0)
        if self.refuses_response_format and "response_format" in body:
            fault = {"message": "response_format is not supported", "type": "invalid_request"}
            return 400, {"error": fault}, {}
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish_reason}
        if path.endswith("/chat/completions"):
            choice["message"] = {"role": "assistant", "content": self.text}
        else:
            choice["text"] = self.text
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
        return 200, {"model": "stub-2026", "choices": [choice], "usage": usage}, {}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    owner: OpenAIServer
    connections: list[socket.socket]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self.connections.append(request)
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Http

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        owner = self.server.owner
        served = owner.serve(self.command, self.path, sent, self.headers)
        if served is None:
            body = json.loads(sent)
            owner.calls.append((self.path, body, self.headers.get("Authorization", "")))
            served = owner.answer(self.path, body)
        status, made, headers = served
        raw = made if isinstance(made, bytes) else json.dumps(made).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Quiet."""
