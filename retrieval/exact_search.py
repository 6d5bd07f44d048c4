"""Exact nearest rows of a matrix, at hardly more than the cost of the matrix product.

FAISS finds the same rows; its wheel brings an OpenBLAS whose kernels are five times slower on
current processors, and its own kernels below its BLAS threshold twenty times (docs/performance.md).
So the vectors stay in the FAISS index, and the product is torch's.

The product is computed block by block into a buffer that stays in the processor's cache. Only the
maxima of small groups of its rows are compared with what each query has found so far, and only
groups that beat it are looked into. What remains is scored again in float64, so that the answer is
the true one, and the same for every size of batch and block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_QUERIES_AT_ONCE = 256
_BLOCK_CELLS = 2**20
_BLOCK_ROWS = (4096, 65536)
_GROUP_ROWS = 32
_PAIRS_AT_ONCE = 16384
_SETTLE_AT = 64  # candidates a query and hit wanted, beyond which ties are settled at once


def nearest_rows(
    vectors: Floats,
    queries: Floats,
    k: int,
    *,
    ids: Integers,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[Integers, Floats]:
    """The `k` rows of the largest inner product with each query, best first, ties by id.

    Args:
        vectors: n unit rows, C-contiguous; may be memory-mapped.
        queries: m finite rows of the same length.
        k: at least 1.
        ids: n different ids of the rows; of two equal similarities the smaller id comes first.
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
        rows, similarities[some] = _Search(vectors, queries[some], k, ids, allowed).run()
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
        # A float32 inner product of unit vectors is off by at most d * 2^-24 (a tenth more for
        # lengths that are not quite 1): nothing nearer to the k-th best than two such may be dropped.
        lengths = np.linalg.norm(self._queries, axis=1)
        self._margin = (lengths * 2.2 * vectors.shape[1] * 2.0**-24).astype(np.float32)
        self._apart = 4.0 * float(lengths.max(initial=1))  # no two products are so far apart
        self._floor = np.full(count, -np.inf, dtype=np.float32)
        none = np.zeros(0, dtype=np.int64)
        self._candidates = _Candidates(none, none, np.zeros(0, dtype=np.float32))

    def run(self) -> tuple[Integers, NDArray[np.float64]]:
        """Rows and similarities of every query, best first."""
        import torch  # here, since an index is opened more often than it is searched exactly

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
            # Each doubling of what was seen halves the share of rows that still come up.
            if seen >= 2 * settled or seen == len(self._vectors) or self._many():
                self._raise_floor()
                settled = seen
        return self._ranked()

    def _look_into(self, products: torch.Tensor, first: int) -> None:
        grouped = products.view(-1, self._group, len(self._queries))
        maxima = grouped.amax(dim=1).numpy()
        if first == 0 and len(maxima) >= self._k:
            # Each of the k best groups holds a row as good as the k-th best maximum.
            best = np.partition(maxima, len(maxima) - self._k, axis=0)[-self._k]
            self._floor = best - self._margin
        group, query = np.divmod(np.flatnonzero(maxima >= self._floor), len(self._queries))
        values = grouped.numpy()[group, :, query]
        # With no floor yet, padding and rows that are not allowed would come up as well.
        good = (values >= self._floor[query][:, None]) & (values > -np.inf)
        hit, offset = np.divmod(np.flatnonzero(good), self._group)
        row = first + group[hit] * self._group + offset
        self._candidates = self._candidates.extended(query[hit], row, values[hit, offset])

    def _many(self) -> bool:
        return len(self._candidates.row) > _SETTLE_AT * self._k * len(self._queries)

    def _raise_floor(self) -> None:
        if self._many():  # thousands of rows as good as one another: only their ids decide
            rows, exact = self._ranked()
            query = np.repeat(np.arange(len(rows)), rows.shape[1])
            self._candidates = _Candidates(query, rows.ravel(), exact.ravel().astype(np.float32))
        candidates = self._candidates
        # One key, by query and within it best first.
        ordered = candidates.only(np.argsort(self._apart * candidates.query - candidates.product))
        place = _places(ordered.query, len(self._queries))
        kth = place == self._k - 1
        self._floor[ordered.query[kth]] = ordered.product[kth] - self._margin[ordered.query[kth]]
        self._candidates = ordered.only(ordered.product >= self._floor[ordered.query])

    def _ranked(self) -> tuple[Integers, NDArray[np.float64]]:
        """The best candidates of every query by float64 product and id."""
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
    """The place of each pair within its query, for pairs sorted by query."""
    starts = np.searchsorted(query, np.arange(count))
    return np.arange(len(query)) - starts[query]


def _group_rows(block: int, k: int) -> int:
    """Rows a group: as many as leave four times `k` groups a block, so that a floor can be found."""
    group = _GROUP_ROWS
    while group > 1 and block < 4 * k * group:
        group //= 2
    return group


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
