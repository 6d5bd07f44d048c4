"""Which accelerators this machine has; the only thing that is asked of torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU that torch can use."""

    name: str
    """Its name, e.g. NVIDIA H200."""
    memory_bytes: int | None
    """Its memory; None where it shares the machine's."""
    free_bytes: int | None
    """Memory that is free now; None where it shares the machine's."""


def accelerators() -> tuple[Accelerator, ...]:
    """The GPUs that torch can use; empty if there are none.

    Raises:
        ImportError: torch is not installed.
        RuntimeError: the driver does not answer.
    """
    import torch

    if torch.cuda.is_available():
        found = []
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            found.append(Accelerator(torch.cuda.get_device_name(number), total, free))
        return tuple(found)
    if torch.backends.mps.is_available():
        return (Accelerator("Apple GPU (MPS)", None, None),)
    return ()
