"""Vectors that were paid for and are not in an index yet, so that a killed run loses no encoding.

An append-only file of records of one size: digest of the text, vector, check sum of both. Each batch
is made durable before the next is encoded. What a kill left half written fails its check sum or is
cut short, and is dropped when the journal is opened.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retrieval.embedding import Vectors
from traces.errors import StoreError

SUFFIX = ".journal"
DIGEST_BYTES = 16


def digest_of(text: str) -> bytes:
    """The key of a text: its BLAKE2b hash of 128 bits."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


class VectorJournal:
    """The journal of one encoder in a folder; a context manager.

    Args:
        folder: made if it is not there; one journal at a time.
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
        """Remove what a killed run left, when no vector is missing any more."""
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
        """Keep the vectors of texts that are not in the journal yet; durable on return.

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
        """The vectors of texts that are in the journal, shape (n, dimension)."""
        places = [self._places[digest] for digest in digests]
        found: Vectors = np.array(self._records()["vector"][places])
        return found

    def remove(self) -> None:
        """Remove the journal: its vectors are in an index now."""
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
        f"The vectors cannot be written ({fault.strerror or fault}).",
        where=str(path),
        remedy="make room, or choose a workspace that can be written",
    )
