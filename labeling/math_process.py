"""Mathematical equality (math-verify) in a process of its own that can be killed.

A hostile expression such as `10^{10^{10^{10}}}` hangs inside one C call: no signal and no thread
reaches it, and math-verify's own time limits fail outside the main thread. So its limits are off,
and ours ends the process. The next question starts a fresh one.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import threading
import warnings
from functools import cache
from multiprocessing.connection import Connection
from typing import Literal

from traces import ToolkitError

Ruling = Literal["equal", "different", "gold_unreadable", "answer_unreadable"]

MAX_CHARACTERS = 2000
"""Longer expressions are not looked at."""
MEMORY_BYTES = 4 * 1024**3
"""Address space of the worker: what needs more is undecided, not the machine's end."""
START_S = 120.0
"""A worker that is not up after this many seconds never will be."""


class MathProcess:
    """One worker process that compares expressions; started at the first question."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        """Nothing is started yet.

        Args:
            timeout_s: seconds that one question may take before the worker is killed.
        """
        self.timeout_s = timeout_s
        self.kills = 0
        """Workers ended because of a question."""
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._worker: tuple[multiprocessing.process.BaseProcess, Connection] | None = None

    def rule(self, gold: str, answer: str) -> Ruling | None:
        """How `answer` stands to `gold`, both LaTeX or plain; None if that cannot be decided.

        Undecided is what takes longer than `timeout_s`, more memory than `MEMORY_BYTES`, or more
        characters than `MAX_CHARACTERS`. Safe to call from several threads, one at a time is
        answered; a forked child starts its own worker.

        Raises:
            ToolkitError: the worker does not start.
        """
        if max(len(gold), len(answer)) > MAX_CHARACTERS:
            return None
        with self._lock:
            connection = self._started()
            try:
                connection.send((gold, answer))
                if connection.poll(self.timeout_s):
                    ruling: Ruling | None = connection.recv()
                    return ruling
            except (EOFError, OSError):
                pass  # the worker died of this question: undecided, as if it had hung
            self._end()
            self.kills += 1
            return None

    def close(self) -> None:
        """End the worker; a later question starts a new one."""
        with self._lock:
            self._end()

    def __enter__(self) -> MathProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _started(self) -> Connection:
        if self._owner != os.getpid():  # forked: that worker belongs to the parent
            self._owner, self._worker = os.getpid(), None
        if self._worker is not None and self._worker[0].is_alive():
            return self._worker[1]
        self._end()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True, name="math-verify")
        process.start()
        theirs.close()
        self._worker = (process, ours)
        try:
            ready = ours.poll(START_S) and ours.recv() == "ready"
        except (EOFError, OSError):
            ready = False
        if not ready:
            self._end()
            raise ToolkitError(
                "The process that compares mathematical answers did not start.",
                remedy="check that `python -c 'import math_verify'` works and memory is free",
            )
        return ours

    def _end(self) -> None:
        if self._worker is None or self._owner != os.getpid():
            return
        process, connection = self._worker
        self._worker = None
        connection.close()
        process.kill()
        process.join()
        process.close()


@cache
def shared_math_process() -> MathProcess:
    """The process-wide worker that answer checkers use unless told otherwise."""
    process = MathProcess()
    atexit.register(process.close)
    return process


# In the worker ---------------------------------------------------------------------------------


def _serve(connection: Connection) -> None:
    """Answer questions until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import math_verify  # type: ignore[import-untyped] # noqa: F401  the import takes long

    _limit_memory()
    connection.send("ready")
    while True:
        try:
            gold, answer = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(compare(gold, answer))


def compare(gold: str, answer: str) -> Ruling | None:
    """Compare two expressions in this process, without any time limit; see `MathProcess.rule`."""
    from math_verify import verify

    try:
        parsed_gold = _parse(gold)
        if not parsed_gold:
            return "gold_unreadable"
        parsed_answer = _parse(answer)
        if not parsed_answer:
            return "answer_unreadable"
        equal = verify(parsed_gold, parsed_answer, timeout_seconds=None, raise_on_error=True)
    except Exception as fault:  # sympy raises anything on odd input
        logging.getLogger(__name__).debug("undecided: %r", fault)
        return None
    return "equal" if equal else "different"


def _parse(expression: str) -> list[object]:
    """The readings of an expression; empty if it cannot be read as mathematics."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse
    from sympy import Basic, MatrixBase  # type: ignore[import-untyped]

    boxed = "\\boxed{" + expression.strip().strip("$") + "}"
    read = parse(
        boxed,
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()],
        parsing_timeout=None,  # None is how it is switched off
        raise_on_error=True,
    )
    return [reading for reading in read if isinstance(reading, Basic | MatrixBase)]


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        logging.getLogger(__name__).debug("no memory limit on this platform")
