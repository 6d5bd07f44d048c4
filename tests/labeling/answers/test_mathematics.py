"""The killable process: a hostile expression costs its own time limit and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labeling.answers.mathematics import MAX_CHARACTERS, MathProcess, compare, shared_math_process

HANGS = "10^{10^{10^{10}}}"
"""Python raises 10 to a number of ten billion digits: for ever, and deaf to signals."""


def test_nothing_is_started_before_the_first_question() -> None:
    process = MathProcess()
    process.close()
    assert process.kills == 0
    assert process.rule("1", "1" * (MAX_CHARACTERS + 1)) is None
    assert process._worker is None


def test_shared_process_is_one() -> None:
    assert shared_math_process() is shared_math_process()


@pytest.mark.slow
def test_rulings() -> None:
    with MathProcess(timeout_s=20) as process:
        assert process.rule(r"\frac{1}{2}", "0.5") == "equal"
        assert process.rule("x+1", "x+2") == "different"
        assert process.rule(r"\frac{", "1") in {"gold_unreadable", None}
        assert process.rule("1", "") in {"answer_unreadable", None}
        assert process.kills == 0


@pytest.mark.slow
def test_hanging_answer_costs_its_time_and_the_next_question_is_answered() -> None:
    with MathProcess(timeout_s=1) as process:
        assert process.rule("2", "1+1") == "equal"
        began = time.perf_counter()
        assert process.rule("5", HANGS) is None
        assert time.perf_counter() - began < 10
        assert process.kills == 1
        assert process.rule("2", "1+1") == "equal"
        assert process.kills == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of processor time")
def test_the_system_ends_a_worker_that_computes_too_long() -> None:
    with MathProcess(timeout_s=300, cpu_s=1) as process:
        began = time.perf_counter()
        assert process.rule("5", HANGS) is None
        assert time.perf_counter() - began < 300
        assert process.rule("2", "1+1") == "equal", "the next question has its own second"


@pytest.mark.slow
def test_worker_killed_from_outside_is_replaced() -> None:
    with MathProcess(timeout_s=20) as process:
        assert process.rule("2", "1+1") == "equal"
        assert process._worker is not None
        worker = process._worker[0]
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert process.rule("2", "1+1") == "equal"


@pytest.mark.slow
def test_threads_share_one_worker_and_get_their_own_answers() -> None:
    with MathProcess(timeout_s=20) as process, ThreadPoolExecutor(8) as pool:
        questions = [(str(n), f"{n - n // 2}+{n // 2 + n % 2}") for n in range(40)]
        rulings = list(pool.map(lambda pair: process.rule(*pair), questions))
        workers = [t for t in threading.enumerate() if "math-verify" in t.name]
    assert rulings == ["equal" if n % 2 == 0 else "different" for n in range(40)]
    assert workers == []


@pytest.mark.slow
def test_closed_process_leaves_no_child() -> None:
    process = MathProcess(timeout_s=20)
    process.rule("2", "1+1")
    assert process._worker is not None
    pid = process._worker[0].pid
    assert pid is not None
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    process.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_hanging_worker_dies_with_its_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(
        "from labeling.answers.mathematics import MathProcess\n"
        "if __name__ == '__main__':\n"
        "    process = MathProcess(timeout_s=100)\n"
        "    process.rule('2', '1+1')\n"
        "    print(process._worker[0].pid, flush=True)\n"
        f"    process.rule('5', '{HANGS}')\n"
    )
    root = Path(__file__).resolve().parents[3]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environ
    ) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert worker.exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while worker.exists() and ") Z " not in (worker / "stat").read_text():
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.02)


@pytest.mark.slow
def test_interpreter_ends_with_a_worker_hanging_about(tmp_path: Path) -> None:
    script = tmp_path / "ends.py"
    script.write_text(
        "from labeling.answers import shared_math_process\n"
        "if __name__ == '__main__':\n"
        "    print(shared_math_process().rule('2', '1+1'))\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
    )
    assert done.stdout.strip() == "equal"
    assert done.stderr == ""


@pytest.mark.slow
def test_comparison_itself_in_this_process() -> None:
    assert compare(r"\{1,2\}", r"\{2,1\}") == "equal"
    assert compare("1", "2") == "different"
    assert compare("", "1") == "gold_unreadable"
    assert compare("1", "") == "answer_unreadable"
