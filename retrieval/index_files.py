"""Index and manifest on disk, so that they cannot get out of step.

Each file of an index carries the hash of its content in its name, and the manifest names them. New
files are written and made durable beside the old ones, then the manifest is replaced in one step,
then the old files are removed. Whenever the process is killed, the manifest names whole files that
belong together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from retrieval.durable import sync
from retrieval.index_tuning import SearchQuality
from traces.errors import IndexMismatch, StoreError

Content = TypeVar("Content")

MANIFEST = "manifest.json"
FORMAT = 2
"""Version of manifest and files; an index of another one is built anew."""
VECTORS = ".faiss"
"""Suffix of the FAISS index."""
DIGESTS = ".digests"
"""Suffix of the file that says of which texts the vectors are."""

_PARTIAL = ".partial"
_REBUILD = "build it anew with `stepgold index`"
_READS = 3


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
    quality: SearchQuality | None = None
    """How well an approximate kind searches; None for flat, which is exact."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Of each file in the same folder, by suffix, the SHA-256 of its content, hexadecimal."""
    format: int = FORMAT
    """Version of manifest and files."""

    def path(self, folder: Path, suffix: str) -> Path:
        """Where a file of the index lies."""
        return folder / _file_name(self.files[suffix], suffix)


def created_by() -> str:
    """This program with its version."""
    try:
        return f"stepgold {version('stepgold')}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "stepgold"


def read_manifest(folder: Path) -> IndexManifest:
    """The manifest of the index in `folder`.

    Raises:
        IndexMismatch: there is no index, or another version of this program wrote it.
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
            f"The index cannot be read ({fault.strerror}).", where=str(path), remedy=_REBUILD
        ) from fault
    except ValueError as fault:
        raise _damaged_manifest(path) from fault
    if isinstance(document, dict) and "encoder" in document and document.get("format") != FORMAT:
        raise IndexMismatch(
            f"The index was written by another version ({document.get('created_by')}).",
            where=str(path),
            remedy=_REBUILD,
        )
    return _checked(document, path)


def _checked(document: Any, path: Path) -> IndexManifest:
    if not isinstance(document, dict) or set(document) != {f.name for f in fields(IndexManifest)}:
        raise _damaged_manifest(path)
    texts = [document[name] for name in ("encoder", "kind", "corpus_fingerprint", "created_by")]
    numbers = [document[name] for name in ("dimension", "count")]
    files, quality = document["files"], document["quality"]
    if not all(isinstance(text, str) for text in texts) or not isinstance(files, dict):
        raise _damaged_manifest(path)
    if not all(isinstance(number, int) for number in numbers) or VECTORS not in files:
        raise _damaged_manifest(path)
    # Names are made of these two: nothing outside the folder is ever read.
    hashes = [suffix in (VECTORS, DIGESTS) and _is_hash(files[suffix]) for suffix in files]
    if not all(hashes):
        raise _damaged_manifest(path)
    try:
        document["quality"] = None if quality is None else SearchQuality(**quality)
    except TypeError as fault:
        raise _damaged_manifest(path) from fault
    return IndexManifest(**document)


def _is_hash(text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def read_whole(folder: Path, read: Callable[[IndexManifest], Content]) -> Content:
    """Read an index by its manifest, again if a writer replaced it in between.

    Args:
        folder: where it lies.
        read: reads by the manifest it is given.

    Raises:
        IndexMismatch: there is no index, or another version wrote it; what `read` raises.
        StoreError: it cannot be read or is damaged; what `read` raises.
    """
    for _ in range(_READS - 1):
        manifest = read_manifest(folder)
        try:
            return read(manifest)
        except StoreError:
            if read_manifest(folder) == manifest:
                raise
    return read(read_manifest(folder))


def checked_file(folder: Path, manifest: IndexManifest, suffix: str) -> Path:
    """Path of a file of the index, its content checked against the manifest's hash.

    Raises:
        StoreError: the file is missing, unreadable or damaged.
    """
    path = manifest.path(folder, suffix)
    try:
        found = _hash(path)
    except OSError as fault:
        raise StoreError(
            f"The index file cannot be read ({fault.strerror}).", where=str(path), remedy=_REBUILD
        ) from fault
    if found != manifest.files[suffix]:
        raise damaged(path)
    return path


def damaged(path: Path) -> StoreError:
    """The error for a file of the index whose content is not what was written."""
    return StoreError("The index file is damaged.", where=str(path), remedy=_REBUILD)


def write_index(
    folder: Path, manifest: IndexManifest, writers: Mapping[str, Callable[[Path], None]]
) -> None:
    """Write the files of an index and its manifest; until the last step the old ones stay in force.

    Args:
        folder: made if it is not there.
        manifest: without `files`, which are found out here.
        writers: by suffix, what writes that file to the path it is given; raises OSError if it
            cannot.

    Raises:
        StoreError: the folder cannot be written; the old index is as it was.
    """
    files: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, write in writers.items():
            with _partial(folder) as payload:
                write(payload)
                files[suffix] = _hash(payload)
                _settle(payload, folder / _file_name(files[suffix], suffix))
        complete = replace(manifest, files=files)
        with _partial(folder) as text:
            text.write_text(json.dumps(asdict(complete), indent=2) + "\n", encoding="utf-8")
            _settle(text, folder / MANIFEST)
        _remove_leftovers(folder, keep={_file_name(h, suffix) for suffix, h in files.items()})
    except OSError as fault:
        raise StoreError(
            f"The index cannot be written ({fault.strerror or fault}).",
            where=str(folder),
            remedy="make room, or choose a folder that can be written",
        ) from fault


def _file_name(digest: str, suffix: str) -> str:
    return f"passages-{digest[:16]}{suffix}"


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
    sync(path)
    path.replace(final)
    sync(final.parent)


def _remove_leftovers(folder: Path, *, keep: Collection[str]) -> None:
    for path in folder.iterdir():
        ours = path.suffix in {VECTORS, DIGESTS, _PARTIAL} and path.is_file()
        if ours and path.name not in keep:
            path.unlink(missing_ok=True)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _damaged_manifest(path: Path) -> StoreError:
    return StoreError("The manifest of the index is damaged.", where=str(path), remedy=_REBUILD)
