"""A Gemini with files and batch jobs: the REST shapes of `facts/gemini.md`, section 2.

Files come and go, jobs step on whenever they are looked at, and a test can hold a reply back until
it has killed the client that waits for it.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import gemini_server
from tests.loopback.gemini_batch_jobs import BatchWorld, Job
from tests.loopback.gemini_failures import Answer, bad_key, error, ok
from tests.loopback.gemini_server import GeminiServer

_CREATE = re.compile(r"/v1(?:beta)?/models/([\w.-]+):batchGenerateContent")
_JOB = re.compile(r"/v1(?:beta)?/(batches/\w+)(:cancel)?")
_DOWNLOAD = re.compile(r"/v1(?:beta)?/(files/\w+):download")


@dataclass
class Hold:
    """A reply that is held back."""

    reached: threading.Event = field(default_factory=threading.Event)
    """Set when the request is there."""
    release: threading.Event = field(default_factory=threading.Event)
    """To be set when the reply may go."""


class GeminiBatchServer(GeminiServer):
    """The server of single calls, with files and batch jobs beside them."""

    def __init__(
        self,
        world: BatchWorld | None = None,
        *,
        create_script: Sequence[str] = (),
        page: int = 2,
        **options: Any,
    ) -> None:
        """Bind the port.

        Args:
            world: files and jobs; one that is given outlives this server.
            create_script: what the first attempts to make a job get: "ok", "429" or "429 SECONDS TO WAIT" (not made),
                "503" or "lost" (not made), "503 made" (made, but the reply says 503).
            page: jobs on a page of the list.
            options: of `GeminiServer`.
        """
        super().__init__(**options)
        self.world = world or BatchWorld()
        self.create_script = list(create_script)
        self.page = page
        self.requests: list[str] = []
        self.failing: set[str] = set()
        self._uploads: dict[str, bytearray] = {}
        self._holds: dict[str, Hold] = {}
        self._http.RequestHandlerClass = _Handler
        self.connections: set[socket.socket] = set()

    def start(self) -> GeminiBatchServer:
        """Serve in the background."""
        super().start()
        return self

    def __enter__(self) -> GeminiBatchServer:
        return self.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    def close(self) -> None:
        """Stop serving, also on connections that are kept alive; once more is fine."""
        super().close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def holding(self, moment: str) -> Iterator[Hold]:
        """Hold one request back: `upload`, `create`, `look` or `download`, ` before` or ` after`."""
        hold = self._holds[moment] = Hold()
        try:
            yield hold
        finally:
            self._holds.pop(moment, None)
            hold.release.set()

    def pause(self, moment: str) -> None:
        """Wait here if a test wants it."""
        hold = self._holds.pop(moment, None)
        if hold is not None:
            hold.reached.set()
            hold.release.wait(timeout=60)

    def serve(self, method: str, target: str, headers: Any, raw: bytes) -> Answer | None:
        """The answer to a request of files or jobs; None for one that is of neither."""
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path.startswith("/upload/"):
            return self._upload(headers, query, raw)
        named = self._named(method, url.path)
        if named is None:
            return None
        verb, match = named
        self.requests.append(verb)
        key = headers.get("x-goog-api-key", "")
        if not key or (self.key is not None and key != self.key):
            return bad_key()
        if verb in self.failing:
            return error(503, "UNAVAILABLE", "The service is overloaded.")
        self.pause(f"{verb} before")
        with self.world.lock:
            answer: Answer = getattr(self, f"_{verb}")(match, query, raw)
        self.pause(f"{verb} after")
        return answer

    def _named(self, method: str, path: str) -> tuple[str, re.Match[str] | None] | None:
        if method == "POST" and (match := _CREATE.fullmatch(path)):
            return "create", match
        if match := _JOB.fullmatch(path):
            return ("cancel" if match[2] else "look"), match
        if match := _DOWNLOAD.fullmatch(path):
            return "download", match
        return ("list", None) if re.fullmatch(r"/v1(?:beta)?/batches", path) else None

    def _upload(self, headers: Any, query: dict[str, str], raw: bytes) -> Answer:
        if headers["X-Goog-Upload-Command"] == "start":
            number = str(len(self._uploads))
            self._uploads[number] = bytearray()
            where = f"{self.url}/upload/v1beta/files?upload_id={number}&upload_protocol=resumable"
            return Answer(200, b"{}", {"X-Goog-Upload-URL": where})
        self.requests.append("upload")
        self.pause("upload before")
        self._uploads[query["upload_id"]] += raw
        if "finalize" not in headers["X-Goog-Upload-Command"]:
            return Answer(200, b"", {"X-Goog-Upload-Status": "active"})
        with self.world.lock:
            name = f"files/in{len(self.world.files)}"
            self.world.files[name] = bytes(self._uploads[query["upload_id"]])
        self.pause("upload after")
        body = {"file": {"name": name, "uri": f"{self.url}/v1beta/{name}", "state": "ACTIVE"}}
        return Answer(200, json.dumps(body).encode(), {"X-Goog-Upload-Status": "final"})

    def _create(self, match: re.Match[str], _: object, raw: bytes) -> Answer:
        planned = self.create_script.pop(0) if self.create_script else "ok"
        if planned.startswith("429"):
            wait = {"Retry_After": planned[4:]} if planned[4:] else {}
            return error(429, "RESOURCE_EXHAUSTED", "Enqueued tokens limit exceeded.", **wait)
        if planned in ("503", "lost"):
            return error(503, "UNAVAILABLE", "The service is overloaded.")
        batch = json.loads(raw)["batch"]
        job = self.world.create(match[1], batch["displayName"], batch["inputConfig"]["fileName"])
        if planned == "503 made":
            return error(503, "UNAVAILABLE", "The service is overloaded.")
        return ok(self.world.describe(job))

    def _look(self, match: re.Match[str], _: object, __: bytes) -> Answer:
        job = self.world.jobs.get(match[1])
        if job is None:
            return error(404, "NOT_FOUND", f"{match[1]} is not found.")
        self.world.look(job)
        return ok(self.world.describe(job))

    def _cancel(self, match: re.Match[str], _: object, __: bytes) -> Answer:
        job = self.world.jobs[match[1]]
        if job.has_ended:
            return error(400, "FAILED_PRECONDITION", "The job has ended.")
        if not self.world.deaf_to_cancel:
            self.world.cancel(job, answered=job.plan.share if job.plan.ending == "STUCK" else 0.0)
        return ok({})

    def _list(self, _: object, query: dict[str, str], __: bytes) -> Answer:
        jobs: list[Job] = sorted(self.world.jobs.values(), key=lambda job: -job.number)
        start = int(query.get("pageToken", 0))
        end = start + min(self.page, int(query.get("pageSize", self.page)))
        page: dict[str, Any] = {"operations": [self.world.describe(job) for job in jobs[start:end]]}
        if end < len(jobs):
            page["nextPageToken"] = str(end)
        return ok(page)

    def _download(self, match: re.Match[str], query: dict[str, str], __: bytes) -> Answer:
        content = self.world.files.get(match[1])
        if self.world.forgetful:
            self.world.forgetful -= 1
            content = None
        if content is None or query.get("alt") != "media":
            return error(404, "NOT_FOUND", f"{match[1]} is not found.")
        return Answer(200, content, {"Content-Type": "application/octet-stream"})


class _Handler(gemini_server._Handler):
    """GET beside POST; single calls are answered as ever."""

    def setup(self) -> None:
        super().setup()
        self._owner.connections.add(self.connection)

    def finish(self) -> None:
        super().finish()
        self._owner.connections.discard(self.connection)

    @property
    def _owner(self) -> GeminiBatchServer:
        owner = self.server.owner
        if not isinstance(owner, GeminiBatchServer):
            raise TypeError("this handler serves a GeminiBatchServer")
        return owner

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve(raw)

    def _serve(self, raw: bytes) -> None:
        owner = self._owner
        made = owner.serve(self.command, self.path, self.headers, raw)
        if made is None:
            made = owner.answer(self.path, self.headers.get("x-goog-api-key", ""), raw)
        self.send_response_only(made.status)
        for name, value in made.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(made.body)))
        self.end_headers()
        self.wfile.write(made.body)
