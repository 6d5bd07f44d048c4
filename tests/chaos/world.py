"""A workspace under attack: how commands are started and killed, and what must hold afterwards."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.commands.many_processes import Many, until
from tests.loopback.gemini_server import GeminiServer
from tests.loopback.openai_server import OpenAIServer

CLOCK = """
import os, time
import stepgold.scoring_run, scoring, transformers.models.llama.modeling_llama
import stepgold.corpora, stepgold.searching, stepgold.retrieval, stepgold.exchange, stepgold.report
import stepgold.agreeing, stepgold.comparing, stepgold.evaluating, stepgold.choosing, stepgold.overlap
import stepgold.planning, stepgold.config_run, retrieval, formats, evaluation, pyarrow
_time = time.time
def shifted():
    try:
        with open(os.environ["CHAOS_CLOCK"]) as file:
            return _time() + float(file.read() or 0)
    except FileNotFoundError:
        return _time()
time.time = shifted
"""
"""Imports what commands need; the time of day is shifted by the seconds in a file."""

VOLATILE = {"created_at", "imported_at", "hits", "pk", "position"}
"""Columns that differ from run to run: processes store candidates in any order."""
APART = {"model_calls", "claims", "claimants", "alembic_version"}
"""Tables that are checked by themselves."""
CONCURRENCY = 4
"""Calls in flight of one command."""


@dataclass
class World:
    """Servers, the process that forks commands, and a folder."""

    folder: Path
    gemini: GeminiServer
    openai: OpenAIServer
    many: Many
    clock: Path

    def run(self, home: Path, *argv: str | Path) -> tuple[int, Any]:
        """Run a command to its end; exit code and document."""
        child = self.start(home, *argv)
        code, out, err = self.many.ended(child)
        assert "Traceback" not in err, err
        return code, json.loads(out) if out.startswith("{") else out or err

    def start(self, home: Path, *argv: str | Path) -> int:
        """Start a command on the workspace `home`; {home} in an argument names it."""
        words = [str(each).replace("{home}", str(home)) for each in argv]
        return self.many.start("--workspace", home, *words)

    def billed(self) -> int:
        """Replies that a command has to have in its ledger."""
        sent = sum("messages" in body for _, body, _ in list(self.openai.calls))
        return sent + sum(bool(call["billed"]) for call in list(self.gemini.calls))

    def quiet(self) -> None:
        """Wait until the servers answer nobody."""
        until(lambda: self.gemini.active == 0)

    def copied(self, template: Path) -> Path:
        """A fresh copy of a workspace."""
        home = self.folder / "work"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(template, home)
        return home


def opened(tmp: Path) -> World:
    """A world whose servers and mother process still have to be closed with `close`."""
    gemini = GeminiServer(delay_ms=4, fault_rate=0.05, seed=11).start()
    openai = OpenAIServer("Step 1: Add.\nStep 2: Check.\nStep 3: It is 7.").__enter__()
    clock, scratch = tmp / "clock", tmp / "scratch"
    scratch.mkdir()
    keys = {
        "GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": gemini.url, "CHAOS_CLOCK": str(clock),
        "OPENAI_BASE_URL": openai.url, "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    many = Many(tmp / "out", keys, more=CLOCK).__enter__()
    return World(tmp, gemini, openai, many, clock)


def close(world: World) -> None:
    """Stop the servers and the process that forks."""
    world.many.__exit__()
    world.gemini.close()
    world.openai.__exit__(None, None, None)


@dataclass
class Content:
    """What is in a database, by content rather than by key."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)
    calls: frozenset[str] = frozenset()
    sent: int = 0
    claims: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    """Keys of the labels, by labeler."""


def content_of(home: Path) -> Content:
    """Read a database; it must be whole."""
    database = sqlite3.connect(f"file:{home / 'stepgold.db'}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    try:
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables = {row["name"] for row in database.execute(named)}
        if not tables:  # killed before the schema was committed
            return Content()
        reader = _Reader(database, tables)
        keys = [row["key"] for row in database.execute("SELECT key FROM model_calls")]
        counted = (
            "SELECT l.name, count(*) AS n, count(DISTINCT t.trace_pk) AS traces FROM trace_labels t"
            " JOIN labelers l ON l.pk = t.labeler_pk GROUP BY t.labeler_pk"
        )
        labels = {}
        for row in database.execute(counted):
            assert row["n"] == row["traces"], "a trace was labeled twice"
            labels[row["name"]] = row["n"]
        return Content(
            rows={name: reader.table(name) for name in sorted(tables - APART)},
            calls=frozenset(key.partition("+")[0] for key in keys),
            sent=len(keys),
            claims=database.execute("SELECT count(*) FROM claimants").fetchone()[0],
            labels=labels,
        )
    finally:
        database.close()


class _Reader:
    """Rows with the content of what they refer to in place of its key."""

    def __init__(self, database: sqlite3.Connection, tables: set[str]) -> None:
        self._database = database
        self._links = {
            name: {
                row["from"]: (row["table"], row["to"])
                for row in self._pragma("foreign_key_list", name)
            }
            for name in tables
        }
        self._known: dict[tuple[str, int], str] = {}

    def table(self, name: str) -> Counter[str]:
        """The rows of a table, as often as they are there."""
        return Counter(
            self._row(name, row) for row in self._database.execute(f"SELECT * FROM {name}")
        )

    def _row(self, name: str, row: sqlite3.Row) -> str:
        shown = {}
        for column in row.keys():  # noqa: SIM118  a row is no mapping
            value, target = row[column], self._links[name].get(column)
            if column in VOLATILE:
                continue
            if target is not None and value is not None:
                value = self._referred(*target, value)
            shown[column] = round(value, 4) if isinstance(value, float) else value
        return json.dumps(shown, sort_keys=True, default=repr)

    def _referred(self, target: str, column: str, key: int) -> str:
        if (target, key) not in self._known:
            query = f"SELECT * FROM {target} WHERE {column} = ?"
            self._known[target, key] = self._row(
                target, self._database.execute(query, (key,)).fetchone()
            )
        return self._known[target, key]

    def _pragma(self, what: str, name: str) -> Sequence[sqlite3.Row]:
        return self._database.execute(f"PRAGMA {what}({name})").fetchall()


def files_of(home: Path) -> Counter[str]:
    """The files of a workspace; digests in names are left out."""
    names = (str(each.relative_to(home)) for each in home.rglob("*") if each.is_file())
    return Counter(re.sub(r"[0-9a-f]{12,}", "#", name) for name in names)


def children_of(pid: int) -> list[Path]:
    """The processes that a process started, as /proc shows them."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [Path("/proc") / each for each in found]


def is_running(process: Path) -> bool:
    """Whether a process has not ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
