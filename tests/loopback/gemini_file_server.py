"""A Gemini that keeps files under names: found, refused when they are there or gone, expired after 48 hours."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from tests.loopback.gemini_batch_server import GeminiBatchServer
from tests.loopback.gemini_failures import Answer, error, ok

_FILE = re.compile(r"/v1(?:beta)?/(files/[a-z0-9-]+)")
LIFE_S = 48 * 3600.0


class GeminiFileServer(GeminiBatchServer):
    """The server of files and batch jobs, strict about the files that requests name."""

    def __init__(self, *, clock: Callable[[], float] = time.time, **options: Any) -> None:
        """Bind the port; `clock` gives Unix seconds."""
        super().__init__(**options)
        self.clock = clock
        self.uploaded: list[str] = []
        """Names of the files that came up, in order."""
        self.until: dict[str, float] = {}
        """When a file goes."""
        self.says_expiry = True
        """Whether files are described with the time at which they go."""
        self._wanted: dict[str, dict[str, Any]] = {}

    def start(self) -> GeminiFileServer:
        """Serve in the background."""
        super().start()
        return self

    def __enter__(self) -> GeminiFileServer:
        return self.start()

    def lives(self, name: str) -> bool:
        """Whether the file is there."""
        return name in self.world.files and self.until.get(name, 0.0) > self.clock()

    def serve(self, method: str, target: str, headers: Any, raw: bytes) -> Answer | None:
        """As its parent, with files looked up by name."""
        match = _FILE.fullmatch(target.partition("?")[0])
        if method == "GET" and match:
            self.requests.append("file")
            return ok(self._described(match[1])) if self.lives(match[1]) else _absent(match[1])
        return super().serve(method, target, headers, raw)

    def _upload(self, headers: Any, query: dict[str, str], raw: bytes) -> Answer:
        if headers["X-Goog-Upload-Command"] == "start":
            wanted = json.loads(raw)["file"]
            if self.lives(str(wanted.get("name"))):
                return error(409, "ALREADY_EXISTS", f"{wanted['name']} exists.")
            self._wanted[str(len(self._uploads))] = wanted
            return super()._upload(headers, query, raw)
        answer = super()._upload(headers, query, raw)
        name = self._wanted[query["upload_id"]].get("name")
        if answer.headers.get("X-Goog-Upload-Status") != "final" or name is None:
            return answer
        self.world.files[name] = self.world.files.pop(json.loads(answer.body)["file"]["name"])
        self.until[name] = self.clock() + LIFE_S
        self.uploaded.append(name)
        body = json.dumps({"file": self._described(name)}).encode()
        return Answer(200, body, answer.headers)

    def _described(self, name: str) -> dict[str, Any]:
        described = {"name": name, "uri": f"{self.url}/v1beta/{name}", "state": "ACTIVE"}
        if self.says_expiry:
            moment = datetime.fromtimestamp(self.until[name], UTC)
            described["expirationTime"] = moment.isoformat().replace("+00:00", "Z")
        return described

    def _make(self, path: str, key: str, raw: bytes, planned: str) -> tuple[str, Answer]:
        for name in file_names(json.loads(raw)):
            if not self.lives(name):
                return "no_file", _absent(name)
        return super()._make(path, key, raw, planned)


def _absent(name: str) -> Answer:
    said = f"You do not have permission to access the File {name[6:]} or it may not exist."
    return error(403, "PERMISSION_DENIED", said)


def parts_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """All parts of a generateContent body, names in camelCase."""
    found = [part for content in body.get("contents", []) for part in content["parts"]]
    return [json.loads(_SNAKE.sub(_camel, json.dumps(part))) for part in found]


_SNAKE = re.compile(r'"(mime|file|inline)_(\w)(\w*)":')


def _camel(match: re.Match[str]) -> str:
    return f'"{match[1]}{match[2].upper()}{match[3]}":'


def file_names(body: dict[str, Any]) -> Iterator[str]:
    """The files that a body names."""
    for part in parts_of(body):
        if "fileData" in part:
            yield "files/" + str(part["fileData"]["fileUri"]).rpartition("/files/")[2]
