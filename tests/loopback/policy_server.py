"""An OpenAI-compatible policy server in a process of its own, with the manners of bad ones.

It ignores `n`, leaves the stop string and what follows in the text, answers some requests 429 or 500,
and can be killed and started again on its port. What it writes depends on prompt and seed alone.

    python -m tests.loopback.policy_server PORT [--die-after N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STOP = "\n\n"


class PolicyHandler(BaseHTTPRequestHandler):
    """Writes an answer that prompt and seed decide."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()
    seen: dict[str, int] = {}  # noqa: RUF012  one server a process
    die_after: int | None = None
    answered = 0

    def do_POST(self) -> None:
        """One completion."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = hashlib.sha256(json.dumps([body["messages"], body.get("seed")]).encode()).hexdigest()
        with self.lock:
            self.seen[key] = self.seen.get(key, 0) + 1
            first = self.seen[key] == 1
            PolicyHandler.answered += 1
            if self.die_after is not None and PolicyHandler.answered > self.die_after:
                os._exit(9)
        if first and int(key[0], 16) < 2:
            self._send(429, {"error": {"message": "busy"}}, {"Retry-After": "0"})
        elif first and int(key[0], 16) == 2:
            self._send(500, {"error": {"message": "oops"}}, {})
        else:
            self._send(200, self._completion(body, key), {})

    def _completion(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        right = int(key[1:3], 16) < 64
        text = f"Hence it follows.\nThe answer is {7 if right else 8}.{STOP}The answer is 99."
        message = {"role": "assistant", "content": text}
        return {
            "model": "policy-1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 11},
        }

    def _send(self, status: int, document: dict[str, Any], headers: dict[str, str]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256


def main() -> None:
    """Serve until killed; the first line of output says that it is listening."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--die-after", type=int, default=None)
    arguments = parser.parse_args()
    PolicyHandler.die_after = arguments.die_after
    server = _Server(("127.0.0.1", arguments.port), PolicyHandler)
    print(server.server_address[1], flush=True)
    server.serve_forever(0.02)


if __name__ == "__main__":
    main()
