"""One writer at a time in a folder; a killed writer's lock is gone with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from traces.errors import InputError, StoreError

_NAME = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if it is not there, against other writers.

    Raises:
        InputError: another process holds it.
        StoreError: the folder cannot be written.
    """
    lock = FileLock(folder / _NAME, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as fault:
        raise InputError(
            "Another process is writing the index.",
            where=str(folder),
            remedy="wait until it has finished",
        ) from fault
    except OSError as fault:
        raise StoreError(
            f"The folder cannot be written ({fault.strerror}).",
            where=str(folder),
            remedy="choose a workspace that can be written",
        ) from fault
    try:
        yield
    finally:
        lock.release()
