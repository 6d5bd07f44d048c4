"""Servers over real workspaces, spoken to over HTTP."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("uvicorn", reason="pip install 'stepgold[review]'")

from review import Running, ViewOptions
from stepgold.workspace import WorkspaceFolder
from tests.commands.labelled_workspace import make_workspace

DEADLINE_S = 60.0


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def token(self) -> str:
        """The token of the page's first form."""
        found = re.search(r'name="form_token" value="([^"]+)"', self.text)
        assert found is not None
        return found[1]


@dataclass
class Visitor:
    """A browser without a screen: keeps cookies, sends what it is told."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, form: Mapping[str, str], **headers: str) -> Answer:
        sent = {"Content-Type": "application/x-www-form-urlencoded"} | headers
        return self.send("POST", path, urlencode(form), **sent)

    def send(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            said.setdefault("Cookie", "; ".join(f"{k}={v}" for k, v in self.cookies.items()))
        try:
            connection.request(method, path, body, said)
            answer = connection.getresponse()
            for name, value in answer.getheaders():
                if name.lower() == "set-cookie":
                    self.cookies |= {key: each.value for key, each in SimpleCookie(value).items()}
            listed = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, listed, answer.read())
        finally:
            connection.close()


Serve = Callable[..., Running]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server over a workspace on a free port; it ends with the test."""
    with ExitStack() as stack:

        def start(workspace: Path, *, port: int = 0, **options: Any) -> Running:
            guard = {name: options.pop(name) for name in ("login", "settings") if name in options}
            running = Running(
                WorkspaceFolder(workspace), ViewOptions(port=port, **options), **guard
            )
            return stack.enter_context(running)

        yield start


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gold, a PRM and judges on twelve traces with hostile texts."""
    return make_workspace(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="session")
def site(workspace: Path) -> Iterator[Running]:
    """One server over that workspace for all tests that only look."""
    with Running(WorkspaceFolder(workspace), ViewOptions(port=0)) as running:
        yield running


@pytest.fixture
def visitor(site: Running) -> Visitor:
    """A visitor of that server."""
    return Visitor(site.port)
