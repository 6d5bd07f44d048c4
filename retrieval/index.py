"""The FAISS index over passages: build, search, save, load. The only file that imports faiss."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.embedding import Vectors, encode_in_batches
from retrieval.index_files import (
    IndexManifest,
    created_by,
    read_manifest,
    read_payload,
    write_index,
)
from traces.errors import IndexMismatch, InputError, StoreError

__all__ = ["KINDS", "PassageIndex", "encode_in_batches", "require_kind", "resolve_kind"]

KINDS = ("auto", "flat", "hnsw", "ivf")
"""What `--kind` takes."""
FLAT_LIMIT = 500_000
"""`auto` is exact up to so many passages: batched exact search is as fast as a matrix product."""

_UNIT_TOLERANCE = 1e-3

if sys.platform == "darwin":
    # torch and faiss each bring an OpenMP runtime there, and two that run threads crash.
    faiss.omp_set_num_threads(1)


def require_kind(kind: str) -> None:
    """Refuse a kind of index that there is none of.

    Raises:
        InputError: naming the kinds there are.
    """
    if kind not in KINDS:
        raise InputError(f"There is no index kind '{kind}'.", remedy=f"choose {', '.join(KINDS)}")


def resolve_kind(kind: str, count: int) -> str:
    """What `auto` means for `count` passages: flat up to 500,000, else hnsw."""
    if kind != "auto":
        return kind
    return "flat" if count <= FLAT_LIMIT else "hnsw"


class PassageIndex:
    """Passage ids by vector. Made by `build` or `load`."""

    def __init__(self, index: faiss.IndexIDMap2, kind: str) -> None:
        self._index = index
        self._ids = set(faiss.vector_to_array(index.id_map).tolist())
        self.kind = kind
        """flat, hnsw or ivf."""

    @property
    def count(self) -> int:
        """Passages in the index."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self._index.d)

    @classmethod
    def build(cls, ids: Sequence[int], vectors: Vectors, *, kind: str = "auto") -> PassageIndex:
        """Index `vectors` (n unit rows) under n different ids, the store's passage ids.

        Raises:
            InputError: nothing to index, an unknown kind, a repeated or negative id, numbers of
                ids and rows that differ, or a row that is not a finite unit vector.
        """
        require_kind(kind)
        if len(ids) == 0:
            raise InputError("There is no passage to index.", remedy="stepgold corpus add")
        kind = resolve_kind(kind, len(ids))
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        _check_rows(ids, rows, rows.shape[-1])
        built = cls(faiss.IndexIDMap2(_new_index(kind, rows)), kind)
        built.add(ids, rows)
        return built

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add passages; FAISS itself would take a second vector under the same id without a word.

        Raises:
            InputError: as for `build`.
        """
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        _check_rows(ids, rows, self.dimension)
        given = {int(passage_id) for passage_id in ids}
        repeated = given & self._ids
        if repeated or len(given) < len(ids):
            which = f" (for example {min(repeated)})" if repeated else ""
            raise InputError(f"A passage id is there twice{which}.", remedy="stepgold index")
        self._index.add_with_ids(rows, np.asarray(ids, dtype=np.int64))
        self._ids |= given

    def search(
        self, vectors: Vectors, k: int
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
        """The nearest passages of each query vector, best first.

        Args:
            vectors: m unit rows.
            k: most hits a query, at least 1.

        Returns:
            Ids and cosine similarities in [-1, 1], one array a query: shorter than `k` where
            FAISS found fewer (its padding, id -1, is taken out).

        Raises:
            InputError: k below 1, or vectors of another dimension.
        """
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if k < 1:
            raise InputError(f"Cannot look for {k} passages.", remedy="choose k of at least 1")
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise InputError(
                f"Query vectors of shape {queries.shape} do not fit an index of dimension {self.dimension}."
            )
        # FAISS >= 1.15 goes over to BLAS only above 128,000 / d queries, about 150 times too late
        # (measured: its own kernels take 20 times the bare matrix product at 256 queries).
        faiss.cvar.distance_compute_blas_threshold = 16 * self.dimension
        similarities, ids = self._index.search(queries, min(k, self.count))
        found = [row >= 0 for row in ids]
        return (
            [row[hit] for row, hit in zip(ids, found, strict=True)],
            [np.clip(row[hit], -1, 1) for row, hit in zip(similarities, found, strict=True)],
        )

    def save(
        self, folder: Path, *, encoder: str, encoder_spec: str | None, corpus_fingerprint: str
    ) -> None:
        """Write index and manifest so that a kill at any moment leaves the old or the new pair.

        Args:
            folder: made if it is not there; one writer at a time.
            encoder: name of the encoder, with the hash of its weights.
            encoder_spec: how the user named it; None for the default.
            corpus_fingerprint: of the corpora the passages come from.

        Raises:
            StoreError: the folder cannot be written.
        """
        manifest = IndexManifest(
            encoder=encoder,
            encoder_spec=encoder_spec,
            dimension=self.dimension,
            count=self.count,
            kind=self.kind,
            corpus_fingerprint=corpus_fingerprint,
            created_by=f"{created_by()}, faiss {faiss.__version__}",
        )
        write_index(folder, manifest, lambda path: _write(self._index, path))

    @classmethod
    def load(cls, folder: Path, *, encoder: str, corpus_fingerprint: str) -> PassageIndex:
        """Open the index, if it belongs to this encoder and to this state of the corpora.

        Raises:
            IndexMismatch: there is none, or it was built with another encoder or corpus.
            StoreError: its files are damaged.
        """
        manifest = read_manifest(folder)
        _require_match(manifest, folder, encoder, corpus_fingerprint)
        path = read_payload(folder, manifest)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as fault:
            raise _damaged(path) from fault
        if not isinstance(index, faiss.IndexIDMap2):
            raise _damaged(path)
        if (index.ntotal, index.d) != (manifest.count, manifest.dimension):
            raise _damaged(path)
        return cls(index, manifest.kind)

    @staticmethod
    def encoder_spec(folder: Path) -> str | None:
        """The encoder the index was built with, as the user named it; None for the default.

        Raises:
            IndexMismatch: there is no index.
            StoreError: the manifest is damaged.
        """
        return read_manifest(folder).encoder_spec

    @staticmethod
    def is_current(folder: Path, *, encoder: str, corpus_fingerprint: str, kind: str) -> bool:
        """Whether `folder` holds an undamaged index of this encoder, corpus state and kind."""
        try:
            manifest = read_manifest(folder)
            _require_match(manifest, folder, encoder, corpus_fingerprint)
            read_payload(folder, manifest)
        except (IndexMismatch, StoreError):
            return False
        return manifest.kind == resolve_kind(kind, manifest.count)


def _new_index(kind: str, rows: Vectors) -> faiss.Index:
    dimension = rows.shape[1]
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexFlat(dimension, metric)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dimension, 32, metric)
        graph.hnsw.efConstruction = 80
        graph.hnsw.efSearch = 128  # recall@10 .993 on 20,482 real embeddings
        return graph
    # FAISS wants 39 training vectors a list; recall@10 .970 at an eighth of the lists on the same.
    lists = max(1, min(int(4 * sqrt(len(rows))), len(rows) // 39))
    inverted = faiss.IndexIVFFlat(faiss.IndexFlat(dimension, metric), dimension, lists, metric)
    inverted.nprobe = -(-lists // 8)
    inverted.train(rows)
    return inverted


def _check_rows(ids: Sequence[int], rows: Vectors, dimension: int) -> None:
    if rows.shape != (len(ids), dimension):
        raise InputError(
            f"{len(ids)} ids and vectors of shape {rows.shape} do not belong together."
        )
    if min(ids, default=0) < 0:
        raise InputError(f"A passage id is below 0: {min(ids)}.")
    norms = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= _UNIT_TOLERANCE))
    if wrong.size:
        raise InputError(
            f"The vector of passage {ids[wrong[0]]} has length {norms[wrong[0]]:.4g}, not 1.",
            remedy="use an encoder that gives finite vectors",
        )


def _write(index: Any, path: Path) -> None:
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as fault:  # FAISS reports a full disk and a missing right so
        raise OSError(str(fault)) from fault


def _require_match(manifest: IndexManifest, folder: Path, encoder: str, fingerprint: str) -> None:
    if manifest.encoder != encoder:
        raise IndexMismatch(
            f"The index was built with encoder '{manifest.encoder}', but '{encoder}' is in use.",
            where=str(folder),
            remedy="build it anew with `stepgold index`, or name the same encoder",
        )
    if manifest.corpus_fingerprint != fingerprint:
        raise IndexMismatch(
            "The corpora have changed since the index was built.",
            where=str(folder),
            remedy="bring it up to date with `stepgold index`",
        )


def _damaged(path: Path) -> StoreError:
    return StoreError(
        "The index file is damaged.", where=str(path), remedy="build it anew with `stepgold index`"
    )
