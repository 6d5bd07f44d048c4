"""Index and manifest on disk, so that they cannot get out of step.

The index file carries the hash of its content in its name, and the manifest names it. The new
index file is written and made durable beside the old one, then the manifest is replaced in one
step, then the old file is removed. Whenever the process is killed, the manifest names a whole
index file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from traces.errors import IndexMismatch, StoreError

MANIFEST = "manifest.json"
_SUFFIX = ".faiss"
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """What an index was built from."""

    encoder: str
    """Name of the encoder, with the hash of its weights."""
    encoder_spec: str | None
    """The encoder as the user named it; None for the default."""
    dimension: int
    """Length of the vectors."""
    count: int
    """Passages in the index."""
    kind: str
    """flat, hnsw or ivf."""
    corpus_fingerprint: str
    """Hash over ids and texts of all passages, made by the store."""
    created_by: str
    """Versions of the programs that wrote it."""
    index_file: str = ""
    """Name of the index file in the same folder."""
    index_hash: str = ""
    """BLAKE2b hash of its content, hexadecimal."""


def created_by() -> str:
    """This program with its version."""
    try:
        return f"stepgold {version('stepgold')}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "stepgold"


def read_manifest(folder: Path) -> IndexManifest:
    """The manifest of the index in `folder`.

    Raises:
        IndexMismatch: there is no index.
        StoreError: the manifest cannot be read or is damaged.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise IndexMismatch(
            "There is no index yet.", where=str(folder), remedy="build it with `stepgold index`"
        ) from fault
    except OSError as fault:
        raise StoreError(
            f"The index cannot be read ({fault.strerror}).",
            where=str(path),
            remedy="build it anew with `stepgold index`",
        ) from fault
    except ValueError as fault:
        raise _damaged_manifest(path) from fault
    return _checked(document, path)


def _checked(document: Any, path: Path) -> IndexManifest:
    if not isinstance(document, dict) or set(document) != {f.name for f in fields(IndexManifest)}:
        raise _damaged_manifest(path)
    manifest = IndexManifest(**document)
    texts = (manifest.encoder, manifest.kind, manifest.corpus_fingerprint, manifest.index_file)
    numbers = (manifest.dimension, manifest.count)
    if not all(isinstance(text, str) for text in (*texts, manifest.index_hash)):
        raise _damaged_manifest(path)
    if not all(isinstance(number, int) for number in numbers):
        raise _damaged_manifest(path)
    if manifest.index_file != Path(manifest.index_file).name:  # never read outside the folder
        raise _damaged_manifest(path)
    return manifest


def read_payload(folder: Path, manifest: IndexManifest) -> Path:
    """Path of the index file, its content checked against the manifest's hash.

    Raises:
        StoreError: the file is missing, unreadable or damaged.
    """
    path = folder / manifest.index_file
    try:
        found = _hash(path)
    except OSError as fault:
        raise StoreError(
            f"The index file cannot be read ({fault.strerror}).",
            where=str(path),
            remedy="build it anew with `stepgold index`",
        ) from fault
    if found != manifest.index_hash:
        raise StoreError(
            "The index file is damaged.",
            where=str(path),
            remedy="build it anew with `stepgold index`",
        )
    return path


def write_index(folder: Path, manifest: IndexManifest, write: Callable[[Path], None]) -> None:
    """Write an index file and its manifest; until the last step the old pair stays in force.

    Args:
        folder: made if it is not there.
        manifest: without name and hash of the index file, which are found out here.
        write: writes the index to the path it is given; raises OSError if it cannot.

    Raises:
        StoreError: the folder cannot be written; the old index is as it was.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _partial(folder) as payload:
            write(payload)
            digest = _hash(payload)
            name = f"passages-{digest[:16]}{_SUFFIX}"
            _settle(payload, folder / name)
        complete = replace(manifest, index_file=name, index_hash=digest)
        with _partial(folder) as text:
            text.write_text(json.dumps(asdict(complete), indent=2) + "\n", encoding="utf-8")
            _settle(text, folder / MANIFEST)
        _remove_leftovers(folder, keep=name)
    except OSError as fault:
        raise StoreError(
            f"The index cannot be written ({fault.strerror or fault}).",
            where=str(folder),
            remedy="make room, or choose a folder that can be written",
        ) from fault


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A path for an unfinished file in `folder`; what is left of it at the end is removed."""
    path = folder / f"{uuid4().hex}{_PARTIAL}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _settle(path: Path, final: Path) -> None:
    """Give a finished file its final name, durably."""
    _sync(path)
    path.replace(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(folder: Path, *, keep: str) -> None:
    for path in folder.iterdir():
        if path.suffix in {_SUFFIX, _PARTIAL} and path.name != keep:
            path.unlink(missing_ok=True)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _damaged_manifest(path: Path) -> StoreError:
    return StoreError(
        "The manifest of the index is damaged.",
        where=str(path),
        remedy="build it anew with `stepgold index`",
    )
