"""The index over passages: build, change, search, save, load.

The vectors are in FAISS under the store's passage ids. A flat index is searched by
`retrieval.index.vectors` in FAISS's memory; hnsw and ivf are searched by FAISS, with the measured
search width that reaches the target recall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.index.encoder import Vectors, available_memory
from retrieval.index.files import (
    VECTORS,
    IndexManifest,
    check_new,
    check_queries,
    check_rows,
    checked_file,
    created_by,
    damaged,
    read_manifest,
    read_whole,
    require_match,
    write_index,
)
from retrieval.index.kinds import (
    RECALL_TARGET,
    SAMPLE,
    K,
    SearchQuality,
    is_fitting,
    require_kind,
    resolve_kind,
    sample_queries,
    tune,
)
from retrieval.index.vectors import VERSION, FaissRows, Ids, RowsAt, nearest_rows
from traces import IndexMismatch, InputError, StoreError

_ROWS_AT_ONCE = 4096

Found = tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]
"""Ids and similarities, one array per query."""


class PassageIndex:
    """Passage ids by vector, made by `build` or `load`."""

    def __init__(self, rows: FaissRows, quality: SearchQuality | None = None) -> None:
        self._rows = rows
        self.quality = quality
        """How well it searches; None for flat, which is exact, and before `tune`."""

    @property
    def kind(self) -> str:
        """flat, hnsw or ivf."""
        return self._rows.kind

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._rows.dimension

    @property
    def ids(self) -> Ids:
        """The passages' ids, in no particular order."""
        return self._rows.ids[self._rows.ids >= 0]

    @property
    def count(self) -> int:
        """Passages in the index."""
        return self._rows.count

    @property
    def removed_share(self) -> float:
        """Share of rows of removed passages, in [0, 1]; in hnsw and ivf they still cost time."""
        return 1 - self.count / len(self._rows.ids) if len(self._rows.ids) else 0.0

    @classmethod
    def build(cls, ids: Sequence[int], vectors: Vectors, *, kind: str = "auto") -> PassageIndex:
        """Index `vectors` (n unit rows) under n different ids, the store's passage ids.

        Raises:
            InputError: nothing to index, an unknown kind, a repeated or negative id, different
                numbers of ids and rows, or a row that is not a finite unit vector.
        """
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if len(rows) != len(ids):
            check_rows(np.asarray(ids, dtype=np.int64), rows, rows.shape[-1])
        return cls.build_from(ids, rows.shape[-1], lambda places: rows[places], kind=kind)

    @classmethod
    def build_from(
        cls,
        ids: Sequence[int] | Ids,
        dimension: int,
        vectors_at: RowsAt,
        *,
        kind: str = "auto",
        progress: Callable[[Iterable[Ids], int], Iterable[Ids]] | None = None,
    ) -> PassageIndex:
        """Build an index of vectors that need not all be in memory: `vectors_at` gives those at
        places.

        Raises:
            InputError: as for `build`.
        """
        require_kind(kind)
        given = np.asarray(ids, dtype=np.int64)
        if not len(given):
            raise InputError("There is no passage to index.", remedy="stepgold corpus add")
        check_new(given, np.zeros(0, dtype=np.int64))
        kind = resolve_kind(kind, len(given), dimension, available_memory())
        built = cls(FaissRows.empty(kind, dimension, len(given), vectors_at))
        built.add_from(given, vectors_at, progress)
        return built

    def add(self, ids: Sequence[int] | Ids, vectors: Vectors) -> None:
        """Add passages; unlike FAISS, refuse a second vector under the same id.

        Raises:
            InputError: as for `build`; nothing was added.
        """
        given = np.asarray(ids, dtype=np.int64)
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        check_rows(given, rows, self.dimension)
        check_new(given, self._rows.ids)
        self._rows.add(given, rows)

    def add_from(
        self,
        ids: Ids,
        vectors_at: RowsAt,
        progress: Callable[[Iterable[Ids], int], Iterable[Ids]] | None = None,
    ) -> None:
        """Add passages part by part, for vectors that need not all be in memory."""
        places = np.arange(len(ids))
        parts = [places[at : at + _ROWS_AT_ONCE] for at in range(0, len(ids), _ROWS_AT_ONCE)]
        for part in parts if progress is None else progress(parts, len(parts)):
            self.add(ids[part], vectors_at(part))

    def remove(self, ids: Sequence[int] | Ids) -> None:
        """Remove passages.

        Raises:
            IndexMismatch: one of them is not in the index; nothing was removed.
        """
        self._rows.remove(np.unique(self._rows.places_of(ids)))

    def search(self, vectors: Vectors, k: int) -> Found:
        """Return the nearest passages of each query vector, best first, ties by id.

        Args:
            vectors: m unit rows.
            k: most hits per query, at least 1.

        Returns:
            Ids and cosine similarities in [-1, 1], one array per query; shorter than `k` where
            fewer were found.

        Raises:
            InputError: k below 1, or vectors of another dimension.
        """
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        check_queries(queries, k, self.dimension)
        if self.kind == "flat":
            ids, similarities = nearest_rows(self._rows.matrix(), queries, k, ids=self._rows.ids)
            return list(ids), list(np.clip(similarities, -1, 1))
        return self._search_within(self._reach(), queries, k)

    def _search_within(self, reach: int, queries: Vectors, k: int) -> Found:
        ids, similarities = self._rows.search(queries, min(k, max(1, self.count)), reach)
        found = [row >= 0 for row in ids]
        return (
            [row[hit] for row, hit in zip(ids, found, strict=True)],
            [np.clip(row[hit], -1, 1) for row, hit in zip(similarities, found, strict=True)],
        )

    def _reach(self) -> int:
        return self.quality.value if self.quality else min(self._rows.largest_reach, 128)

    def tune(
        self, *, target: float = RECALL_TARGET, seed: int = 0, queries: Vectors | None = None
    ) -> None:
        """Measure the search width that hnsw or ivf needs for recall@10 of `target`; kept in
        `quality`.

        Measured on `queries` if given, else on a sample (`sample_queries`).
        """
        if self.kind == "flat" or not self.count:
            return
        if queries is None:
            chosen = np.random.default_rng(seed).permutation(self.ids)[:SAMPLE]
            queries = sample_queries(self.vectors(chosen), seed)
        ids, largest = self._rows.ids, self._rows.largest_reach
        if self.kind == "hnsw":
            matrix = self._rows.matrix()
            exact = list(nearest_rows(matrix, queries, K, ids=ids, allowed=ids >= 0)[0])
        else:
            exact = self._search_within(largest, queries, K)[0]
        self.quality = tune(
            lambda reach: self._search_within(reach, queries, K)[0],
            exact,
            parameter=self._rows.knob,
            largest=largest,
            target=target,
            seed=seed,
        )

    def vectors(self, ids: Sequence[int] | Ids) -> Vectors:
        """Return the vectors of these passages in this order, shape (n, dimension).

        Raises:
            IndexMismatch: a passage is not in the index.
        """
        return self._rows.at(self._rows.places_of(ids))

    def save(
        self,
        folder: Path,
        *,
        encoder: str,
        encoder_spec: str | None,
        corpus_fingerprint: str,
        others: Mapping[str, Callable[[Path], None]] | None = None,
    ) -> None:
        """Write index and manifest; a kill at any moment leaves either the old or the new index.

        Args:
            folder: created if missing; one writer at a time.
            encoder: name of the encoder, with the hash of its weights.
            encoder_spec: how the user named it; None for the default.
            corpus_fingerprint: of the corpora the passages come from.
            others: by suffix, writers of further files that belong to this state of the index.

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
            created_by=f"{created_by()}, faiss {VERSION}",
            quality=self.quality,
        )
        write_index(folder, manifest, {VECTORS: self._rows.write, **(others or {})})

    @classmethod
    def load(
        cls, folder: Path, *, encoder: str, corpus_fingerprint: str | None, writable: bool = False
    ) -> PassageIndex:
        """Open the index in `folder`, if it belongs to this encoder and state of the corpora.

        Args:
            folder: of the index.
            encoder: name of the encoder in use.
            corpus_fingerprint: of the current corpora; None to accept any state.
            writable: read the index into memory, to be changed; otherwise its file is
                memory-mapped.

        Raises:
            IndexMismatch: there is none, or it was built with another encoder or corpus, or
                written by another version of this program.
            StoreError: its files are damaged.
        """

        def read(manifest: IndexManifest) -> PassageIndex:
            require_match(manifest, folder, encoder, corpus_fingerprint)
            return _opened(folder, manifest, writable=writable)

        return read_whole(folder, read)

    @staticmethod
    def encoder_spec(folder: Path) -> str | None:
        """Return the encoder the index was built with, as the user named it; None for the default.

        Raises:
            IndexMismatch: there is no index.
            StoreError: the manifest is damaged.
        """
        return read_manifest(folder).encoder_spec

    @staticmethod
    def is_current(folder: Path, *, encoder: str, corpus_fingerprint: str, kind: str) -> bool:
        """Whether `folder` holds a complete index of this encoder, corpus state and kind."""
        try:
            manifest = read_manifest(folder)
            require_match(manifest, folder, encoder, corpus_fingerprint)
            for suffix in manifest.files:
                checked_file(folder, manifest, suffix)
        except (IndexMismatch, StoreError):
            return False
        return is_fitting(manifest.kind, kind, manifest.count)


def _opened(folder: Path, manifest: IndexManifest, *, writable: bool) -> PassageIndex:
    path = checked_file(folder, manifest, VECTORS)
    try:
        opened = PassageIndex(FaissRows.read(path, mapped=not writable), manifest.quality)
    except ValueError as fault:
        raise damaged(path) from fault
    stated = (manifest.kind, manifest.dimension, manifest.count)
    if (opened.kind, opened.dimension, opened.count) != stated:
        raise damaged(path)
    return opened
