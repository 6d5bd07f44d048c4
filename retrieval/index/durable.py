"""Flushing to the disk what must outlive a power cut."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or the names in a folder.

    On Windows a folder is passed over: it cannot be opened there, and its names are journaled.
    """
    folder = path.is_dir()
    if folder and sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows flushes writers only
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
