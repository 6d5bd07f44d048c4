"""Opening: what becomes a database, what is refused, and that the refused file stays as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, make_url

from storage import Store, database_url
from storage.database import APPLICATION_ID, SqliteConnections
from tests.storage.builders import fill, ids, row, source
from traces.errors import InputError, StoreError

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A directory of ours, seen by a user who is not root: root may write everywhere."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if root:
            os.chown(place, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield place
        finally:
            place.chmod(0o755)
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_a_missing_or_empty_file_becomes_a_database(
    path: Path, url: str, content: bytes | None
) -> None:
    if content is not None:
        path.write_bytes(content)
    with Store.open(url) as store:
        fill(store)
    with Store.open(url, create=False) as store:
        assert ids(store) == ["t0", "t1", "t2"]
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_whose_making_was_cut_off_is_made_anew(path: Path, url: str) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
    assert path.stat().st_size
    with Store.open(url) as store:
        fill(store)


@pytest.mark.slow
def test_a_database_that_was_copied_while_open_has_all_its_rows(path: Path, url: str) -> None:
    copy = path.parent / "copy"
    copy.mkdir()
    with Store.open(url) as store:
        fill(store)
        for name in ("stepgold.db", "stepgold.db-wal"):
            shutil.copy(path.parent / name, copy / name)
    with Store.open(f"sqlite:///{copy}/stepgold.db", create=False) as store:
        assert ids(store) == ["t0", "t1", "t2"]


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_without_create_a_missing_database_is_named_with_the_command_that_makes_one(
    path: Path, url: str, content: bytes | None
) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        Store.open(url, create=False)
    assert caught.value.where == str(path)
    assert "stepgold import" in str(caught.value.remedy)
    assert path.exists() == (content is not None)


def test_a_newer_schema_is_refused_and_left_alone(path: Path, url: str) -> None:
    Store.open(url).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = 'm0099'")
        raw.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer StepGold.*'m0099'") as caught:
        Store.open(url)
    assert "update StepGold" in str(caught.value.remedy)
    assert path.read_bytes() == before


@pytest.mark.parametrize("revision", ["m0001", "m0007"])
def test_the_schema_of_an_unreleased_version_is_refused_and_left_alone(
    path: Path, url: str, revision: str
) -> None:
    Store.open(url).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        raw.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="unreleased") as caught:
        Store.open(url)
    assert "import the files again" in str(caught.value.remedy)
    assert path.read_bytes() == before


def test_a_database_that_lost_its_revision_is_called_damaged(path: Path, url: str) -> None:
    Store.open(url).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("DROP TABLE alembic_version")
        raw.commit()
    with pytest.raises(StoreError, match="damaged"):
        Store.open(url)


@pytest.mark.parametrize("application", [0, 7])
def test_a_database_of_another_program_is_refused_and_left_alone(
    path: Path, url: str, application: int
) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA application_id = {application}")
        raw.execute("CREATE TABLE traces (id)")
        raw.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Store.open(url)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_log_of_another_program_is_not_folded_into_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    with closing(sqlite3.connect(tmp_path / "other.db")) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("CREATE TABLE mail (id)")
        raw.commit()
        for name in ("other.db", "other.db-wal"):
            shutil.copy(tmp_path / name, folder / name)
    before = {name: (folder / name).read_bytes() for name in ("other.db", "other.db-wal")}
    assert before["other.db-wal"]
    with pytest.raises(StoreError, match="another program"):
        Store.open(f"sqlite:///{folder}/other.db")
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("content", [b"id,steps\n1,2\n", b"\x00" * 4096], ids=["text", "zeros"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    path: Path, url: str, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not a SQLite database") as caught:
        Store.open(url)
    assert caught.value.where == str(path)
    assert path.read_bytes() == content


def test_a_truncated_database_is_refused(path: Path, url: str) -> None:
    with Store.open(url) as store:
        fill(store)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreError, match="damaged"):
        Store.open(url)


def test_a_directory_is_refused(path: Path, url: str) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="There is a directory"):
        Store.open(url)


def test_a_missing_directory_is_refused_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        Store.open(f"sqlite:///{tmp_path}/no/stepgold.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        Store.open(f"sqlite:///{tmp_path}/file/stepgold.db")


def test_a_read_only_directory_is_refused() -> None:
    with unprivileged() as folder:
        folder.chmod(0o555)
        with pytest.raises(StoreError, match="directory of the database is read-only") as caught:
            Store.open(f"sqlite:///{folder}/stepgold.db")
        assert caught.value.where == str(folder)


def test_a_read_only_file_is_refused() -> None:
    with unprivileged() as folder:
        url = f"sqlite:///{folder}/stepgold.db"
        Store.open(url).close()
        (folder / "stepgold.db").chmod(0o444)
        with pytest.raises(StoreError, match="file of the database is read-only"):
            Store.open(url)


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_a_read_only_database_can_be_read(closed: str) -> None:
    with unprivileged() as folder:
        database = folder / "a ?#%.db"
        url = database_url(database)
        with Store.open(url) as store:
            store.traces.sampled.declare("d", "drawn", {"n": 1})
        before = sorted(path.name for path in folder.iterdir())
        (folder if closed == "folder" else database).chmod(0o555 if closed == "folder" else 0o444)
        with Store.open(url, create=False) as store:
            assert list(store.traces.datasets()) == ["d"]
            with pytest.raises(StoreError, match="read-only"):
                store.traces.remove_dataset("d")
            assert list(store.traces.datasets()) == ["d"]
        if closed == "folder":
            assert sorted(path.name for path in folder.iterdir()) == before


def test_an_unreadable_file_is_refused() -> None:
    with unprivileged() as folder:
        place = folder / "stepgold.db"
        place.write_bytes(b"")
        place.write_text("x" * 100)
        place.chmod(0o200)
        with pytest.raises(StoreError, match="cannot be opened"):
            Store.open(f"sqlite:///{place}")


@pytest.mark.parametrize(
    "url",
    [
        "stepgold.db",
        "mysql://me:secret@host/db",
        "sqlite:///x.db?mode=ro",
        "sqlite://host/x.db",
    ],
)
def test_another_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Store.open(url)
    assert "sqlite:///" in str(caught.value.remedy)
    assert "secret" not in str(caught.value)


def test_a_full_disk_is_a_store_error_and_what_was_there_stays(path: Path, url: str) -> None:
    with Store.open(url) as store:
        fill(store)
    limited = SqliteConnections(make_url(url))
    event.listen(
        limited.engine, "connect", lambda raw, _: raw.execute("PRAGMA max_page_count = 60")
    )
    with Store(limited) as store, pytest.raises(StoreError, match="disk is full") as caught:
        store.traces.import_file(
            "big", source(), (row(f"b{n}", steps=("x" * 5000,)) for n in range(90))
        )
    assert "free some space" in str(caught.value.remedy)
    assert caught.value.where == str(path)
    with Store.open(url) as store:
        assert list(store.traces.datasets()) == ["d"]


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        with Store.open(f"sqlite:///{place}/stepgold.db") as store:
            fill(store)
            with pytest.raises(StoreError, match=r"disk is full|operating system"):
                store.traces.import_file(
                    "big", source(), (row(f"b{n}", steps=("x" * 9000,)) for n in range(400))
                )
            assert ids(store) == ["t0", "t1", "t2"]
        with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        with pytest.raises(StoreError):
            Store.open(f"sqlite:///{place}/another.db")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_lock_that_is_held_too_long_is_a_store_error(url: str) -> None:
    Store.open(url).close()
    waiting = Store(SqliteConnections(make_url(url), timeout_s=0.05))
    holding = Store.open(url)
    with waiting, holding, holding.transaction():
        fill(holding)
        with pytest.raises(StoreError, match="in use") as caught:
            fill(waiting)
    assert "other stepgold command" in str(caught.value.remedy)


def test_every_connection_has_the_settings(url: str) -> None:
    connections = SqliteConnections(make_url(url))
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    with connections.read() as one, connections.read() as other:
        for connection in (one, other):
            values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
            assert values == ["wal", 1, 1, 30000]
    connections.close()


def test_a_write_block_has_the_write_lock_before_its_first_statement(path: Path, url: str) -> None:
    Store.open(url).close()
    connections = SqliteConnections(make_url(url))
    with closing(sqlite3.connect(path, timeout=0)) as raw:
        with connections.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
            raw.execute("BEGIN IMMEDIATE")
        with connections.read():
            raw.execute("BEGIN IMMEDIATE")
    connections.close()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_defect_of_ours_is_not_called_a_fault_of_the_database(store: Store) -> None:
    with pytest.raises(Exception, match="no such table") as caught, store._connections.read() as c:
        c.exec_driver_sql("SELECT * FROM nowhere")
    assert not isinstance(caught.value, StoreError)


@pytest.mark.parametrize(
    "name", ["my data #1 100% é", "a?b", "p%20q", "x&y=z;", "肝 \U0001f9ea", "@:"]
)
def test_a_path_with_odd_characters_is_used_as_it_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with Store.open(database_url(folder / "stepgold.db")) as store:
        fill(store)
    assert (folder / "stepgold.db").stat().st_size
    with Store.open(database_url(folder / "stepgold.db"), create=False) as store:
        assert ids(store) == ["t0", "t1", "t2"]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.slow
def test_a_database_is_made_and_opened_without_alembic(url: str) -> None:
    script = (
        "import sys; from storage import Store;"
        "Store.open(sys.argv[1]).close(); Store.open(sys.argv[1]).close();"
        "print('alembic' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "-c", script, url], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"
