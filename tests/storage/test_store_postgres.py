"""PostgreSQL: what it refuses, what is never printed, and several writers at once."""

from __future__ import annotations

import pytest

from storage import Store
from tests.loopback.postgres_server import PostgresServer
from tests.storage.builders import fill, ids

pytestmark = pytest.mark.slow


def test_a_database_is_made_once_and_opened_again(postgres: PostgresServer) -> None:
    url = postgres.url()
    with Store.open(url) as store:
        fill(store)
    with Store.open(url, create=False) as store:
        assert ids(store) == ["t0", "t1", "t2"]
