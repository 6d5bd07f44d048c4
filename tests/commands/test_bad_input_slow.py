"""Bad input that takes a while: a 100 MB line, a full disk, another encoder, a run that is interrupted."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.gemini_server import GeminiServer

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_hundred_megabytes_on_one_line(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(b'{"id": "long", "problem": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'", "steps": ["s"]}\n{"id": "ok", "problem": "p", "steps": ["s"]}\n')
    called = cli("import", "traces", path, "--dataset", "d", "--json")
    assert called.code == 1
    assert called.document["traces"] == 1
    (row,) = called.document["rejected"]
    assert row["line"] == 1
    assert "longer than" in row["reason"]


@pytest.mark.slow
def test_a_full_disk_is_told_and_keeps_the_database_whole(
    cli: Cli, tmp_path: Path, traces_file: Path
) -> None:
    assert cli("import", "traces", traces_file, "--dataset", "d").code == 0
    before = cli("status", "--json").document
    big = tmp_path / "big.jsonl"
    with big.open("w") as file:
        for i in range(3000):
            file.write(
                f'{{"id": "b{i}", "problem": "p{i}", "steps": ["{os.urandom(400).hex()}"]}}\n'
            )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cli",
            "--workspace",
            str(tmp_path / "w"),
            "import",
            "traces",
            str(big),
            "--dataset",
            "e",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert cli("status", "--json").document == before
    assert cli("import", "traces", big, "--dataset", "e").code == 0


@pytest.mark.slow
def test_an_index_of_another_encoder_or_corpus_is_refused(cli: Cli, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "guidelines"
    folder.mkdir()
    (folder / "a.md").write_text("# Aspirin\n\nAspirin is given at 100 mg a day.\n")
    assert cli("corpus", "add", folder, "--corpus", "g").code == 0
    assert cli("index").code == 0
    hits = cli("search", "aspirin dose", "--json").document["hits"]
    assert hits[0]["document"] == "a.md"
    assert hits[0]["text"] == (folder / "a.md").read_text()[hits[0]["start"] : hits[0]["end"]]
    assert -1 <= hits[0]["similarity"] <= 1

    from retrieval.index.encoder import packaged_model

    packaged = packaged_model()
    assert packaged is not None
    other = SentenceTransformer(str(packaged), device="cpu")
    for parameter in other.parameters():
        parameter.data.mul_(1.01)
    other.save(str(tmp_path / "other"))
    refused = cli("search", "aspirin", "--encoder", tmp_path / "other")
    assert refused.code == 2
    assert "stepgold index" in refused.err
    (folder / "b.md").write_text("# Ibuprofen\n\nIbuprofen is given at 400 mg.\n")
    assert cli("corpus", "add", folder, "--corpus", "g").code == 0
    assert cli("search", "aspirin").code == 2
    assert cli("index").code == 0
    assert cli("search", "ibuprofen", "--json").document["hits"][0]["document"] == "b.md"


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_finished(cli: Cli, tmp_path: Path) -> None:
    rows = "".join(
        f'{{"id": "t{i}", "problem": "p{i}", "steps": ["Step 1: s."]}}\n' for i in range(120)
    )
    (tmp_path / "t.jsonl").write_text(rows)
    assert cli("import", "traces", tmp_path / "t.jsonl", "--dataset", "d").code == 0
    argv = [
        "judge",
        "--dataset",
        "d",
        "--judge",
        "gemini:gemini-3.5-flash-lite",
        "--concurrency",
        "2",
    ]
    with GeminiServer(delay_ms=50) as server:
        environ = os.environ | {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": server.url}
        running = subprocess.Popen(
            [sys.executable, "-m", "cli", "--workspace", str(tmp_path / "w"), *argv],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests run in the background, SIGINT is ignored and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 60
        while sum(server.billed.values()) < 10:
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130, err
        assert "Interrupted" in err
        assert "Traceback" not in err
        kept = cli("status", "--json").document["labelers"]
        assert kept[0]["traces"] >= 8
        done = subprocess.run(
            [sys.executable, "-m", "cli", "--workspace", str(tmp_path / "w"), *argv],
            cwd=ROOT,
            env=environ,
            check=False,
        )
        assert done.returncode == 0
        assert set(server.billed.values()) == {1}
