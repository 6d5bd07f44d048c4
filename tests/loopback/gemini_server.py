"""A Gemini that runs on this machine: the REST shapes, the failures, and a ledger of what was bought.

    python tests/loopback/gemini_server.py --port 0 --fault-rate 0.05 --seed 0 --log calls.jsonl

prints its URL (for GOOGLE_GEMINI_BASE_URL) and serves until it is stopped. Each request is a
line of the log: the hash of its body, the number of the attempt, what was answered, and whether
it was billed, so that a test can count what was bought twice. Keys are never logged.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Any

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.loopback import gemini_answers
from tests.loopback.gemini_billing import bill
from tests.loopback.gemini_failures import (
    FAILURES,
    PASSING,
    Answer,
    bad_key,
    error,
    no_such_model,
    ok,
    too_long,
)

_PATH = re.compile(r"/(?:[\w-]+/)*v1(?:beta)?/models/([\w.-]+):(generateContent|countTokens)")


class GeminiServer:
    """The server; a context manager for tests."""

    def __init__(
        self,
        *,
        port: int = 0,
        fault_rate: float = 0.0,
        faults: Sequence[str] = PASSING,
        script: Sequence[str] = (),
        seed: int = 0,
        delay_ms: float = 0.0,
        wait_s: float = 0.0,
        key: str | None = None,
        max_input_tokens: int = 1_000_000,
        usage: Mapping[str, Any] | None = None,
        version: str | None = None,
        log: Path | None = None,
    ) -> None:
        """Bind the port.

        Args:
            port: 0 takes a free one.
            fault_rate: share of attempts that fail, drawn from the seed, the body and the attempt.
            faults: what they fail with; names of `FAILURES`.
            script: what the first requests get, in order of arrival: a name or "ok".
            seed: seed of the faults.
            delay_ms: how long each answer takes.
            wait_s: what Retry-After and RetryInfo ask for.
            key: the only key that is accepted; None accepts every key but an empty one.
            max_input_tokens: longer prompts are refused.
            usage: the `usageMetadata` of every answer; None counts characters.
            version: the `modelVersion` of every answer; None gives the model's name back.
            log: JSON lines of all requests; None keeps them in `calls` only.
        """
        self.fault_rate, self.faults, self.seed = fault_rate, tuple(faults), seed
        self.script = list(script)
        self.delay_ms, self.wait_s, self.key = delay_ms, wait_s, key
        self.max_input_tokens = max_input_tokens
        self.usage, self.version = usage, version
        self.calls: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.active = 0
        """Requests that are being answered."""
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._log: IO[str] | None = log.open("a", encoding="utf-8") if log else None
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def billed(self) -> Counter[str]:
        """How often each body was bought."""
        return Counter(call["key"] for call in self.calls if call["billed"])

    @property
    def billed_usd(self) -> Decimal:
        """What all answered calls cost, by the server's own count."""
        return sum((call["usd"] for call in self.calls if call["billed"]), Decimal())

    def start(self) -> GeminiServer:
        """Serve in the background."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        if self._log:
            self._log.close()

    def __enter__(self) -> GeminiServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count a request while it is answered."""
        with self._lock:
            self.active += 1
        try:
            yield
        finally:
            with self._lock:
                self.active -= 1

    def answer(self, path: str, key: str, raw: bytes) -> Answer:
        """Decide on one request and enter it into the ledger."""
        digest = hashlib.sha256(raw).hexdigest()
        with self._lock:
            self._attempts[digest] += 1
            attempt = self._attempts[digest]
            planned = self.script.pop(0) if self.script else self._draw(digest, attempt)
        outcome, made = self._make(path, key, raw, planned)
        call = {
            "at": time.monotonic(),
            "key": digest,
            "prompt": prompt_digest(raw),
            "attempt": attempt,
            "path": path,
            "outcome": outcome,
            "status": made.status,
            "billed": made.billed,
            "usd": _bill(path, raw, made) if made.billed else None,
        }
        with self._lock:
            self.calls.append(call)
            if self._log:
                self._log.write(json.dumps(call, default=str) + "\n")
                self._log.flush()
        return made

    def _draw(self, digest: str, attempt: int) -> str:
        chance = random.Random(f"{self.seed}:{digest}:{attempt}")
        return chance.choice(self.faults) if chance.random() < self.fault_rate else "ok"

    def _make(self, path: str, key: str, raw: bytes, planned: str) -> tuple[str, Answer]:
        match = _PATH.fullmatch(path)
        if match is None:
            return "bad_path", error(404, "NOT_FOUND", f"no such path: {path}")
        if not key or (self.key is not None and key != self.key):
            return "bad_key", bad_key()
        model, verb = match.groups()
        if not model.startswith("gemini-"):
            return "no_such_model", no_such_model(model)
        body = json.loads(raw)
        with self._lock:
            self.bodies.append(body)
        tokens = gemini_answers.count_tokens(gemini_answers.prompt_text(body))
        if verb == "countTokens":
            return "count", ok({"totalTokens": tokens})
        if tokens > self.max_input_tokens:
            return "too_long", too_long(tokens, self.max_input_tokens)
        if body["contents"][-1]["role"] != "user" and not model.startswith("gemini-2"):
            return "model_last", error(400, "INVALID_ARGUMENT", "The last turn must be a user's.")
        reply = gemini_answers.full_reply(body, model)
        if self.usage is not None:
            reply["usageMetadata"] = dict(self.usage)
        if self.version is not None:
            reply["modelVersion"] = self.version
        return planned, ok(reply) if planned == "ok" else FAILURES[planned](reply, self.wait_s)


def prompt_digest(raw: bytes) -> str | None:
    """Hash of the prompt in a body, system instruction left out; None if it is no generateContent."""
    body = json.loads(raw)
    if "contents" not in body:
        return None
    return hashlib.sha256(gemini_answers.prompt_text(body).encode()).hexdigest()


def _bill(path: str, raw: bytes, made: Answer) -> Decimal | None:
    match = _PATH.fullmatch(path)
    service = json.loads(raw).get("serviceTier", "standard")
    usage = json.loads(made.body)["usageMetadata"]
    return bill(match[1], usage, service) if match else None


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # the default of 5 resets connections under load
    owner: GeminiServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault of the server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else a delayed ACK costs 40 ms a call
    server: _Http

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(length)
        if len(raw) < length:  # the client died in the middle of its request
            self.close_connection = True
            return
        with self.server.owner.busy():
            self._answer(raw)

    def _answer(self, raw: bytes) -> None:
        owner = self.server.owner
        if owner.delay_ms:
            time.sleep(owner.delay_ms / 1000)
        made = owner.answer(self.path, self.headers.get("x-goog-api-key", ""), raw)
        if made.ending == "hang":  # until the client has had enough
            self.connection.recv(1)
            self.close_connection = True
            return
        self.send_response_only(made.status)
        self.send_header("Date", made.headers.get("Date") or self.date_time_string())
        for name, value in made.headers.items():
            if name != "Date":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(made.body)))
        self.end_headers()
        if made.ending == "whole":
            self.wfile.write(made.body)
            return
        self.wfile.write(made.body[: len(made.body) // 2])
        self.wfile.flush()
        # linger 0: closing sends RST instead of FIN
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """The ledger says it better."""


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--faults", default=",".join(PASSING), help="comma-separated names")
    parser.add_argument("--script", default="", help="comma-separated names, first requests first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--wait-s", type=float, default=0.0, help="what Retry-After asks for")
    parser.add_argument("--key", default=None, help="the only key that is accepted")
    parser.add_argument("--max-input-tokens", type=int, default=1_000_000)
    parser.add_argument("--log", type=Path, default=None)
    options = vars(parser.parse_args())
    options["faults"] = [name for name in options["faults"].split(",") if name]
    options["script"] = [name for name in options["script"].split(",") if name]
    with GeminiServer(**options) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
