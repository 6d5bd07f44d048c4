"""What the machine is said to have, from files as Linux writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retrieval.index.encoder import available_memory, has_bfloat16_units


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ("fpu avx512f avx512_bf16 amx_bf16 avx512_fp16 amx_tile amx_int8", True),
        ("fpu avx512f avx512_bf16", False),  # slower than float32 there
        ("fpu amx_tile amx_int8", False),
        ("", False),
    ],
)
def test_only_matrix_units_count(tmp_path: Path, flags: str, units: bool) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text(f"processor\t: 0\nmodel name\t: X\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert has_bfloat16_units(cpu) is units
    assert not has_bfloat16_units(tmp_path / "elsewhere")
    cpu.write_text("Processor : ARM\n")
    assert not has_bfloat16_units(cpu)


def test_memory_is_what_is_available_within_the_container(tmp_path: Path) -> None:
    memory, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    memory.write_text("MemTotal:       2000 kB\nMemAvailable:   1000 kB\n")
    assert available_memory(memory, limit) == 1_024_000
    limit.write_text("max\n")
    assert available_memory(memory, limit) == 1_024_000
    limit.write_text("5000\n")
    assert available_memory(memory, limit) == 5000
    memory.write_text("MemTotal: 2000 kB\n")
    assert available_memory(memory, tmp_path / "none") is None
    installed = available_memory(tmp_path / "none", tmp_path / "none")
    assert installed is None or installed > 10**8


def test_a_system_that_cannot_be_asked_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sysconf_names")  # as on Windows
    assert available_memory(tmp_path / "none", tmp_path / "none") is None
