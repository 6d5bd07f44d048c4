"""Files that are written beside their place and take it once they are complete.

Their names have machine and process. What a killed process left is removed by the next one that
writes into the folder.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A path beside `path`; the file written there replaces `path` if the block ends well.

    Raises:
        OSError: it cannot take its place.
    """
    mine = f".stepgold-{socket.gethostname()[:32]}-"
    remove_left_by_killed(path.parent, mine)
    beside = path.with_name(f"{mine}{os.getpid()}-{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def remove_left_by_killed(folder: Path, prefix: str) -> None:
    """Remove files and folders named `<prefix><process id>-...` whose process has ended."""
    for left in folder.glob(f"{glob.escape(prefix)}*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if not pid.isdecimal() or int(pid) == os.getpid() or _may_run(int(pid)):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):  # another user's cannot be removed
                left.unlink()


def _may_run(pid: int) -> bool:
    if sys.platform == "win32":  # there signal 0 would be sent as Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
