"""Vectors in FAISS with ids, and exact nearest rows at hardly more than the cost of a matrix
product.

FAISS finds the same rows, but the OpenBLAS in its wheel has kernels that are five times slower on
current CPUs, and its own kernels below its BLAS threshold are twenty times slower
(docs/performance.md). So the vectors stay in the FAISS index, and torch computes the product.

The product is computed block by block into a buffer that stays in the CPU's cache. Only the maxima
of small groups of its rows are compared with each query's best so far, and only groups above those
are examined. The remaining rows are scored again in float64, so that the result is exact and does
not depend on the sizes of batch and block.

FAISS cannot remove a row from an HNSW graph, nor from an inverted list under an IDMap2. There a
removed row stays under a negative id, which no search returns, until the index is rebuilt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.index.encoder import Vectors
from retrieval.index.kinds import LINKS
from traces import IndexMismatch

if TYPE_CHECKING:
    import torch


Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_QUERIES_AT_ONCE = 256
_BLOCK_CELLS = 2**20
_BLOCK_ROWS = (4096, 65536)
_GROUP_ROWS = 32
_PAIRS_AT_ONCE = 16384
_SETTLE_AT = 64  # candidates per query and hit, above which ties are resolved at once


def nearest_rows(
    vectors: Floats,
    queries: Floats,
    k: int,
    *,
    ids: Integers,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[Integers, Floats]:
    """Return the `k` rows of the largest inner product with each query, best first, ties by id.

    Args:
        vectors: n unit rows, C-contiguous; may be memory-mapped.
        queries: m finite rows of the same length.
        k: at least 1.
        ids: n different ids of the rows.
        allowed: which rows may be found; None for all.

    Returns:
        Ids and similarities, both of shape (m, min(k, number of allowed rows)). Similarities are
        inner products computed in float64 and rounded once.
    """
    k = min(k, len(vectors) if allowed is None else int(allowed.sum()))
    found = np.empty((len(queries), k), dtype=np.int64)
    similarities = np.empty(found.shape, dtype=np.float32)
    for first in range(0, len(queries) if k else 0, _QUERIES_AT_ONCE):
        some = slice(first, first + _QUERIES_AT_ONCE)
        rows, similarities[some] = _Search(
            vectors, queries[some], k, ids=ids, allowed=allowed
        ).run()
        found[some] = ids[rows]
    return found, similarities


@dataclass(slots=True)
class _Candidates:
    """(query, row) pairs that may still be among the best, with their float32 products."""

    query: Integers
    row: Integers
    product: Floats

    def extended(self, query: Integers, row: Integers, product: Floats) -> _Candidates:
        return _Candidates(
            np.concatenate([self.query, query]),
            np.concatenate([self.row, row]),
            np.concatenate([self.product, product]),
        )

    def only(self, chosen: NDArray[np.bool_] | Integers) -> _Candidates:
        return _Candidates(self.query[chosen], self.row[chosen], self.product[chosen])


class _Search:
    """One pass over all rows for a few hundred queries."""

    def __init__(
        self,
        vectors: Floats,
        queries: Floats,
        k: int,
        *,
        ids: Integers,
        allowed: NDArray[np.bool_] | None,
    ) -> None:
        self._vectors = vectors
        self._queries = np.ascontiguousarray(queries)
        self._k = k
        self._ids = ids
        self._allowed = allowed
        count = len(queries)
        smallest, largest = _BLOCK_ROWS
        block = min(largest, max(smallest, _BLOCK_CELLS // max(1, count)))
        block -= block % _GROUP_ROWS
        self._group = _group_rows(block, self._k)
        self._block = min(block, _rounded_up(len(vectors), self._group))
        # The error of a float32 inner product of unit vectors is at most d * 2^-24 (a tenth more
        # for lengths close to 1): rows within twice that of the k-th best must be kept.
        lengths = np.linalg.norm(self._queries, axis=1)
        self._margin = (lengths * 2.2 * vectors.shape[1] * 2.0**-24).astype(np.float32)
        self._apart = 4.0 * float(lengths.max(initial=1))  # more than any difference of products
        self._floor = np.full(count, -np.inf, dtype=np.float32)
        none = np.zeros(0, dtype=np.int64)
        self._candidates = _Candidates(none, none, np.zeros(0, dtype=np.float32))

    def run(self) -> tuple[Integers, NDArray[np.float64]]:
        """Return rows and similarities of every query, best first."""
        import torch  # here, because many commands open an index without an exact search

        products = torch.empty((self._block, len(self._queries)), dtype=torch.float32)
        across = torch.from_numpy(self._queries).T.contiguous()
        settled = 0
        for first in range(0, len(self._vectors), self._block):
            rows = torch.from_numpy(self._vectors[first : first + self._block])
            torch.mm(rows, across, out=products[: len(rows)])
            whole_groups = _rounded_up(len(rows), self._group)
            if whole_groups > len(rows):
                products[len(rows) : whole_groups] = -np.inf
            if self._allowed is not None:
                products.numpy()[: len(rows)][~self._allowed[first : first + len(rows)]] = -np.inf
            self._look_into(products[:whole_groups], first)
            seen = first + len(rows)
            # Each time the seen rows double, the share of new candidates halves.
            if seen >= 2 * settled or seen == len(self._vectors) or self._many():
                self._raise_floor()
                settled = seen
        return self._ranked()

    def _look_into(self, products: torch.Tensor, first: int) -> None:
        grouped = products.view(-1, self._group, len(self._queries))
        maxima = grouped.amax(dim=1).numpy()
        if first == 0 and len(maxima) >= self._k:
            # Each of the k best groups holds a row no worse than the k-th best maximum.
            best = np.partition(maxima, len(maxima) - self._k, axis=0)[-self._k]
            self._floor = best - self._margin
        group, query = np.divmod(np.flatnonzero(maxima >= self._floor), len(self._queries))
        values = grouped.numpy()[group, :, query]
        # Without a floor, padding and excluded rows would be found too.
        good = (values >= self._floor[query][:, None]) & (values > -np.inf)
        hit, offset = np.divmod(np.flatnonzero(good), self._group)
        row = first + group[hit] * self._group + offset
        self._candidates = self._candidates.extended(query[hit], row, values[hit, offset])

    def _many(self) -> bool:
        return len(self._candidates.row) > _SETTLE_AT * self._k * len(self._queries)

    def _raise_floor(self) -> None:
        if self._many():  # thousands of equal rows: only their ids decide
            rows, exact = self._ranked()
            query = np.repeat(np.arange(len(rows)), rows.shape[1])
            self._candidates = _Candidates(query, rows.ravel(), exact.ravel().astype(np.float32))
        candidates = self._candidates
        # One sort key: by query, then best first.
        ordered = candidates.only(np.argsort(self._apart * candidates.query - candidates.product))
        place = _places(ordered.query, len(self._queries))
        kth = place == self._k - 1
        self._floor[ordered.query[kth]] = ordered.product[kth] - self._margin[ordered.query[kth]]
        self._candidates = ordered.only(ordered.product >= self._floor[ordered.query])

    def _ranked(self) -> tuple[Integers, NDArray[np.float64]]:
        """Return the best candidates of every query by float64 product and id."""
        candidates = self._candidates
        exact = np.empty(len(candidates.row), dtype=np.float64)
        for at in range(0, len(exact), _PAIRS_AT_ONCE):
            some = slice(at, at + _PAIRS_AT_ONCE)
            left = self._vectors[candidates.row[some]].astype(np.float64)
            exact[some] = np.einsum("ij,ij->i", left, self._queries[candidates.query[some]])
        order = np.lexsort((self._ids[candidates.row], -exact, candidates.query))
        best = order[_places(candidates.query[order], len(self._queries)) < self._k]
        shape = (len(self._queries), -1)
        return candidates.row[best].reshape(shape), exact[best].reshape(shape)


def _places(query: Integers, count: int) -> Integers:
    """Return the position of each pair within its query, for pairs sorted by query."""
    starts = np.searchsorted(query, np.arange(count))
    return np.arange(len(query)) - starts[query]


def _group_rows(block: int, k: int) -> int:
    """Return the rows per group, so that a block has at least four times `k` groups."""
    group = _GROUP_ROWS
    while group > 1 and block < 4 * k * group:
        group //= 2
    return group


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


Ids = NDArray[np.int64]
RowsAt = Callable[[NDArray[np.int64]], Vectors]
"""Gives the vectors at these positions."""

VERSION = str(faiss.__version__)

_FAISS: Any = faiss
_BUILD_REACH = 80  # efConstruction; 40 reaches the same recall at a higher efSearch
_TRAINING_ROWS = 64  # per list of an inverted index; FAISS requires 39 or more
_LARGEST_EF_SEARCH = 4096
_ALIVE = (0, 2**62)

if sys.platform == "darwin":
    # torch and faiss each bring an OpenMP runtime there, and two with threads crash.
    faiss.omp_set_num_threads(1)


class FaissRows:
    """The rows of one index, made by `empty` or `read`."""

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
        """Return an index without rows, sized for `count`; IVF is trained on some of `rows`."""
        return cls(faiss.IndexIDMap2(_new_index(kind, dimension, count, rows)))

    @classmethod
    def read(cls, path: Path, *, mapped: bool) -> FaissRows:
        """Read an index; a mapped one uses memory only as it is searched, and cannot be changed.

        Raises:
            ValueError: the file does not hold one of our indexes.
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
        except RuntimeError as fault:  # how FAISS reports a full disk or missing permissions
            raise OSError(str(fault)) from fault

    def add(self, ids: Ids, rows: Vectors) -> None:
        """Add rows under new ids; FAISS does not check for repeated ones."""
        self._index.add_with_ids(rows, ids)
        self._ids_changed(np.concatenate([self.ids, ids]))
        self.__dict__.pop("_with_places", None)

    def remove(self, places: NDArray[np.int64]) -> None:
        """Remove the rows at these places: physically from flat, else by marking them."""
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
        """Return the rows of these ids.

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
                remedy="stepgold index",
            )
        return places

    def matrix(self) -> Vectors:
        """Return FAISS's memory of flat and hnsw, one vector per row; valid until rows are changed.

        It may be a mapped file, where writing crashes the process.
        """
        flat: Any = (
            self._inner if self.kind == "flat" else faiss.downcast_index(self._inner.storage)
        )
        memory = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * self.dimension)
        rows: Vectors = memory.reshape(-1, self.dimension)
        return rows

    def at(self, places: NDArray[np.int64]) -> Vectors:
        """Return copies of the vectors at these places."""
        if self.kind != "ivf":
            return np.array(self.matrix()[places])
        if not len(places):
            return np.zeros((0, self.dimension), dtype=np.float32)
        found: Vectors = self._with_places.reconstruct_batch(places)
        return found

    @cached_property
    def _with_places(self) -> Any:
        self._inner.make_direct_map()  # list and position of each row
        return self._inner

    @property
    def knob(self) -> str:
        """FAISS's name of the search width of hnsw or ivf."""
        return "efSearch" if self.kind == "hnsw" else "nprobe"

    @property
    def largest_reach(self) -> int:
        """The largest useful search width; an inverted index is then searched exactly."""
        return _LARGEST_EF_SEARCH if self.kind == "hnsw" else int(self._inner.nlist)

    def search(self, queries: Vectors, k: int, reach: int) -> tuple[Ids, Vectors]:
        """Return the nearest rows of hnsw or ivf, best first, ties by id, both of shape (m, k).

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
    inverted.cp.min_points_per_centroid = 1  # else it warns about small corpora
    sample = np.random.default_rng(0).permutation(count)[: lists * _TRAINING_ROWS]
    inverted.train(rows(np.sort(sample)))
    return inverted
