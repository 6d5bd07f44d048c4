"""Exact search against the bare matrix product, and HNSW against exact search, query by query."""

from __future__ import annotations

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.retrieve_vectors import Vectors
from benchmarks.timing import best_of
from retrieval import PassageIndex
from retrieval.index.kinds import recall

Ids = NDArray[np.int64]

K = 10
BATCH = 256


def flat_search(vectors: Vectors, queries: Vectors, *, rounds: int) -> bool:
    """Print the row of one size; return whether the top ten were those of a float64 sort."""
    index = PassageIndex.build(np.arange(len(vectors)).tolist(), vectors, kind="flat")
    left, right = torch.from_numpy(queries), torch.from_numpy(vectors)
    wide, tall = torch.empty(len(queries), len(vectors)), torch.empty(len(vectors), len(queries))
    # numpy's threads spin for a while after a product and take a core from whoever comes next: that
    # is torch's first product, whose second one and the search then have the machine for themselves.
    products = {
        "numpy, queries x rows": lambda: np.matmul(queries, vectors.T, out=wide.numpy()),
        "numpy, rows x queries": lambda: np.matmul(vectors, queries.T, out=tall.numpy()),
        "torch, queries x rows": lambda: torch.mm(left, right.T, out=wide),
        "torch, rows x queries": lambda: torch.mm(right, left.T, out=tall),
    }
    seconds = best_of(rounds, {**products, "search": lambda: index.search(queries, K)})
    bare = min(products, key=lambda name: seconds[name])
    same = _same_top(index.search(queries, K)[0], vectors, queries)
    print(
        f"| {len(vectors):,} | {seconds['search'] * 1e3:.0f} ms | {seconds[bare] * 1e3:.0f} ms"
        f" ({bare}) | {seconds['search'] / seconds[bare]:.2f} | {'yes' if same else 'NO'} |",
        flush=True,
    )
    return same


def _same_top(found: list[Ids], vectors: Vectors, queries: Vectors) -> bool:
    exact = vectors.astype(np.float64)
    for ids, query in zip(found, queries.astype(np.float64), strict=True):
        product = exact @ query
        best = np.flatnonzero(product >= np.partition(product, -K)[-K])
        if not np.array_equal(ids, best[np.lexsort((best, -product[best]))][:K]):
            return False
    return True


def default_faiss(vectors: Vectors, queries: Vectors) -> float:
    """Seconds of FAISS's own flat search with its defaults, for the same queries."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return best_of(1, {"faiss": lambda: index.search(queries, K)})["faiss"]


def single_queries(name: str, vectors: Vectors, queries: Vectors) -> None:
    """Print how fast one query at a time is answered by HNSW at recall@10 of .95, and by Flat."""
    ids = np.arange(len(vectors)).tolist()
    flat = PassageIndex.build(ids, vectors, kind="flat")
    hnsw: list[PassageIndex] = []
    took = best_of(1, {"build": lambda: hnsw.append(PassageIndex.build(ids, vectors, kind="hnsw"))})
    index = hnsw[0]
    exact = flat.search(queries, K)[0]
    index.tune(queries=queries)
    quality = index.quality
    reached = recall(index.search(queries, K)[0], exact)
    seconds = best_of(
        3,
        {
            "hnsw": lambda: [index.search(query[None], K) for query in queries[:100]],
            "flat": lambda: [flat.search(query[None], K) for query in queries[:30]],
        },
    )
    one_hnsw, one_flat = seconds["hnsw"] / len(queries[:100]), seconds["flat"] / len(queries[:30])
    batch = best_of(
        2,
        {"hnsw": lambda: index.search(queries, K), "flat": lambda: flat.search(queries, K)},
    )
    print(
        f"| {name} | {len(vectors):,} | {quality.value if quality else ''} | {reached:.3f}"
        f" | {one_flat * 1e3:.2f} ms | {one_hnsw * 1e3:.3f} ms | {one_flat / one_hnsw:.0f}"
        f" | {batch['flat'] / batch['hnsw']:.1f} | {took['build']:.0f} s |",
        flush=True,
    )
