"""Shared fixtures: no key and no stray endpoint in the environment, real data where it exists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.loopback.postgres_server import PostgresServer, postgres_server

# How long one example takes says how busy the machine is, not whether the code is right.
settings.register_profile("stepgold", deadline=None)
settings.load_profile("stepgold")

# Before anything imports huggingface_hub, which reads it once: a missing model fails at once.
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

_CLEARED = (
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "OPENAI_API_KEY",
    "GOOGLE_GEMINI_BASE_URL",
    "OPENAI_BASE_URL",
    "GOOGLE_GENAI_API_VERSION",
    "GOOGLE_GENAI_HTTP_CLIENT",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOOGLE_GENAI_USE_ENTERPRISE",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_GENAI_CLIENT_MODE",
    "GOOGLE_GENAI_REPLAYS_DIRECTORY",
    "GOOGLE_GENAI_REPLAY_ID",
)


_OURS = (
    "traces|formats|retrieval|inference|judge|labeling|scoring|evaluation|storage|lab|commands|cli"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--latest`: the libraries are newer than constraints.txt, and may announce changes."""
    parser.addoption(
        "--latest",
        action="store_true",
        help="show what libraries deprecate instead of failing (`make test-latest`)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """With `--latest` only warnings that our code is the cause of fail; the last match decides."""
    if config.getoption("--latest"):
        for line in (
            "default",
            rf"error:::({_OURS})(\.|$)",
            "default::DeprecationWarning",
            "default::PendingDeprecationWarning",
            "default::FutureWarning",
        ):
            config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no key and no base URL."""
    for name in _CLEARED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this session; skips where none is installed."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the public benchmark files; skips where it is missing."""
    named = os.environ.get("STEPGOLD_REAL_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: set STEPGOLD_REAL_DATA")
    return folder
