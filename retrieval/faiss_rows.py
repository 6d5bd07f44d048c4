"""Vectors in FAISS behind an IDMap2. The only file that imports faiss.

FAISS cannot take a row out of an HNSW graph, nor out of an inverted list behind an IDMap2. There a
removed row stays under a negative id, which no search returns, until the index is built anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.embedding import Vectors
from retrieval.index_kinds import LINKS
from traces.errors import IndexMismatch

Ids = NDArray[np.int64]
RowsAt = Callable[[NDArray[np.int64]], Vectors]
"""Gives the vectors at these positions of what is to be indexed."""

VERSION = str(faiss.__version__)

_FAISS: Any = faiss
_BUILD_REACH = 80  # efConstruction; 40 reaches the same recall at a higher efSearch
_TRAINING_ROWS = 64  # a list of an inverted index; FAISS wants 39 at least
_LARGEST_EF_SEARCH = 4096
_ALIVE = (0, 2**62)

if sys.platform == "darwin":
    # torch and faiss each bring an OpenMP runtime there, and two that run threads crash.
    faiss.omp_set_num_threads(1)


class FaissRows:
    """The rows of one index. Made by `empty` or `read`."""

    def __init__(self, index: Any) -> None:
        self._index = index  # an IDMap2; Any, as FAISS's stubs know few of their members
        self._inner: Any = faiss.downcast_index(index.index)
        self.kind = _kind_of(self._inner)
        """flat, hnsw or ivf."""
        self.dimension = int(index.d)
        """Length of the vectors."""
        self.ids: Ids
        """The id of each row; below 0 where it was removed."""
        self.count: int
        """Rows that were not removed."""
        self._order: Ids
        self._ids_changed(faiss.vector_to_array(index.id_map))

    def _ids_changed(self, ids: Ids) -> None:
        self.ids, self._order = ids, np.argsort(ids)
        self.count = int(np.count_nonzero(ids >= 0))

    @classmethod
    def empty(cls, kind: str, dimension: int, count: int, rows: RowsAt) -> FaissRows:
        """An index without rows, made for `count` of them; `rows` gives what IVF is trained on."""
        return cls(faiss.IndexIDMap2(_new_index(kind, dimension, count, rows)))

    @classmethod
    def read(cls, path: Path, *, mapped: bool) -> FaissRows:
        """Read an index; a mapped one takes memory only as it is searched, and cannot be changed.

        Raises:
            ValueError: the file holds no index of ours.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except RuntimeError as fault:
            raise ValueError(str(fault)) from fault
        if not isinstance(index, faiss.IndexIDMap2):
            raise ValueError(f"an index of type {type(index).__name__}")
        return cls(index)

    def write(self, path: Path) -> None:
        """Write the index.

        Raises:
            OSError: it cannot be written.
        """
        try:
            faiss.write_index(self._index, str(path))
        except RuntimeError as fault:  # FAISS reports a full disk and a missing right so
            raise OSError(str(fault)) from fault

    def add(self, ids: Ids, rows: Vectors) -> None:
        """Add rows under ids that are not there yet: FAISS takes a second one without a word."""
        self._index.add_with_ids(rows, ids)
        self._ids_changed(np.concatenate([self.ids, ids]))
        self.__dict__.pop("_with_places", None)

    def remove(self, places: NDArray[np.int64]) -> None:
        """Remove the rows at these different places: for good from flat, else marked as removed."""
        if self.kind == "flat":
            self._index.remove_ids(self.ids[places])
            self._ids_changed(faiss.vector_to_array(self._index.id_map))
            return
        ids = self.ids.copy()
        ids[places] = -1 - places
        faiss.copy_array_to_vector(ids, self._index.id_map)
        self._ids_changed(ids)
        self._index.construct_rev_map()

    def places_of(self, ids: Sequence[int] | Ids) -> Ids:
        """The rows of these ids.

        Raises:
            IndexMismatch: one of them is not in the index.
        """
        wanted = np.asarray(ids, dtype=np.int64)
        found = np.searchsorted(self.ids, wanted, sorter=self._order)
        within = found < len(self.ids)
        places = self._order[np.where(within, found, 0)] if within.any() else np.zeros_like(wanted)
        there = within & (self.ids[places] == wanted) if within.any() else within
        if not there.all():
            raise IndexMismatch(
                f"Passage {wanted[~there][0]} is not in the index.",
                remedy="bring it up to date with `stepgold index`",
            )
        return places

    def matrix(self) -> Vectors:
        """FAISS's own memory of flat and hnsw, one vector a row; valid until rows are changed.

        It may be a mapped file: writing into it is no fault that Python could catch.
        """
        flat: Any = (
            self._inner if self.kind == "flat" else faiss.downcast_index(self._inner.storage)
        )
        memory = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * self.dimension)
        rows: Vectors = memory.reshape(-1, self.dimension)
        return rows

    def at(self, places: NDArray[np.int64]) -> Vectors:
        """Copies of the vectors at these places."""
        if self.kind != "ivf":
            return np.array(self.matrix()[places])
        if not len(places):
            return np.zeros((0, self.dimension), dtype=np.float32)
        found: Vectors = self._with_places.reconstruct_batch(places)
        return found

    @cached_property
    def _with_places(self) -> Any:
        self._inner.make_direct_map()  # where in which list each row lies
        return self._inner

    @property
    def knob(self) -> str:
        """FAISS's name for how far hnsw or ivf looks."""
        return "efSearch" if self.kind == "hnsw" else "nprobe"

    @property
    def largest_reach(self) -> int:
        """The knob's largest useful value; an inverted index is then searched exactly."""
        return _LARGEST_EF_SEARCH if self.kind == "hnsw" else int(self._inner.nlist)

    def search(self, queries: Vectors, k: int, reach: int) -> tuple[Ids, Vectors]:
        """Nearest rows of hnsw or ivf, best first, ties by id, both of shape (m, k).

        Where fewer were found FAISS's padding is left: an id below 0.
        """
        selector = faiss.IDSelectorRange(*_ALIVE) if self.count < len(self.ids) else None
        if self.kind == "hnsw":
            settings = _FAISS.SearchParametersHNSW(efSearch=max(reach, k), sel=selector)
        else:
            settings = _FAISS.SearchParametersIVF(nprobe=reach, sel=selector)
        similarities, ids = self._index.search(queries, k, params=settings)
        order = np.lexsort((ids, -similarities), axis=1)
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(
            similarities, order, axis=1
        )


def _kind_of(inner: faiss.Index) -> str:
    if isinstance(inner, faiss.IndexFlat):
        return "flat"
    return "hnsw" if isinstance(inner, faiss.IndexHNSW) else "ivf"


def _new_index(kind: str, dimension: int, count: int, rows: RowsAt) -> faiss.Index:
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexFlat(dimension, metric)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dimension, LINKS, metric)
        graph.hnsw.efConstruction = _BUILD_REACH
        return graph
    lists = max(1, min(int(4 * sqrt(count)), count // _TRAINING_ROWS))
    inverted = faiss.IndexIVFFlat(faiss.IndexFlat(dimension, metric), dimension, lists, metric)
    inverted.cp.min_points_per_centroid = 1  # it writes a warning about small corpora
    sample = np.random.default_rng(0).permutation(count)[: lists * _TRAINING_ROWS]
    inverted.train(rows(np.sort(sample)))
    return inverted
