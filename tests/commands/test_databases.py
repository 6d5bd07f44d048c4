"""`stepgold db`, and the whole pipeline on PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stepgold
from storage import Store
from tests.commands.many_processes import Many, until
from tests.commands.test_judge_chaos import many_traces, recorded
from tests.commands.test_shared_labeler import CONCURRENCY, JUDGE, LIBRARIES, bought, stored_by
from tests.loopback.gemini_server import GeminiServer
from tests.loopback.postgres_server import PostgresServer

Cli = Callable[..., Any]


def test_a_database_is_checked_backed_up_compacted_and_copied(
    cli: Cli, traces_file: Path, tmp_path: Path
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    found = cli("db", "check", "--json").document
    assert found["ok"]
    assert (found["rows"]["traces"], found["damage"]) == (3, [])
    assert cli("db", "backup", tmp_path / "b.db", "--json").document["bytes"] > 0
    assert cli("db", "backup", tmp_path / "b.db").code == 2
    assert cli("db", "vacuum", "--json").document["bytes_after"] > 0
    copied = cli("db", "copy", tmp_path / "b.db", tmp_path / "c.db", "--json").document
    assert copied["rows"] == copied["copied"] == sum(found["rows"].values())
    assert all(len(table["sha256"]) == 64 for table in copied["tables"])
    again = cli("db", "copy", tmp_path / "b.db", tmp_path / "c.db", "--json").document
    assert (again["rows"], again["copied"]) == (copied["rows"], 0)
    assert cli("db", "copy", tmp_path / "b.db", tmp_path / "b.db").code == 2
    assert cli("db", "copy", tmp_path / "absent.db", tmp_path / "d.db").code == 2
    assert "no damage" in cli("db", "check").out


def test_the_methods_are_the_commands(traces_file: Path, tmp_path: Path) -> None:
    ws = stepgold.Workspace(tmp_path / "w", progress=False)
    ws.import_("traces", traces_file, dataset="d")
    assert ws.db_check().table_rows["traces"] == 3
    assert ws.db_backup(tmp_path / "b.db").file == tmp_path / "b.db"
    result = ws.db_copy(str(tmp_path / "b.db"), str(tmp_path / "c.db"))
    assert "traces: 3" in str(result)
    assert ws.db_vacuum().bytes_after > 0


def test_a_password_in_the_url_is_not_shown(tmp_path: Path, cli: Cli) -> None:
    url = "postgresql+psycopg://me:s3cret@127.0.0.1:1/d?connect_timeout=2"
    assert "s3cret" not in repr(stepgold.Workspace(tmp_path, db=url))
    called = cli("--db", url, "status", "--json")
    assert called.code == 2
    assert "s3cret" not in called.out + called.err
    assert "me:***@127.0.0.1" in called.document["error"]["where"]


@pytest.mark.slow
def test_four_judges_share_a_postgresql_labeler_and_two_are_killed(
    cli: Cli, postgres: PostgresServer, tmp_path: Path
) -> None:
    count, url = 200, postgres.url()
    place = ("--workspace", tmp_path / "w", "--db", url)
    assert (
        cli(*place, "import", "traces", many_traces(tmp_path / "t", count), "--dataset", "d").code
        == 0
    )
    with GeminiServer(delay_ms=15, seed=5) as server:
        keys = {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
        with Many(tmp_path / "out", keys, more=LIBRARIES) as many:
            line = (*place, *JUDGE, "--concurrency", str(CONCURRENCY))
            children = [many.start(*line) for _ in range(4)]
            until(lambda: sum(bought(server).values()) >= 60)
            for child in children[:2]:
                os.kill(child, signal.SIGKILL)
                assert many.ended(child)[0] == -signal.SIGKILL
            documents = [many.document(child) for child in children[2:]]
            until(lambda: server.active == 0)
        assert {one["failed"] for one in documents} == {0}
        assert {stored_by(one) + one["unchanged"] for one in documents} == {count}
        kept, paid = recorded(url), bought(server)
    with Store.open(url) as store:
        assert len(store.labels.load("d", "judge")) == count
        assert store.claims.live(at=0.0) == []
    assert set(kept.values()) == {1}
    assert len(kept) == count
    lost = paid - kept
    assert sum(lost.values()) <= 2 * CONCURRENCY, "more was lost than was in flight"
    assert max(lost.values(), default=1) <= 2


@pytest.mark.slow
def test_the_demo_is_equal_byte_for_byte_on_sqlite_and_postgresql(
    cli: Cli, postgres: PostgresServer, tmp_path: Path
) -> None:
    out, other = tmp_path / "sqlite", tmp_path / "postgresql"
    url, copy = postgres.url(), postgres.url()
    assert cli("demo", "--out", out).code == 0
    assert cli("--db", url, "demo", "--out", other).code == 0
    assert not (other / "stepgold.db").exists()
    assert (out / "training.jsonl").read_bytes() == (other / "training.jsonl").read_bytes()
    assert cli("db", "copy", out / "stepgold.db", copy).code == 0
    sqlite = f"sqlite:///{out / 'stepgold.db'}"
    labelers = cli("--db", sqlite, "status", "--json").document["labelers"]
    assert len(labelers) == 6
    for labeler in (each["name"] for each in labelers):
        one, *others = (exported(cli, place, labeler, tmp_path) for place in (sqlite, url, copy))
        assert others == [one, one]


def exported(cli: Cli, url: str, labeler: str, folder: Path) -> bytes:
    """The export of a labeler's labels in our own format."""
    path = folder / "exported.jsonl"
    argv = ("export", "traces", path, "--dataset", "lab", "--labeler", labeler)
    assert cli("--db", url, *argv).code in (0, 1)
    content = path.read_bytes()
    path.unlink()
    return content
