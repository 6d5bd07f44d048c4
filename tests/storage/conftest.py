"""A store in memory, and a place for one in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import Store


@pytest.fixture
def store() -> Iterator[Store]:
    """An empty store in memory."""
    with Store.open("sqlite://") as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database may be made."""
    return tmp_path / "stepgold.db"


@pytest.fixture
def url(path: Path) -> str:
    """The URL of that place."""
    return f"sqlite:///{path}"
