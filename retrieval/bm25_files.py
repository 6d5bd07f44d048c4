"""A folder of files that is there whole or not at all, under a name that says what it was made from.

It is written beside the old one under another name, made durable, and renamed in one step; then the
old one is removed. A kill at any moment leaves the old folder, the new one, or both, never a half.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from retrieval.durable import sync
from traces.errors import StoreError

_MANIFEST = "manifest.json"
_PARTIAL = ".partial"


def write_folder(folder: Path, made_from: str, write: Callable[[Path], None]) -> None:
    """Fill a folder below `folder` for `made_from`, in place of all others there.

    Args:
        folder: made if it is not there; it belongs to these folders alone. One writer at a time.
        made_from: what the content is a function of.
        write: writes the files below the path it is given; raises OSError if it cannot.

    Raises:
        StoreError: it cannot be written; what was there is as it was.
    """
    partial = folder / f"{uuid4().hex}{_PARTIAL}"
    final = folder / _name(made_from)
    try:
        partial.mkdir(parents=True)
        write(partial)
        (partial / _MANIFEST).write_text(
            json.dumps({"made_from": made_from, "files": _hashes(partial)}), encoding="utf-8"
        )
        for path in [*partial.rglob("*"), partial]:
            sync(path)
        shutil.rmtree(final, ignore_errors=True)  # only a damaged one is ever written again
        partial.replace(final)
        sync(folder)
        for other in folder.iterdir():
            if other != final:
                shutil.rmtree(other)
    except OSError as fault:
        raise StoreError(
            f"The lexical index cannot be written ({fault.strerror or fault}).",
            where=str(folder),
            remedy="make room, or choose a workspace that can be written",
        ) from fault
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_folder(folder: Path, made_from: str) -> Path | None:
    """The folder written for `made_from`; None if there is none, or if a file of it is damaged."""
    final = folder / _name(made_from)
    try:
        manifest = json.loads((final / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = {"made_from": made_from, "files": _hashes(final)}
    return final if manifest == whole else None


def _name(made_from: str) -> str:
    return hashlib.sha256(made_from.encode()).hexdigest()[:16]


def _hashes(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "blake2b").hexdigest()
            found[path.relative_to(folder).as_posix()] = digest
    return found
