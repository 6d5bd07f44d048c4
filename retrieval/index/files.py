"""The files of an index: manifest, lock, and journal of encoded vectors.

Each file of an index has the hash of its content in its name, and the manifest names the files. New
files are written and synced next to the old ones, then the manifest is replaced in one step, then
the old files are removed. Whenever the process is killed, the manifest names complete files that
belong together. The lock of a killed writer is released by the system.

The journal keeps encoded vectors that are not in an index yet, so that a killed run loses none. It
is an append-only file of records of one size: digest of the text, vector, checksum of both. Each
batch is synced before the next is encoded. A record that was half written fails its checksum or is
too short, and is dropped when the journal is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from retrieval.index.durable import sync
from retrieval.index.encoder import Vectors, text_to_embed
from retrieval.index.kinds import SearchQuality
from traces import IndexMismatch, InputError, Passage, StoreError

_NAME = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock the folder, which is created if missing, against other writers.

    Raises:
        InputError: another process holds the lock.
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
            f"Cannot write the folder ({fault.strerror}).",
            where=str(folder),
            remedy="use a writable workspace",
        ) from fault
    try:
        yield
    finally:
        lock.release()


Content = TypeVar("Content")

MANIFEST = "manifest.json"
FORMAT = 2
"""Version of manifest and files; an index of another version is rebuilt."""
VECTORS = ".faiss"
"""Suffix of the FAISS index."""
DIGESTS = ".digests"
"""Suffix of the file with the digests of the indexed texts."""

_PARTIAL = ".partial"
_REBUILD = "stepgold index"
_READS = 3


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """The origin and files of an index."""

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
    """Hash of ids and texts of all passages, made by the store."""
    created_by: str
    """Versions of the programs that wrote it."""
    quality: SearchQuality | None = None
    """Measured search quality; None for flat, which is exact."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 (hexadecimal) of the content of each file in the same folder, by suffix."""
    format: int = FORMAT

    def path(self, folder: Path, suffix: str) -> Path:
        """Return the path of a file of the index."""
        return folder / _file_name(self.files[suffix], suffix)


def created_by() -> str:
    """Return the name and version of this program."""
    try:
        return f"stepgold {version('stepgold')}"
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "stepgold"


def read_manifest(folder: Path) -> IndexManifest:
    """Return the manifest of the index in `folder`.

    Raises:
        IndexMismatch: there is no index, or another version of this program wrote it.
        StoreError: the manifest cannot be read or is damaged.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as fault:
        raise IndexMismatch(
            "There is no index yet.", where=str(folder), remedy="stepgold index"
        ) from fault
    except OSError as fault:
        raise StoreError(
            f"Cannot read the index ({fault.strerror}).", where=str(path), remedy=_REBUILD
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
    # File names are made of these two, so that nothing outside the folder is read.
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
    """Read an index by its manifest, again if a writer replaced it meanwhile.

    Args:
        folder: of the index.
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
    """Return the path of a file of the index after checking its content against the manifest's
    hash.

    Raises:
        StoreError: the file is missing, unreadable or damaged.
    """
    path = manifest.path(folder, suffix)
    try:
        found = _hash(path)
    except OSError as fault:
        raise StoreError(
            f"Cannot read the index file ({fault.strerror}).", where=str(path), remedy=_REBUILD
        ) from fault
    if found != manifest.files[suffix]:
        raise damaged(path)
    return path


def damaged(path: Path) -> StoreError:
    """Return the error for a file of the index with unexpected content."""
    return StoreError("The index file is damaged.", where=str(path), remedy=_REBUILD)


def write_index(
    folder: Path, manifest: IndexManifest, writers: Mapping[str, Callable[[Path], None]]
) -> None:
    """Write the files of an index and its manifest; the old ones stay valid until the last step.

    Args:
        folder: created if missing.
        manifest: without `files`, which are filled in here.
        writers: by suffix, a function that writes that file to a path, or raises OSError.

    Raises:
        StoreError: the folder cannot be written; the old index is unchanged.
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
            f"Cannot write the index ({fault.strerror or fault}).",
            where=str(folder),
            remedy="free disk space, or use a writable folder",
        ) from fault


def _file_name(digest: str, suffix: str) -> str:
    return f"passages-{digest[:16]}{suffix}"


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """Yield a path for an unfinished file in `folder`; leftovers are removed at the end."""
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


_UNIT_TOLERANCE = 1e-3


def check_rows(ids: NDArray[np.int64], rows: Vectors, dimension: int) -> None:
    """Refuse rows that are not finite unit vectors, one for each id.

    Raises:
        InputError: different numbers of ids and rows, an id below 0, or a row of another length.
    """
    if rows.shape != (len(ids), dimension):
        raise InputError(f"{len(ids)} ids do not match vectors of shape {rows.shape}.")
    if len(ids) and ids.min() < 0:
        raise InputError(f"A passage id is below 0: {ids.min()}.")
    norms = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= _UNIT_TOLERANCE))
    if wrong.size:
        raise InputError(
            f"The vector of passage {ids[wrong[0]]} has length {norms[wrong[0]]:.4g}, not 1.",
            remedy="use an encoder that gives finite vectors",
        )


def check_new(ids: NDArray[np.int64], present: NDArray[np.int64]) -> None:
    """Refuse repeated ids and ids that are already present.

    Raises:
        InputError: naming one of them.
    """
    once, times = np.unique(ids, return_counts=True)
    repeated = np.concatenate([once[times > 1], ids[np.isin(ids, present)]])
    if repeated.size:
        raise InputError(
            f"A passage id is repeated (for example {repeated.min()}).", remedy="stepgold index"
        )


def check_queries(queries: Vectors, k: int, dimension: int) -> None:
    """Refuse invalid queries.

    Raises:
        InputError: k below 1, vectors of another dimension, or numbers that are not finite.
    """
    if k < 1:
        raise InputError(f"Cannot search for {k} passages.", remedy="use -k 1 or more")
    if queries.ndim != 2 or queries.shape[1] != dimension:
        raise InputError(
            f"Query vectors of shape {queries.shape} do not fit an index of dimension {dimension}."
        )
    if not np.isfinite(queries).all():
        raise InputError(
            "A query vector is not finite.", remedy="use an encoder that gives finite vectors"
        )


def require_match(
    manifest: IndexManifest, folder: Path, encoder: str, fingerprint: str | None
) -> None:
    """Refuse an index of another encoder or, if a fingerprint is given, another corpus state.

    Raises:
        IndexMismatch: says which, and what to do.
    """
    if manifest.encoder != encoder:
        raise IndexMismatch(
            f"The index was built with encoder '{manifest.encoder}', but '{encoder}' is in use.",
            where=str(folder),
            remedy="stepgold index   (or name the same encoder with --encoder)",
        )
    if fingerprint is not None and manifest.corpus_fingerprint != fingerprint:
        raise IndexMismatch(
            "The corpora have changed since the index was built.",
            where=str(folder),
            remedy="stepgold index",
        )


SUFFIX = ".journal"
DIGEST_BYTES = 16


def digest_of(text: str) -> bytes:
    """Return the key of a text: its BLAKE2b hash of 128 bits."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


class VectorJournal:
    """The journal of one encoder in a folder; a context manager.

    Args:
        folder: created if missing; one journal at a time.
        encoder: name of the encoder; journals of others are removed.
        dimension: length of its vectors.

    Raises:
        StoreError: the folder cannot be written.
    """

    def __init__(self, folder: Path, encoder: str, dimension: int) -> None:
        self.dimension = dimension
        """Length of a vector."""
        self._record = np.dtype(
            [
                ("digest", f"V{DIGEST_BYTES}"),
                ("vector", "<f4", (dimension,)),
                ("check", "<u4"),
            ]
        )
        key = hashlib.sha256(f"{encoder} {dimension}".encode()).hexdigest()[:16]
        self._path = folder / f"vectors-{key}{SUFFIX}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for other in folder.glob(f"*{SUFFIX}"):
                if other != self._path:
                    other.unlink()
            self._keep_whole_records()
            self._stream = self._path.open("ab")
        except OSError as fault:
            raise _not_written(self._path, fault) from fault
        self._places = {bytes(digest): n for n, digest in enumerate(self._records()["digest"])}

    @staticmethod
    def discard(folder: Path) -> None:
        """Remove the leftovers of a killed run, when no vector is missing any more."""
        for path in folder.glob(f"*{SUFFIX}"):
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._places

    def append(self, digests: Sequence[bytes], vectors: Vectors) -> None:
        """Store the vectors of texts that are not in the journal yet; durable on return.

        Raises:
            StoreError: the file cannot be written.
        """
        records = np.zeros(len(digests), dtype=self._record)
        records["digest"] = np.frombuffer(b"".join(digests), dtype=f"V{DIGEST_BYTES}")
        records["vector"] = vectors
        records["check"] = [_check(record.tobytes()) for record in records]
        try:
            self._stream.write(records.tobytes())
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as fault:
            raise _not_written(self._path, fault) from fault
        first = len(self._places)
        self._places |= {digest: first + n for n, digest in enumerate(digests)}

    def vectors(self, digests: Sequence[bytes]) -> Vectors:
        """Return the vectors of texts in the journal, shape (n, dimension)."""
        places = [self._places[digest] for digest in digests]
        found: Vectors = np.array(self._records()["vector"][places])
        return found

    def remove(self) -> None:
        """Remove the journal once its vectors are in an index."""
        self._stream.close()
        self._path.unlink(missing_ok=True)

    def _records(self) -> NDArray[np.void]:
        if not self._path.stat().st_size:
            return np.zeros(0, dtype=self._record)
        return np.memmap(self._path, dtype=self._record, mode="r")

    def _keep_whole_records(self) -> None:
        if not self._path.exists():
            return
        size = self._record.itemsize
        with self._path.open("r+b") as stream:
            whole = 0
            while (content := stream.read(size)) and len(content) == size:
                if _check(content) != int.from_bytes(content[-4:], "little"):
                    break
                whole += 1
            stream.truncate(whole * size)


def _check(content: bytes) -> int:
    return zlib.crc32(content[:-4])


def _not_written(path: Path, fault: OSError) -> StoreError:
    return StoreError(
        f"Cannot write the vectors ({fault.strerror or fault}).",
        where=str(path),
        remedy="free disk space, or use a writable workspace",
    )


_ENTRY = np.dtype([("id", "<i8"), ("digest", f"V{DIGEST_BYTES}")])


@dataclass(frozen=True, slots=True)
class IndexEntries:
    """Passage ids and, in the same order, the digests of their texts."""

    ids: NDArray[np.int64]
    """n passage ids."""
    digests: Sequence[bytes]
    """n digests; passages with the same text have the same digest."""

    @classmethod
    def of(cls, passages: Iterable[tuple[int, Passage]]) -> IndexEntries:
        """Return the entries of passages, without keeping their texts in memory."""
        ids: list[int] = []
        digests: list[bytes] = []
        for passage_id, passage in passages:
            ids.append(passage_id)
            digests.append(digest_of(text_to_embed(passage)))
        return cls(np.asarray(ids, dtype=np.int64), digests)

    @classmethod
    def read(cls, path: Path) -> IndexEntries:
        """Read what `write` wrote; OSError if the file cannot be read."""
        entries = np.fromfile(path, dtype=_ENTRY)
        return cls(entries["id"].astype(np.int64), [bytes(one) for one in entries["digest"]])

    def write(self, path: Path) -> None:
        """Write the entries; OSError if that fails."""
        entries = np.zeros(len(self.ids), dtype=_ENTRY)
        entries["id"] = self.ids
        entries["digest"] = np.frombuffer(b"".join(self.digests), dtype=f"V{DIGEST_BYTES}")
        entries.tofile(path)

    def by_id(self) -> dict[int, bytes]:
        """Return the digest of each passage."""
        return dict(zip(self.ids.tolist(), self.digests, strict=True))

    def by_digest(self) -> dict[bytes, int]:
        """Return one passage of each text."""
        return dict(zip(self.digests, self.ids.tolist(), strict=True))
