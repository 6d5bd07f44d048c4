"""`make bench-gpu` where there is no GPU: it refuses, and its dry run shows that it still works."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def bench(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_dry_run_compares_every_part_in_both_types() -> None:
    ended = bench("--device", "cpu", "--seconds", "1e9")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in ended.stdout.splitlines()]
    parts = Counter((row[0], row[2]) for row in rows if len(row) == 8 and row[-1] == "yes")
    for dtype in ("float32", "bfloat16"):
        assert parts["score", dtype] == 2
        assert parts["continue", dtype] == 1
    assert {row[0] for row in rows if row[-1] == "NO"} == set()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_cuda_it_says_so() -> None:
    ended = bench()
    assert ended.returncode == 2
    assert "finds no CUDA device" in ended.stderr
    assert "--device cpu" in ended.stderr
