"""One writer at a time in a folder; a killed writer's lock is gone with it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from traces.errors import InputError, StoreError

_NAME = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if it is not there, against other writers.

    Raises:
        InputError: another process holds it.
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / _NAME).open("w")
    except OSError as fault:
        raise StoreError(
            f"The folder cannot be written ({fault.strerror}).",
            where=str(folder),
            remedy="choose a workspace that can be written",
        ) from fault
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise InputError(
                "Another process is writing the index.",
                where=str(folder),
                remedy="wait until it has finished",
            ) from fault
        yield
