"""A Hub of dataset repositories that speaks what huggingface_hub asks: info, tree, resolve, create,
preupload, LFS and commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopbacktoken0123456789"
"""The only token that may push, and read what is private."""


@dataclass
class Repository:
    """A dataset repository: its commits in order, and who may see it."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files of every commit by path, oldest first."""

    @property
    def head(self) -> str:
        """The newest commit."""
        return list(self.commits)[-1]

    def commit(self, files: Mapping[str, bytes]) -> str:
        """Add files to the newest commit; return the new one."""
        kept = dict(self.commits[self.head]) if self.commits else {}
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = kept | dict(files)
        return oid


@dataclass
class Hub:
    """What the server holds and has seen."""

    url: str
    lfs_from: int = 1 << 20
    """Files from this size on go through LFS."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Uploaded LFS objects by SHA-256."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request."""

    def add(
        self, name: str, files: Mapping[str, bytes], *, private: bool = False, gated: bool = False
    ) -> Repository:
        """Create a repository with one commit."""
        made = self.repositories[name] = Repository(private, gated)
        made.commit(files)
        return made


@contextmanager
def running_hub() -> Iterator[Hub]:
    """An empty Hub on a free port of this machine."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


class _Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


_NAME = r"(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    ("GET", re.compile(rf"/api/datasets/{_NAME}(/revision/(?P<revision>[^/]+))?"), "_info"),
    ("GET", re.compile(rf"/api/datasets/{_NAME}/tree/(?P<revision>[^/]+)(/.*)?"), "_tree"),
    (
        "GET",
        re.compile(rf"/datasets/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
        "_resolve",
    ),
    ("POST", re.compile(r"/api/repos/create"), "_create"),
    ("POST", re.compile(r"/api/validate-yaml"), "_validate_card"),
    ("POST", re.compile(rf"/api/datasets/{_NAME}/preupload/(?P<revision>[^/]+)"), "_preupload"),
    ("POST", re.compile(rf"/api/datasets/{_NAME}/commit/(?P<revision>[^/]+)"), "_commit"),
    ("POST", re.compile(rf"/datasets/{_NAME}\.git/info/lfs/objects/batch"), "_lfs_batch"),
    ("PUT", re.compile(r"/lfs/(?P<oid>\w+)"), "_lfs_upload"),
]


class _Handler(BaseHTTPRequestHandler):
    wbufsize = -1
    server: _Server

    def _answer(self) -> None:
        hub, path = self.server.hub, urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.requests.append((self.command, self.path))
        asked = "GET" if self.command == "HEAD" else self.command
        try:
            for method, pattern, name in _ROUTES:
                found = pattern.fullmatch(path)
                if method == asked and found:
                    parts = {key: unquote(part or "") for key, part in found.groupdict().items()}
                    self._send(*getattr(self, name)(body, **parts))
                    return
            raise _Refused(404, "NoRoute")
        except _Refused as fault:
            self._send({"error": fault.code}, {"X-Error-Code": fault.code}, fault.status)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _send(
        self, content: Any, headers: Mapping[str, str] | None = None, status: int = 200
    ) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response_only(status)
        for key, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository:
        found = self.server.hub.repositories.get(name)
        if found is None or (found.private and not self._may_write()):
            raise _Refused(404 if self._may_write() else 401, "RepoNotFound")
        if found.gated and not self._may_write():
            raise _Refused(403, "GatedRepo")
        return found

    def _files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._repository(name)
        commit = found.head if revision in ("", "main") else revision
        if commit not in found.commits:
            raise _Refused(404, "RevisionNotFound")
        return commit, found.commits[commit]

    def _info(self, body: bytes, name: str, revision: str) -> tuple[Any, ...]:
        commit, files = self._files(name, revision)
        names = [{"rfilename": path} for path in files]
        private = self._repository(name).private
        return ({"id": name, "sha": commit, "private": private, "siblings": names},)

    def _tree(self, body: bytes, name: str, revision: str) -> tuple[Any, ...]:
        _, files = self._files(name, revision)
        return (
            [
                {"type": "file", "path": path, "size": len(raw), "oid": _blob(raw)}
                for path, raw in files.items()
            ],
        )

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> tuple[Any, ...]:
        commit, files = self._files(name, revision)
        if path not in files:
            raise _Refused(404, "EntryNotFound")
        return files[path], {"ETag": f'"{_blob(files[path])}"', "X-Repo-Commit": commit}

    def _create(self, body: bytes) -> tuple[Any, ...]:
        self._require_token()
        asked = json.loads(body)
        name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
        self.server.hub.add(name, {}, private="private" in (asked.get("visibility"), *asked))
        return ({"url": f"{self.server.hub.url}/datasets/{name}", "name": name},)

    def _validate_card(self, body: bytes) -> tuple[Any, ...]:
        asked = json.loads(body)
        if asked["repoType"] != "dataset" or not asked["content"].startswith("---\n"):
            raise _Refused(400, "BadCard")
        return ({"errors": [], "warnings": []},)

    def _require_token(self) -> None:
        if not self._may_write():
            raise _Refused(401, "Unauthorized")

    def _preupload(self, body: bytes, name: str, revision: str) -> tuple[Any, ...]:
        self._require_token()
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= self.server.hub.lfs_from else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        return ({"files": modes},)

    def _lfs_batch(self, body: bytes, name: str) -> tuple[Any, ...]:
        self._require_token()
        objects = [
            each | {"actions": {"upload": {"href": f"{self.server.hub.url}/lfs/{each['oid']}"}}}
            for each in json.loads(body)["objects"]
        ]
        document = {"transfer": "basic", "objects": objects}
        return document, {"Content-Type": "application/vnd.git-lfs+json"}

    def _lfs_upload(self, body: bytes, oid: str) -> tuple[Any, ...]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400, "WrongHash")
        self.server.hub.objects[oid] = body
        return ({},)

    def _commit(self, body: bytes, name: str, revision: str) -> tuple[Any, ...]:
        self._require_token()
        added: dict[str, bytes] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                added[value["path"]] = self.server.hub.objects[value["oid"]]
        oid = self._repository(name).commit(added)
        url = f"{self.server.hub.url}/datasets/{name}/commit/{oid}"
        return ({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""},)

    def log_message(self, *_: object) -> None:
        """`Hub.requests` is enough."""


def _blob(raw: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
