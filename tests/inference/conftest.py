"""An empty database, made once: applying the migrations takes longer than most tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from storage import Store


@pytest.fixture(scope="session")
def _empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batches") / "empty.db"
    Store.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database(_empty_database: Path, tmp_path: Path) -> Path:
    """The file of an empty store of its own."""
    return Path(shutil.copy(_empty_database, tmp_path / "stepgold.db"))
