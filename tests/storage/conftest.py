"""A store in a file, and a place for a new one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import Store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once: applying the migrations takes longer than most tests."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> Iterator[Store]:
    """An empty store in a file of its own."""
    path = tmp_path / "store.db"
    shutil.copy(empty_database, path)
    with Store.open(f"sqlite:///{path}", create=False) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database may be made."""
    return tmp_path / "new" / "stepgold.db"


@pytest.fixture
def url(path: Path) -> str:
    """The URL of that place."""
    path.parent.mkdir()
    return f"sqlite:///{path}"
