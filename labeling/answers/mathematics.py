"""Symbolic equality (Math-Verify) in a process of its own that can be killed.

What is compared here are single expressions that the grammar has read to their last sign: lists,
sets, intervals and equations are taken apart before. Math-Verify's word is checked with sixty
digits, so that neither its rounding nor a simplification that goes too far decides.

A hostile expression such as `10^{10^{10^{10}}}` hangs inside one C call: no signal and no thread
reaches it, and math-verify's own time limits fail outside the main thread. So its limits are off,
and ours ends the process. The next question starts a fresh one.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from functools import cache
from multiprocessing.connection import Connection
from typing import Any, Literal

from labeling.answers.grammar.evaluation import points
from labeling.answers.grammar.expressions import CONSTANTS, Expr
from traces import ToolkitError

Ruling = Literal["equal", "different", "gold_unreadable", "answer_unreadable"]

MAX_CHARACTERS = 2000
"""Longer expressions are not looked at."""
MAX_NODES = 400
"""Expressions with more nodes are not looked at."""
MEMORY_BYTES = 4 * 1024**3
"""Address space of the worker: what needs more is undecided, not the machine's end."""
DIGITS = 30
"""Decimal places to which Math-Verify rounds what it cannot simplify; its default is 6."""
CPU_S = 60
"""Processor time that one question may take before the system ends the worker by itself."""
START_S = 120.0
"""A worker that is not up after this many seconds never will be."""


class MathProcess:
    """One worker process that compares expressions; started at the first question."""

    def __init__(self, timeout_s: float = 5.0, *, cpu_s: int = CPU_S) -> None:
        """Nothing is started yet.

        Args:
            timeout_s: seconds that one question may take before the worker is killed.
            cpu_s: processor seconds of one question after which the system ends the worker, even
                if this process is gone.
        """
        self.timeout_s = timeout_s
        self._cpu_s = cpu_s
        self.kills = 0
        """Workers ended because of a question."""
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._worker: tuple[multiprocessing.process.BaseProcess, Connection] | None = None

    def rule(self, gold: str, answer: str) -> Ruling | None:
        """How `answer` compares with `gold`, both LaTeX or plain; None if that cannot be decided.

        Undecided is what takes longer than `timeout_s`, more memory than `MEMORY_BYTES`, or more
        characters than `MAX_CHARACTERS`. Safe to call from several threads, one at a time is
        answered; a forked child starts its own worker.

        Raises:
            ToolkitError: the worker does not start.
        """
        if max(len(gold), len(answer)) > MAX_CHARACTERS:
            return None
        ruling: Ruling | None = self._ask((gold, answer))
        return ruling

    def same(self, gold: Expr, answer: Expr) -> bool | None:
        """Whether two expressions are equal; None where that cannot be decided in time.

        Raises:
            ToolkitError: the worker does not start.
        """
        if max(len(gold.walk()), len(answer.walk())) > MAX_NODES:
            return None
        decided: bool | None = self._ask((gold, answer))
        return decided

    def _ask(self, question: tuple[Any, Any]) -> Any:
        """The worker's reply; None where it took too long or died of the question."""
        with self._lock:
            connection = self._started()
            try:
                connection.send(question)
                if connection.poll(self.timeout_s):
                    return connection.recv()
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
        lasting = threading.current_thread() is threading.main_thread()
        process = context.Process(
            target=_serve, args=(theirs, lasting, self._cpu_s), daemon=True, name="math-verify"
        )
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
    """The process-wide worker that answer checkers use by default."""
    process = MathProcess()
    atexit.register(process.close)
    return process


# In the worker ---------------------------------------------------------------------------------


def _serve(connection: Connection, lasting: object, cpu_s: int) -> None:
    """Answer questions until the other side closes.

    `lasting` tells whether the thread that started this process lives as long as the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _end_with_parent(by_kernel=bool(lasting))
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
        _limit_cpu(cpu_s)
        both = isinstance(gold, Expr) and isinstance(answer, Expr)
        connection.send(confirm(gold, answer) if both else compare(gold, answer))


def _end_with_parent(*, by_kernel: bool) -> None:
    """End this process when its parent is gone, however that died, and whatever runs here."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if by_kernel and sys.platform == "linux":
        # A hostile expression hangs inside one C call that holds the interpreter: only the kernel
        # can end it. prctl(2): PR_SET_PDEATHSIG is 1; it is sent when the starting thread ends.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    def watch() -> None:
        parent.join()  # a pipe that the parent's end closes
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _limit_cpu(seconds: int) -> None:
    """Let the system end this process after this much more processor time."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + seconds
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


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
        equal = verify(
            parsed_gold,
            parsed_answer,
            float_rounding=DIGITS,
            numeric_precision=2 * DIGITS,
            strict=True,
            timeout_seconds=None,
            raise_on_error=True,
        )
    except Exception as fault:  # sympy raises anything on odd input
        logging.getLogger(__name__).debug("undecided: %r", fault)
        return None
    return "equal" if equal else "different"


def confirm(gold: Expr, answer: Expr) -> bool | None:
    """Whether two expressions are equal, in this process and without any time limit."""
    names = tuple(sorted((gold.symbols | answer.symbols) - CONSTANTS))
    precise = _agree_precisely(gold, answer, names)
    if precise is not None:
        return precise
    ruling = compare(as_latex(gold), as_latex(answer))
    return True if ruling == "equal" else None


def _agree_precisely(gold: Expr, answer: Expr, names: tuple[str, ...]) -> bool | None:
    """Whether sixty digits of the values agree at some points; None where there is no value."""
    import mpmath  # type: ignore[import-untyped]

    seen = False
    with mpmath.workdps(60):
        for at in points(names, count=3) if names else ({},):
            try:
                one, other = (_precise(each, at, mpmath) for each in (gold, answer))
            except (ArithmeticError, ValueError, TypeError, KeyError):
                continue
            seen = True
            if abs(one - other) > mpmath.mpf(10) ** -45 * max(abs(one), abs(other)):
                return False
    return True if seen else None


def _precise(expr: Expr, at: Any, mp: Any) -> Any:
    """The value of an expression with mpmath's current precision."""
    if expr.op == "num":
        return mp.mpf(expr.value.numerator) / expr.value.denominator
    if expr.op == "sym":
        constants = {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}
        return mp.mpf(at[expr.name].real) if expr.name in at else +constants[expr.name]
    args = [_precise(arg, at, mp) for arg in expr.args]
    rules = {
        "add": lambda a, b: a + b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "pow": lambda a, b: a**b,
        "root": lambda a, b: mp.root(a, int(b)),
        "fact": mp.factorial,
        "binom": mp.binomial,
        "abs": abs,
        "log": lambda a, b=10: mp.log(a) / mp.log(b),
        "ln": mp.log,
        "exp": mp.exp,
    }
    inverse = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot"}
    plain = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"}
    if expr.op in plain or expr.op in inverse:
        return getattr(mp, inverse.get(expr.op, expr.op))(*args)
    return rules[expr.op](*args)


def as_latex(expr: Expr) -> str:
    """An expression in LaTeX that can be read in one way only."""
    names = {name: f"v_{{{place}}}" for place, name in enumerate(sorted(expr.symbols - CONSTANTS))}

    def shown(node: Expr) -> str:
        args = [shown(arg) for arg in node.args]
        if node.op == "num":
            top, bottom = node.value.numerator, node.value.denominator
            return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"
        if node.op == "sym":
            return names.get(node.name) or (r"\pi" if node.name == "pi" else node.name)
        if node.op == "log" and len(args) == 1:
            args.append("10")
        return _LATEX.get(node.op, rf"\{node.op}({{0}})").format(*args)

    return shown(expr)


_LATEX = {
    "add": "({0}+{1})",
    "mul": r"({0}\cdot {1})",
    "div": r"\frac{{{0}}}{{{1}}}",
    "neg": "(-{0})",
    "pow": "({0})^{{{1}}}",
    "root": r"\sqrt[{1}]{{{0}}}",
    "fact": "({0})!",
    "binom": r"\binom{{{0}}}{{{1}}}",
    "abs": "|{0}|",
    "floor": r"\lfloor {0}\rfloor",
    "ceil": r"\lceil {0}\rceil",
    "log": r"\log_{{{1}}}({0})",
    "exp": "e^{{{0}}}",
}


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
