"""Starts many command lines at once without the seconds of imports: one process forks them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

MOTHER = """
import os, signal, sys, threading
import cli, stepgold.judging, inference.gemini.model, judge.rag_judge, storage, alembic
import stepgold.continuing, stepgold.again, stepgold.sampling, labeling, inference.openai.model
{more}
for line in sys.stdin:
    what, *argv = line.rstrip("\\n").split("\\t")
    if what == "wait":
        print(os.waitstatus_to_exitcode(os.waitpid(int(argv[0]), 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        told = os.open(what, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(told, 1)
        os.dup2(os.open(what + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        cli.take_signals(argv)
        os._exit(cli.execute(argv))
    print(child, flush=True)
"""


class Many:
    """Runs command lines beside each other."""

    def __init__(self, folder: Path, environ: Mapping[str, str] = {}, *, more: str = "") -> None:
        """Start the process that forks the others.

        Args:
            folder: for their outputs.
            environ: variables beside those of this process.
            more: Python lines that import what the commands need besides.
        """
        self._folder, self._started = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._outputs: dict[int, Path] = {}
        self._mother = subprocess.Popen(
            [sys.executable, "-c", MOTHER.replace("{more}", more)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *argv: str | Path) -> int:
        """Run a command line; the process id."""
        output = self._folder / f"{self._started}.out"
        self._started += 1
        child = int(self._ask([str(output), *map(str, argv)]))
        self._outputs[child] = output
        return child

    def ended(self, child: int) -> tuple[int, str, str]:
        """Wait for its end; the exit code (negative for a signal) and both outputs."""
        code = int(self._ask(["wait", str(child)]))
        output = self._outputs[child]
        return code, output.read_text(), output.with_name(output.name + ".err").read_text()

    def document(self, child: int) -> Any:
        """The JSON document of a command that has to end well, or with something missing."""
        code, out, err = self.ended(child)
        assert code in (0, 1), err
        return json.loads(out)

    def __enter__(self) -> Many:
        return self

    def __exit__(self, *_: object) -> None:
        self._mother.communicate()

    def _ask(self, words: list[str]) -> str:
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.write("\t".join(words) + "\n")
        self._mother.stdin.flush()
        return self._mother.stdout.readline()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition, not for ever."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
