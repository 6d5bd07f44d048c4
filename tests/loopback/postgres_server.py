"""A private PostgreSQL cluster on a socket in a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

_DATABASES = count()


@dataclass(frozen=True)
class PostgresServer:
    """A running server that trusts everyone who may open its socket."""

    folder: Path
    binaries: Path

    def url(self, name: str | None = None, *, language: str | None = None) -> str:
        """The URL of a new database, which sorts text by a language if one is given."""
        made = name or f"d{next(_DATABASES)}"
        icu = ["--template", "template0", "--locale-provider", "icu", "--icu-locale"]
        sorting = [] if language is None else [*icu, language]
        self.run("createdb", "--host", str(self.folder), "--username", "postgres", *sorting, made)
        return f"postgresql+psycopg://postgres@/{made}?host={self.folder}"

    def run(self, program: str, *arguments: str) -> str:
        """Run one of its programs as its user, and return what it prints."""
        return _run([str(self.binaries / program), *arguments])


def _binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: each.parent.name)
    named = shutil.which("initdb")
    found = [Path(named).resolve().parent] if named else folders[-1:]
    return next((each for each in found if (each / "postgres").exists()), None)


def _user() -> dict[str, Any]:
    """Options of subprocess: the server refuses to run as root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def _run(argv: list[str]) -> str:
    # Files, not pipes: the server outlives pg_ctl and would hold a pipe open.
    with tempfile.TemporaryFile() as out:
        done = subprocess.run(
            argv, stdout=out, stderr=out, cwd="/", timeout=120, check=False, **_user()
        )
        out.seek(0)
        said = out.read().decode(errors="replace")
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: {said}")
    return said


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server for a test session; the test skips where PostgreSQL or psycopg is not installed."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip install 'stepgold[postgres]')")
    # Short: the path of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="stepgold-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    data = folder / "data"
    try:
        auth = ["--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-sync"]
        _run([str(binaries / "initdb"), "--pgdata", str(data), "--locale", "C.UTF-8", *auth])
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        control = [str(binaries / "pg_ctl"), "--pgdata", str(data), "--wait"]
        _run([*control, "--options", options, "--log", str(folder / "log"), "start"])
        try:
            yield PostgresServer(folder, binaries)
        finally:
            _run([*control, "--mode", "immediate", "stop"])
    finally:
        shutil.rmtree(folder)
