"""How a command ends: on signals, and where its output cannot be written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.many_processes import ROOT, Many, until
from tests.commands.test_judge_chaos import many_traces
from tests.loopback.gemini_server import GeminiServer

Cli = Callable[..., Any]
JUDGE = ("judge", "--dataset", "d", "--judge", "gemini:gemini-3.5-flash-lite", "--json")

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    with GeminiServer(delay_ms=300) as running:
        yield running


@pytest.fixture
def many(server: GeminiServer, tmp_path: Path) -> Iterator[Many]:
    keys = {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
    with Many(tmp_path / "out", keys) as running:
        yield running


@pytest.fixture
def judging(cli: Cli, many: Many, server: GeminiServer, tmp_path: Path) -> int:
    """The process of a judge that is waiting for replies."""
    assert cli("import", "traces", many_traces(tmp_path / "t", 400), "--dataset", "d").code == 0
    child = many.start("--workspace", tmp_path / "w", *JUDGE, "--concurrency", "4")
    until(lambda: len(server.calls) >= 8)
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_first_signal_records_what_is_in_flight(
    cli: Cli, many: Many, server: GeminiServer, judging: int, number: signal.Signals
) -> None:
    os.kill(judging, number)
    code, out, err = many.ended(judging)
    assert code == 130
    assert "Traceback" not in err
    until(lambda: server.active == 0)
    status = cli("status", "--json").document
    lost = len([call for call in server.calls if call["billed"]]) - status["calls"]["sent"]
    assert "Interrupted" in json.loads(out)["error"]["what"], "in order, not by the hard stop"
    assert lost == 0
    assert status["claims"] == []


def test_ctrl_c_ends_a_watched_status(cli: Cli, many: Many, tmp_path: Path) -> None:
    assert cli("import", "traces", many_traces(tmp_path / "t", 3), "--dataset", "d").code == 0
    child = many.start("--workspace", tmp_path / "w", "status", "--watch")
    until(lambda: any("3 traces" in file.read_text() for file in (tmp_path / "out").glob("*.out")))
    os.kill(child, signal.SIGINT)
    code, out, err = many.ended(child)
    assert code == 130
    assert "calls: 0 sent" in out
    assert "Interrupted" in err
    assert "Traceback" not in err


def test_a_second_signal_stops_at_once(many: Many, server: GeminiServer, judging: int) -> None:
    server.delay_ms = 8000
    until(lambda: server.active == 4)
    time.sleep(1.0)  # the calls that had begun with the short delay are over
    os.kill(judging, signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    os.kill(judging, signal.SIGINT)
    code, out, err = many.ended(judging)
    assert time.monotonic() - began < 3
    assert code == 130
    assert "at once" in json.loads(out)["error"]["what"]
    assert "Traceback" not in err


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_another_database_file_stops_the_run(
    many: Many, judging: int, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "w" / "stepgold.db"
    if how == "replaced":
        (tmp_path / "other.db").write_bytes(path.read_bytes())
        (tmp_path / "other.db").replace(path)
    else:
        path.unlink()
    code, out, err = many.ended(judging)
    assert code == 2
    assert "replaced or removed" in json.loads(out)["error"]["what"]
    assert "Traceback" not in err


def test_a_signal_that_meets_a_destructor_is_not_ignored() -> None:
    called = [sys.executable, "-m", "tests.commands.interrupted_destructor"]
    done = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "interrupted\n"
    assert "Exception ignored" not in done.stderr
    assert "Stopping" in done.stderr


def ended(*argv: str | Path, shell: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a shell that first does something."""
    line = f'{shell} exec "$0" -m cli "$@"'
    return subprocess.run(
        ["sh", "-c", line, sys.executable, *map(str, argv)],
        cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def odd(cli: Cli, tmp_path: Path) -> Path:
    """A workspace with an odd id and a letter beyond ASCII."""
    path = tmp_path / "t.jsonl"
    row = {"id": "a\x1b[31mb", "problem": "Wie groß?", "steps": ["é"]}
    bad = {"id": "x\x1b[2J\u202e", "problem": "ü?", "steps": []}
    path.write_text("\n".join(map(json.dumps, (row, bad))))
    assert cli("import", "traces", path, "--dataset", "dä").code == 1
    return tmp_path / "w"


def test_control_characters_are_shown_escaped(cli: Cli, odd: Path) -> None:
    shown = cli("status").out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[2J\\u202e" in shown


def test_an_ascii_locale(odd: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ended("--workspace", odd, "status", **ascii_only)
    assert (words.returncode, words.stderr) == (0, "")
    assert "d\\xe4:" in words.stdout
    told = ended("--workspace", odd, "status", "--json", **ascii_only)
    assert list(json.loads(told.stdout)["datasets"]) == ["dä"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_full_or_closed_standard_output(odd: Path, form: tuple[str, ...]) -> None:
    full = ended("--workspace", odd, "status", *form, shell="exec >/dev/full;")
    assert full.returncode == 2
    assert full.stderr.startswith("error: The result could not be written")
    assert "Traceback" not in full.stderr
    closed = ended("--workspace", odd, "status", *form, shell="exec >&-;")
    assert "Traceback" not in closed.stderr
    assert closed.returncode in (0, 2)


def test_few_open_files(odd: Path) -> None:
    done = ended("--workspace", odd, "status", shell="ulimit -n 6;")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
