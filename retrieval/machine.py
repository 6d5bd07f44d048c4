"""What this machine has: memory to spare, and matrix units for bfloat16."""

from __future__ import annotations

import os
from pathlib import Path

_CPU = Path("/proc/cpuinfo")
_MEMORY = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def has_bfloat16_units(cpu: Path = _CPU) -> bool:
    """Whether the processor multiplies bfloat16 matrices in units of their own (Intel AMX).

    AVX512_BF16 alone does not count: measured here, encoding in bfloat16 took 1.3 to 1.5 times as
    long as in float32 with it, and a third with AMX (docs/performance.md). Where the processor
    cannot be asked (not Linux) the answer is no.
    """
    try:
        lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return {"amx_tile", "amx_bf16"} <= set(flags)


def available_memory(memory: Path = _MEMORY, limit: Path = _CGROUP_LIMIT) -> int | None:
    """Bytes that can be taken without pushing others out, a container's limit respected.

    None where the system does not say.
    """
    known: list[int] = []
    try:
        for line in memory.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                known.append(int(line.split()[1]) * 1024)
    except OSError:  # not Linux: what is installed is the next best
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # Windows has none
            known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        text = limit.read_text(encoding="utf-8").strip()
        if text.isdigit():  # else "max": no limit
            known.append(int(text))
    except OSError:
        return min(known, default=None)
    return min(known, default=None)
